"""The pages that show something. What they show comes from `Desk`."""

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime

from starlette.responses import Response

from gateway.console.actions import Actions
from gateway.console.desk import Desk
from gateway.console.visit import Pages, Problem, Visit
from messages.results import WaitReason
from workers.admin.audit import AuditFilter, entries
from workers.admin.status import Stage, Status, WorkerState
from workers.amqp.queues import Role
from workers.journal import Pausable, RequestFilter, RequestRecord, State

View = Callable[[Visit], Awaitable[Response]]
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

_WAITS = {
    WaitReason.TURN: Stage.WAITING_TURN,
    WaitReason.RETRY: Stage.WAITING_RETRY,
    WaitReason.RESOURCE: Stage.WAITING_RESOURCE,
    WaitReason.WORKER: Stage.NO_WORKER,
}


class Views:
    """Pages and actions of operators, by their paths."""

    def __init__(self, pages: Pages, desk: Desk) -> None:
        self._pages = pages
        self._desk = desk
        self.reads: Mapping[str, View] = {
            "/": self._overview,
            "/requests": self._requests,
            "/waiting": self._waiting,
            "/pauses": self._pauses,
            "/audit": self._audit,
        }
        actions = Actions(pages, desk)
        self.actions: Mapping[str, View] = {
            "/pauses/pause": actions.pause,
            "/pauses/resume": actions.resume,
        }

    async def _overview(self, visit: Visit) -> Response:
        status = await self._desk.status()
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
        found = await self._desk.requests(wanted)
        return self._pages.page(
            visit, "requests.html", found=found, states=list(State), most=_LISTED, at=time.time()
        )

    async def _waiting(self, visit: Visit) -> Response:
        found, more = await self._desk.waiting(_LISTED)
        return self._pages.page(
            visit, "waiting.html", found=found, more=more, waits_for=_waits_for, at=time.time()
        )

    async def _pauses(self, visit: Visit) -> Response:
        pauses = await self._desk.pauses()
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
        found = await self._desk.operate(lambda journal: entries(journal, wanted))
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


def instant(text: str) -> float | None:
    """Return an instant of a form (UTC) as Unix seconds. Raises `Problem`."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Problem(400, "This is no time; an example is 2026-11-23T10:00.", text) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
