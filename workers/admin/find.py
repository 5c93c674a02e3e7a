"""Everything about one request, wherever it is: in the journal, a queue, with a worker, or dead."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace

from handlers.orders.show import told_wait
from messages.record import record
from messages.results import WaitReason
from messages.texts import terminal_safe
from workers.admin import cancel
from workers.admin.found import (
    Event,
    EventKind,
    Found,
    FoundMessage,
    FoundRequest,
    Held,
    Mark,
    Place,
)
from workers.admin.peek import NotLooked
from workers.admin.reports import consumed_at, retry_delay, trouble_of
from workers.admin.state import Noted, Sources, WorkerState
from workers.admin.status import StatusReader
from workers.admin.timeline import result_line, timeline
from workers.admin.times import shown_time
from workers.amqp.envelope import Envelope
from workers.amqp.queues import QueueDepth, Role
from workers.amqp.topology import NotDeclared, queue_of_command
from workers.dead_letters.dead_letter import DeadLetter, unix_time
from workers.dead_letters.reader import Unreachable
from workers.dead_letters.selection import Selection, select_dead_letters
from workers.journal import (
    Archived,
    Cancellation,
    History,
    JournalError,
    Kind,
    Operations,
    Replay,
    RequestRecord,
    Retry,
    State,
)
from workers.pipeline.exits import Ignored, Rejected
from workers.pipeline.parsing import parse

__all__ = [
    "Event",
    "EventKind",
    "Finder",
    "Found",
    "FoundMessage",
    "FoundRequest",
    "Held",
    "Mark",
    "Place",
]

#: Seconds after which a message that was due has not come back by itself.
_DUE = 5.0
#: Requests of one line, each behind the next, that are looked at to find the first.
_LONGEST_LINE = 1000
_PLACES = {
    Role.INPUT: Place.INPUT_QUEUE,
    Role.RETRY: Place.RETRY_QUEUE,
    Role.UNDELIVERED: Place.UNDELIVERED,
}


@record
class _Known:
    """The journal's knowledge of a word."""

    requests: tuple[RequestRecord, ...]
    retries: dict[str, list[Retry]]
    replays: dict[str, list[Replay]]
    #: The first of the line that others wait in for their turn, by their keys.
    first: dict[str, RequestRecord]
    #: Discarded and edited messages.
    archived: tuple[Archived, ...] = ()
    #: Cancellations of orders that have not come yet.
    cancelled: tuple[Cancellation, ...] = ()


