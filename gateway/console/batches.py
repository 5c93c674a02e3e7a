"""Batches of dead letters: carried out by threads of this gateway, seen and stopped from any.

A batch's state is in the journal. A gateway that ends, or dies, leaves it unfinished there, and any
gateway, or the command line, goes on with it.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlencode

import structlog
from starlette.responses import Response

from gateway.console.backend import Backend, engine_access
from gateway.console.forms import actor_of, reason_of
from gateway.console.pages import ROOT, Pages, Problem, View, Visit, go_to
from workers.dead_letters import archive, engine
from workers.dead_letters.batch import BatchRequest
from workers.dead_letters.batch_run import RunTerms
from workers.journal import Action, Actor, Archived, Batch, ReplayOutcome, ReplayState

log = structlog.get_logger()

_LISTED, _MESSAGES = 50, 200
#: Batches that one gateway carries out at once.
_MOST = 4
#: Looks at a batch that was just begun, and seconds between two: its page shows it under way.
_LOOKS, _LOOK_EVERY = 20, 0.1
#: Seconds for batches to end when the gateway does.
_ENDS_WITHIN = 25.0

#: The states and outcomes of messages, as pages call them.
STATES = {
    ReplayState.PINNED: "to be done",
    ReplayState.ISSUED: "under way",
    ReplayState.SENT: "replayed",
    ReplayState.DISCARDED: "discarded",
    ReplayState.GONE: "taken by somebody else",
    ReplayState.REPEATED: "repeated",
}
OUTCOMES = {
    ReplayOutcome.REFUSED: "answered with a refusal",
    ReplayOutcome.PARKED: "dead again",
}


class Batches:
    """The batches of this gateway, and the pages about all."""

    def __init__(self, pages: Pages, backend: Backend) -> None:
        self._pages = pages
        self._backend = backend
        self._running: dict[threading.Thread, Callable[[], None]] = {}
        self.reads: Mapping[str, View] = {"/batches": self._list, "/batch": self._show}
        self.actions: Mapping[str, View] = {
            "/batch/stop": self._stop,
            "/batch/resume": self._resume,
        }

    async def close(self) -> None:
        """Stop the batches that this gateway carries out; what is left can be gone on with."""
        for stop in self._running.values():
            stop()
        end = time.monotonic() + _ENDS_WITHIN
        for thread in tuple(self._running):
            await asyncio.to_thread(thread.join, max(0.0, end - time.monotonic()))

    async def begin(
        self, request: BatchRequest, division: engine.Division, rate: float | None
    ) -> str:
        """Record a batch and begin to carry it out; return its name."""
        self._check_room()
        begun = await self._backend.accessing(
            lambda access: engine.begin(access, request, division)
        )
        terms = RunTerms(request.action, request.operator, rate, request.why)
        await self._carry_out(begun.batch.name, terms, vouch=request.vouch)
        return begun.batch.name

    async def restore(
        self, archived: Sequence[Archived], operator: Actor, reason: str
    ) -> archive.Restoration:
        """Put messages of the archive into the dead letters again, on record."""
        settings = self._backend.settings

        async def work(access: engine.Access) -> archive.Restoration:
            # ORDER: on record before anything is put back, as the command line does it.
            details = {"messages": len(archived)}
            await engine.audit(
                settings, "dead restore", operator, reason=reason or None, details=details
            )
            return await archive.restore(settings, access.journal, operator, archived)

        return await self._backend.accessing(work)

    async def _list(self, visit: Visit) -> Response:
        found = await self._backend.history(lambda history: history.batches(_LISTED))
        return self._pages.page(visit, "batches.html", found=found, most=_LISTED)

    async def _show(self, visit: Visit) -> Response:
        batch = await self._found(visit.asked("name"))
        # Not all: there may be 100,000, and the page asks again every two seconds.
        replays = await self._backend.history(
            lambda history: history.replays(batch=batch.name, limit=_MESSAGES)
        )
        return self._pages.page(
            visit,
            "batch.html",
            batch=batch,
            replays=replays,
            more=max(0, batch.messages - len(replays)),
            is_replay=batch.action is Action.REPLAY,
            states={state.value: text for state, text in STATES.items()},
            outcomes={outcome.value: text for outcome, text in OUTCOMES.items()},
        )

    async def _stop(self, visit: Visit) -> Response:
        batch, actor = await self._found(visit.given("name")), actor_of(visit)
        runs = await self._backend.accessing(
            lambda access: engine.stop_batch(access, batch.name, actor)
        )
        if not runs:
            raise Problem(409, "Nobody carries this batch out now.")
        return go_to(f"{_page_of(batch)}&told=stopping")

    async def _resume(self, visit: Visit) -> Response:
        batch, actor = await self._found(visit.given("name")), actor_of(visit)
        reason = reason_of(visit, required=False) or batch.why
        vouch = bool(visit.given("vouch"))
        if batch.runner_name is not None:
            raise Problem(409, "Somebody carries this batch out now.", batch.runner_name)
        if not batch.left:
            raise Problem(409, "Nothing of this batch is left.")
        if not visit.given("confirmed"):
            return self._pages.page(
                visit,
                "confirm.html",
                title="Go on with a batch",
                verb="Go on",
                action="/batch/resume",
                facts=[
                    ("Batch", f"{batch.name}: {batch.action.value}"),
                    ("Left", f"{batch.left} / {batch.messages}"),
                    ("Begun by", batch.operator),
                ],
                notes=[],
                kept=[("name", batch.name)] + ([("vouch", "yes")] if vouch else []),
                back=f"/batch?{urlencode({'name': batch.name})}",
            )
        self._check_room()
        # Refused here, where the operator sees it, and not in the thread.
        await self._backend.accessing(
            lambda access: engine.load(access, batch.name, actor, vouch=vouch)
        )
        await self._carry_out(batch.name, RunTerms(batch.action, actor, None, reason), vouch=vouch)
        return go_to(_page_of(batch))

    async def _found(self, name: str) -> Batch:
        found = await self._backend.history(lambda history: history.batch(name))
        if found is None:
            raise Problem(404, "There is no such batch.", name)
        return found

    def _check_room(self) -> None:
        if len(self._running) >= _MOST:
            raise Problem(409, "This gateway carries out as many batches as it may. Wait for one.")

    async def _carry_out(self, name: str, terms: RunTerms, *, vouch: bool) -> None:
        """Carry a batch out in a thread with a loop of its own: messages by the thousand are read
        there, while requests of the API are answered here. Returns once it is seen to run.
        """
        stop, loop = engine.Stop(), asyncio.new_event_loop()
        settings = self._backend.settings

        async def work() -> None:
            async with engine_access(settings) as access:
                begun = await engine.load(access, name, terms.operator, vouch=vouch)
                report = await engine.carry_out(access, begun, terms, stop=stop)
                log.info("console.batch_ended", batch=name, left=report.result.left)

        def run() -> None:
            try:
                with asyncio.Runner(loop_factory=lambda: loop) as runner:
                    runner.run(work())
            except Exception:
                # The journal says what is left; whoever looks at the batch can go on with it.
                log.exception("console.batch_failed", batch=name)
            finally:
                self._running.pop(thread, None)

        def ask() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(stop.ask)

        thread = threading.Thread(target=run, name=f"batch-{name}", daemon=True)
        self._running[thread] = ask
        thread.start()
        for _ in range(_LOOKS):
            await asyncio.sleep(_LOOK_EVERY)
            if thread not in self._running or (await self._found(name)).runner_name is not None:
                return


def _page_of(batch: Batch) -> str:
    return f"{ROOT}/batch?{urlencode({'name': batch.name})}"
