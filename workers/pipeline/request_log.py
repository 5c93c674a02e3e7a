"""The log of requests that handlers read: the journal's part of it that one project may see."""

from collections.abc import Sequence

from handlers.context import ANSWER, LoggedRequest
from handlers.effects.concurrency import Turns
from handlers.effects.ledger import Effect, EffectId
from messages.errors import Transient
from workers.identity import NO_PROJECT
from workers.journal import Journal, JournalError, RequestRecord, State
from workers.request import keys_of

#: Reads at once. There are at least five threads for all that reads the journal.
_AT_ONCE = 4


class JournalRequests:
    """Reads requests from the journal, in turn by project; implements `RequestLog`."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._turns = Turns(_AT_ONCE)

    async def find(self, project_id: str, name: str) -> Sequence[LoggedRequest]:
        # By whole keys: another project's request of the same name is not even read.
        keys = keys_of(name, (project_id, NO_PROJECT))
        place = await self._turns.take(project_id)
        try:
            found = await self._journal.with_keys(keys)
        except JournalError as error:
            raise Transient("journal", detail=str(error)) from None
        finally:
            self._turns.release(place)
        return [_logged(found[key]) for key in keys if key in found]


def _logged(request: RequestRecord) -> LoggedRequest:
    effects = {
        EffectId.parse(one.name): Effect(one.marker, one.intended_at, one.outcome, one.request_id)
        for one in request.effects
    }
    result = request.result
    if result is None and ANSWER in effects:
        result = effects[ANSWER].value  # answered before the end
    times = (request.updated_at, *(one.intended_at for one in request.effects))
    return LoggedRequest(
        name=request.name,
        operation=request.operation,
        project_id=request.tenant if request.tenant != NO_PROJECT else None,
        is_done=request.state is not State.RUNNING,
        received_at=request.received_at,
        updated_at=max(times),
        effects=effects,
        result=result,
        finals=request.updates,
        wait=request.wait,
    )