class Finder:
    """Finds requests, and keeps its connections. One `find` at a time."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._reader = StatusReader(sources)

    def close(self) -> None:
        """Close all connections. Blocks for a moment."""
        self._reader.close()

    async def find(self, word: str) -> Found:
        """Return all that is known by a message_id, an orderId, a flowId or a whole key.

        What cannot be reached is told in it: nothing is raised for it. Messages in queues are
        looked at only where the journal does not know the word (`peek`).
        """
        (depths, broker), (journal, noted) = await asyncio.gather(
            asyncio.to_thread(self._reader.read_depths),
            asyncio.to_thread(self._reader.read_journal),
        )
        unknown, unreachable, known = [], [], _Known((), {}, {}, {})
        try:
            known = await asyncio.to_thread(self._known, word)
        except JournalError as error:
            unknown.append(f"the journal cannot be read: {error}")
            unreachable.append("journal")
        if not broker.is_up:
            unknown.append(f"the queues cannot be looked into: {broker.why}")
            unreachable.append("broker")
        dead, trouble = await self._dead(word, depths)
        unknown += trouble
        messages = [*dead, *map(_archived_message, known.archived)]
        if not known.requests and journal.is_up:
            waiting, trouble = await self._waiting(word, depths, noted)
            messages += [_with_cancellations(one, known.cancelled) for one in waiting]
            unknown += trouble
        where = _Where(self._sources, depths, noted, time.time())
        requests = tuple(self._request(one, known, dead, where) for one in known.requests)
        held: tuple[Held, ...] = ()
        if not requests and not messages:
            held = tuple(
                Held(queue.queue, worker.name, queue.waiting, queue.oldest_at)
                for worker in noted.workers
                if worker.works
                for queue in worker.queues
                if queue.waiting
            )
        found = Found(word, "", requests, tuple(messages), held, tuple(unknown), tuple(unreachable))
        answer = _answer(found)
        coming = next((one for one in known.cancelled if one.name == word), None)
        if coming is not None and not messages and not requests:
            answer = f"{answer}; {_cancelled_line(coming)}"
        return replace(found, answer=answer)

    def _known(self, word: str) -> _Known:
        history = History(self._sources.journal_url).open()
        try:
            found = history.with_waits(history.find(word))
            first = {one.key: _first_of_line(history, one) for one in found}
            return _Known(
                tuple(found),
                {one.key: history.retries(one.key) for one in found},
                {one.key: history.replays(name=one.name) for one in found},
                {key: one for key, one in first.items() if one is not None},
                tuple(history.archived((word,))),
                self._cancellations(),
            )
        finally:
            history.close()

    def _cancellations(self) -> tuple[Cancellation, ...]:
        names = self._sources.names
        with closing(Operations(self._sources.journal_url, names.namespace).open()) as operations:
            return tuple(cancel.pending(operations))

    async def _dead(
        self, word: str, depths: Iterable[QueueDepth]
    ) -> tuple[list[FoundMessage], list[str]]:
        """Return the dead letters with this id or key."""
        depth = next((one for one in depths if one.role is Role.DEAD), None)
        if depth is None or not (depth.ready or depth.consumers):
            return [], []
        try:
            selected = await select_dead_letters(
                self._sources.broker, self._sources.names, Selection(ids=(word,))
            )
        except (Unreachable, NotDeclared) as error:
            return [], [f"{depth.name} could not be read: {error}"]
        unknown = []
        if selected.shared:
            unknown.append(f"{depth.name}: another reader holds messages, which cannot be seen now")
        return [_dead_message(one, depth.name) for one in selected.letters], unknown

    async def _waiting(
        self, word: str, depths: Iterable[QueueDepth], noted: Noted
    ) -> tuple[list[FoundMessage], list[str]]:
        """Look through the messages that wait in input queues, retry queues and `ecs.undelivered`."""
        found: list[FoundMessage] = []
        unknown: list[str] = []
        sought = word.encode()
        for depth in depths:
            place = _PLACES.get(depth.role)
            if place is None or not depth.ready:
                continue

            def look(position: int, envelope: Envelope, depth: QueueDepth = depth) -> None:
                if envelope.message_id == word or sought in envelope.body:
                    message = self._message(word, position, envelope, depth, noted)
                    if message is not None:
                        found.append(message)

            try:
                seen = await self._reader.peeker.search(
                    depth, consumed_at(depth.name, noted.workers), look
                )
            except NotLooked as error:
                unknown.append(str(error))
                continue
            if seen < depth.ready:
                unknown.append(
                    f"{depth.name}: the first {seen} of {depth.ready} messages were looked at"
                )
        return found, unknown

    def _message(
        self, word: str, position: int, envelope: Envelope, depth: QueueDepth, noted: Noted
    ) -> FoundMessage | None:
        """Return a message that waits in a queue; None where it is another one."""
        came = envelope
        if depth.role is Role.RETRY:  # as it comes back to the queue that it is from
            came = replace(envelope, queue=envelope.routing_key, exchange="")
        key = operation = tenant = None
        try:
            request = parse(came, None)
        except Rejected as rejected:
            message = rejected.message or {}
            key, operation = message.get("orderId") or message.get("flowId"), rejected.operation
        except Ignored as ignored:
            key = ignored.name
        else:
            key, operation, tenant = request.name, request.operation, request.tenant
        key = str(key) if key is not None else envelope.message_id
        if word not in (key, envelope.message_id):
            return None
        goes_on_at = None
        ahead = f"{position - 1} message{' is' if position == 2 else 's are'} ahead of it"
        if depth.role is Role.RETRY:
            goes_on_at = time.time() + (depth.delay or 0)
            why = f"it goes back to {envelope.routing_key} within {depth.delay} s"
        else:
            why = trouble_of(depth, noted) or f"it comes to a worker when it is its turn: {ahead}"
            if trouble_of(depth, noted) is not None and position > 1:
                why = f"{why}; {ahead}"
        return FoundMessage(
            place=_PLACES[depth.role],
            queue=depth.name,
            position=position,
            key=key,
            message_id=envelope.message_id,
            operation=operation,
            tenant=tenant,
            published_at=envelope.timestamp,
            why=why,
            goes_on_at=goes_on_at,
            attempts=envelope.attempts,
        )

    @staticmethod
    def _request(
        request: RequestRecord, known: _Known, dead: Sequence[FoundMessage], where: "_Where"
    ) -> FoundRequest:
        place, queue, why, goes_on_at = where.of(request)
        behind = request.wait.behind if request.wait is not None else None
        if behind is not None and (first := known.first.get(request.key)) is not None:
            _, _, theirs, _ = where.of(first)
            line = "" if first.key == behind.key else "The first of them, "
            why = f"{why}. {line}{first.operation} {first.name} {theirs}"
        replays = known.replays[request.key]
        return FoundRequest(
            record=request,
            place=place,
            queue=queue,
            why=why,
            goes_on_at=goes_on_at,
            replays=tuple(replays),
            timeline=timeline(request, known.retries[request.key], replays, dead, where.now),
        )


@record
class _Where:
    """Tells where the message of a request is that the journal knows."""

    sources: Sources
    depths: Sequence[QueueDepth]
    noted: Noted
    now: float

    def of(self, request: RequestRecord) -> tuple[Place, str | None, str, float | None]:
        """Return place, queue, why it is there, and when it goes on."""
        if request.state is not State.RUNNING:
            sent = "is published" if request.state is State.SETTLED else "is being published"
            return (
                Place.ANSWERED,
                None,
                f"has its result, which {sent}: {result_line(request.result)}",
                None,
            )
        wait, origin = request.wait, self._origin(request)
        if wait is None or (request.owner is not None and wait.reason is not WaitReason.WORKER):
            by = next((one for one in self.noted.workers if one.owner == request.owner), None)
            worker = f"worker {by.name}" if by is not None else "a worker"
            doing = told_wait(wait).message if wait is not None else "is being carried out"
            why = f"{doing}; {worker} has it"
            if by is not None and by.state is WorkerState.SILENT:
                why += f", and has told nothing since {shown_time(by.seen_at)}: ecs-worker status"
            return Place.WORKER, origin.name, why, None
        if wait.until is not None and wait.until > self.now - _DUE:
            delay = retry_delay(wait.until - wait.since, self.sources.retry_delays)
            queue = self._depth(self.sources.names.retry_queue(delay))
            words = told_wait(wait).message
            if wait.detail:
                words = f"{words}; the error was: {terminal_safe(wait.detail)}"
            if queue.ready == 0 and wait.until > self.now:
                # With a secret that is still needed it is in no retry queue, which would mask it.
                return (
                    Place.INPUT_QUEUE,
                    origin.name,
                    f"{words}; until then a worker holds it",
                    wait.until,
                )
            return Place.RETRY_QUEUE, queue.name, words, wait.until
        since = f"since {shown_time(wait.until or wait.since)}"
        trouble = trouble_of(origin, self.noted) if self.depths else None
        why = f"no worker has it, its message is in {origin.name} {since}"
        if trouble is not None:
            why = f"{why}: {trouble}"
        elif origin.ready is not None:
            why = f"{why}: it comes to the next worker that has room"
        return Place.INPUT_QUEUE, origin.name, why, None

    def _origin(self, request: RequestRecord) -> QueueDepth:
        """Return the queue that a request came from."""
        names = self.sources.names
        name: str | None = names.orders_queue
        if request.kind is Kind.COMMAND:
            name = queue_of_command(names, request.operation)
        return self._depth(name or names.orders_queue)

    def _depth(self, name: str) -> QueueDepth:
        unknown = QueueDepth(name, Role.INPUT, None, None)
        return next((one for one in self.depths if one.name == name), unknown)


def _first_of_line(history: History, request: RequestRecord) -> RequestRecord | None:
    """Return the request that all those ahead of a request wait for; None where it does not wait
    for its turn, or the one ahead is gone.
    """
    first, seen = None, {request.key}
    while request.wait is not None and (behind := request.wait.behind) is not None:
        if behind.key in seen or len(seen) > _LONGEST_LINE:
            break
        seen.add(behind.key)
        ahead = history.with_keys([behind.key]).get(behind.key)
        if ahead is None:
            break
        first = request = ahead
    return first


def _cancelled_line(one: Cancellation) -> str:
    """Return what is said of an order that has not come and is cancelled."""
    reason = f" ({one.reason})" if one.reason else ""
    tenant = f", if it is of tenant {one.tenant}," if one.tenant else ""
    return (
        f"{one.operator} cancelled it{tenant} at {shown_time(one.at)}{reason}: it is answered as cancelled"
        " when it comes to a worker"
    )


def _with_cancellations(message: FoundMessage, found: Sequence[Cancellation]) -> FoundMessage:
    """Return an order that waits in a queue with what says that it is cancelled."""
    mine = next((one for one in found if one.name == message.key), None)
    if mine is None or not (message.operation or "").startswith("order."):
        return message
    return replace(message, why=f"{_cancelled_line(mine)}; {message.why}")


def _dead_message(letter: DeadLetter, queue: str) -> FoundMessage:
    return FoundMessage(
        place=Place.DEAD,
        queue=queue,
        position=None,
        key=letter.key,
        message_id=letter.id,
        operation=letter.operation,
        tenant=letter.tenant,
        published_at=letter.envelope.timestamp,
        why=f"it waits for an operator: ecs-worker dead show {letter.id or letter.key}",
        code=letter.code,
        error=letter.error,
        failed_at=letter.failed or None,
        attempts=letter.attempts,
        identity=letter.identity,
    )


def _archived_message(one: Archived) -> FoundMessage:
    done = "edited" if one.edited is not None else "discarded"
    why = f"it was {done} by {one.operator} at {shown_time(one.archived_at)}"
    if one.restored_at is not None:
        why += f", and restored by {one.restored_by} at {shown_time(one.restored_at)}"
    elif one.edited is None:
        why += f": ecs-worker dead restore {one.id}"
    return FoundMessage(
        place=Place.ARCHIVE,
        queue="the archive",
        position=None,
        key=one.name,
        message_id=one.message_id,
        operation=one.operation,
        tenant=one.tenant,
        published_at=None,
        why=why,
        code=one.code,
        error=one.error,
        failed_at=unix_time(one.failed_at) or None,
    )


def _answer(found: Found) -> str:
    """Return where it is, why, and when it goes on, in a line."""
    said = [f"{one.record.operation} {one.record.name}: {one.why}" for one in found.requests]
    said += [
        f"{one.operation or 'message'} {one.key}: in {one.queue}"
        + (f", {one.code} {one.error}" if one.place is Place.DEAD else "")
        + f"; {one.why}"
        for one in found.messages
    ]
    if said:
        return "; ".join(said)
    if found.held:
        number = sum(one.waiting for one in found.held)
        return (
            f"neither the journal nor a queue has {found.word!r}; it may be one of {number} messages"
            " that workers hold and have not begun"
        )
    if found.unknown:
        return f"{found.word!r} was not found, and not everything could be looked at"
    return (
        f"nobody knows {found.word!r}: it is in no queue and not in the journal (what is in neither"
        " was never sent here, was only read, or was a command answered more than 7 days ago)"
    )
