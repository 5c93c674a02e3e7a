"""The pages that show something. What they show comes from `Backend`."""

import time
from collections.abc import Mapping

from starlette.responses import Response

from gateway.console.actions import Actions
from gateway.console.backend import Backend
from gateway.console.batches import Batches
from gateway.console.dead_letters import DeadLetters
from gateway.console.forms import instant
from gateway.console.pages import Pages, Problem, View, Visit
from gateway.console.timeline import timeline
from messages.results import WaitReason
from workers.admin.audit import AuditFilter, entries
from workers.admin.find import EventKind, Place
from workers.admin.status import Stage, Status, WorkerState
from workers.amqp.queues import Role
from workers.journal import Kind, Pausable, RequestFilter, RequestRecord, State

#: Requests of a list, at most.
_LISTED = 100
#: How far a request is, as pages call it.
STAGES = {
    Stage.RUNNING: "running",
    Stage.WAITING_TURN: "waits for its turn at a server",
    Stage.WAITING_RETRY: "waits for its next attempt",
    Stage.WAITING_RESOURCE: "waits for the cloud",
    Stage.NO_WORKER: "waits for a worker",
    Stage.ANSWERED: "answered, being published",
}

#: Where a message is, and what happened to a request, as pages call it.
PLACES = {
    Place.INPUT_QUEUE: "in its queue",
    Place.RETRY_QUEUE: "in a retry queue",
    Place.WORKER: "with a worker",
    Place.UNDELIVERED: "undelivered",
    Place.DEAD: "dead letter",
    Place.ARCHIVE: "in the archive",
    Place.ANSWERED: "answered",
}
KINDS = {
    EventKind.RECEIVED: "received",
    EventKind.EFFECT: "effect",
    EventKind.UPDATE: "update",
    EventKind.RETRY: "retry",
    EventKind.WAIT: "wait",
    EventKind.RESULT: "result",
    EventKind.DEAD: "dead letter",
    EventKind.REPLAY: "replay",
    EventKind.DISCARD: "discard",
}
_WAITS = {
    WaitReason.TURN: Stage.WAITING_TURN,
    WaitReason.RETRY: Stage.WAITING_RETRY,
    WaitReason.RESOURCE: Stage.WAITING_RESOURCE,
    WaitReason.WORKER: Stage.NO_WORKER,
}


class Views:
    """Pages and actions of operators, by their paths."""

    def __init__(self, pages: Pages, backend: Backend) -> None:
        self._pages = pages
        self._backend = backend
        self.reads: Mapping[str, View] = {
            "/": self._overview,
            "/requests": self._requests,
            "/request": self._request,
            "/waiting": self._waiting,
            "/pauses": self._pauses,
            "/audit": self._audit,
        }
        actions, self.batches = Actions(pages, backend), Batches(pages, backend)
        dead = DeadLetters(pages, backend, self.batches)
        self.reads = {**self.reads, **dead.reads, **self.batches.reads}
        self.actions: Mapping[str, View] = {
            **dead.actions,
            **self.batches.actions,
            "/pauses/pause": actions.pause,
            "/pauses/resume": actions.resume,
            "/cancel": actions.cancel,
        }

    async def _overview(self, visit: Visit) -> Response:
        status = await self._backend.status()
        return self._pages.page(
            visit,
            "overview.html",
            status=status,
            tiles=_tiles(status),
            stages={stage.value: text for stage, text in STAGES.items()},
        )

    async def _requests(self, visit: Visit) -> Response:
        state = visit.asked("state")
        if state and state not in set(State):
            raise Problem(400, "There is no such state.", state)
        wanted = RequestFilter(
            state=State(state) if state else None,
            operation=visit.asked("operation") or None,
            tenant=visit.asked("tenant") or None,
            since=instant(visit.asked("since")),
            limit=_LISTED,
        )
        found = await self._backend.requests(wanted)
        return self._pages.page(
            visit, "requests.html", found=found, states=list(State), most=_LISTED, at=time.time()
        )

    async def _request(self, visit: Visit) -> Response:
        word = visit.asked("key")
        if not word:
            raise Problem(400, "Name a request.")
        found, now = await self._backend.find(word), time.time()
        running = [one for one in found.requests if one.record.state is State.RUNNING]
        is_order = any(one.record.kind is Kind.ORDER for one in running)
        dead = [one for one in found.messages if one.place is Place.DEAD]
        return self._pages.page(
            visit,
            "request.html",
            found=found,
            requests=[
                (one, timeline(one.timeline, now if one in running else None))
                for one in found.requests
            ],
            # Dead letters are read through for each look: not by itself where nothing goes on.
            is_live=bool(running) or bool(found.held),
            may_cancel=is_order or not found.requests,
            dead_id=next((one.message_id or one.key for one in dead), None),
            places={place.value: text for place, text in PLACES.items()},
            kinds={kind.value: text for kind, text in KINDS.items()},
            at=now,
        )

    async def _waiting(self, visit: Visit) -> Response:
        found, more = await self._backend.waiting(_LISTED)
        return self._pages.page(
            visit, "waiting.html", found=found, more=more, waits_for=_waits_for, at=time.time()
        )

    async def _pauses(self, visit: Visit) -> Response:
        pauses = await self._backend.pauses()
        return self._pages.page(
            visit, "pauses.html", pauses=pauses, kinds=list(Pausable), at=time.time()
        )

    async def _audit(self, visit: Visit) -> Response:
        wanted = AuditFilter(
            since=instant(visit.asked("since")),
            action=visit.asked("action") or None,
            operator=visit.asked("operator") or None,
            word=visit.asked("word") or None,
            limit=_LISTED,
        )
        found = await self._backend.operate(lambda journal: entries(journal, wanted))
        return self._pages.page(visit, "audit.html", entries=found, most=_LISTED)


def _waits_for(request: RequestRecord) -> str:
    """Return what a request waits for, as pages call it."""
    if request.state is State.DONE:
        return STAGES[Stage.ANSWERED]
    return STAGES[_WAITS[request.wait.reason]] if request.wait else STAGES[Stage.RUNNING]


def _tiles(status: Status) -> dict[str, int | None]:
    """Return the numbers that the overview begins with; None: unknown."""
    waiting = [one for one in status.queues if one.role is Role.INPUT]
    ready = [one.ready for one in waiting if one.ready is not None]
    return {
        "ready": sum(ready) if ready else None,
        "unfinished": sum(one.count for one in status.requests),
        "alive": sum(one.state is WorkerState.ALIVE for one in status.workers),
    }
