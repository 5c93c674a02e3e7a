"""`ecs-worker pause|resume|cancel|audit`."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

from messages.record import record
from workers.admin import audit, cancel, heartbeats, pauses
from workers.admin.audit import AuditEntry, AuditFilter
from workers.admin.cancel import CancelOutcome
from workers.admin.heartbeats import Liveness, WorkerSeen
from workers.cli.exits import CommandFailed, Exit
from workers.cli.journal import journal_failed
from workers.cli.output import Format, Report, complain, json_text, show
from workers.cli.questions import confirm
from workers.cli.times import json_time, shown_time
from workers.journal import Cancelled, JournalError, Operations, Pausable
from workers.pauses import queues_of
from workers.settings import Settings

#: Seconds for the workers to tell that they obey; they look every 2 s.
OBEYED_WITHIN = 8.0
_LOOK_EVERY = 0.25
#: Seconds for the broker to notice that a queue is consumed no longer.
_COUNTED_FOR = 5.0
#: A silent worker's process lives: it may consume.
_RUNNING = (Liveness.ALIVE, Liveness.SILENT)


@record
class Order:
    """An operator's order: kinds, why, and as whom."""

    kinds: tuple[Pausable, ...]
    reason: str | None
    operator: str | None
    wait: bool


@contextmanager
def _opened(settings: Settings) -> Iterator[Operations]:
    try:
        with closing(audit.operations(settings)) as journal:
            yield journal
    except JournalError as error:
        raise journal_failed(error) from error


def pause_kinds(settings: Settings, order: Order, seconds: float | None, output: Format) -> Exit:
    """Pause kinds for so many seconds, or until they are resumed; wait until the workers obey."""
    until = time.time() + seconds if seconds is not None else None
    actor = audit.local_actor(order.operator)
    with _opened(settings) as journal:
        made = pauses.pause(journal, order.kinds, actor, order.reason or "no reason given", until)
        ids = {one.id for one in made}
        late = _await_workers(
            journal,
            lambda one: ids <= {known.id for known in one.report.pauses},
            wait=order.wait,
        )
        _show(pauses.current(journal), output)
        code = _said(late, "still consumes" if order.wait else None)
        if order.wait and not late:
            code = _check_consumers(settings, journal, order.kinds)
    return code


def _check_consumers(settings: Settings, journal: Operations, kinds: Sequence[Pausable]) -> Exit:
    """Say whether anybody still consumes the queues of paused kinds: a worker of a version before
    this knows no pauses, and tells nothing of itself.
    """
    from workers.amqp.broker import explain  # noqa: PLC0415 - only a pause asks the broker
    from workers.amqp.queues import QueueDepths  # noqa: PLC0415
    from workers.amqp.topology import topology  # noqa: PLC0415

    wanted = topology(settings.retry_delays, settings.names)
    paused = {queues_of(settings.names)[kind] for kind in kinds}
    # The broker counts a consumer that was cancelled until all is settled that it holds.
    limit = time.monotonic() + _COUNTED_FOR
    try:
        with QueueDepths(settings.broker, settings.names, wanted) as depths:
            while True:
                held = _held(journal)
                consumed = [
                    one
                    for one in depths.read()
                    if one.name in paused and (one.consumers or 0) > held[one.name]
                ]
                if not consumed or time.monotonic() >= limit:
                    break
                time.sleep(_LOOK_EVERY)
    except Exception as error:
        cause = explain(error, settings.broker)
        complain(f"the broker cannot be asked who still consumes: {cause.reason}; {cause.advice}")
        return Exit.OK
    for one in consumed:
        complain(
            f"{one.name} still has {one.consumers} consumers that are none of these workers: one of"
            " a version before this knows no pauses, stop it"
        )
    return Exit.PARTLY if consumed else Exit.OK


def resume_kinds(settings: Settings, order: Order, output: Format) -> Exit:
    """End all pauses of kinds, show who had paused them, and wait until the workers go on."""
    actor = audit.local_actor(order.operator)
    with _opened(settings) as journal:
        ended = pauses.resume(journal, order.kinds, actor, order.reason)
        if not ended:
            complain(f"{', '.join(order.kinds)}: nothing was paused")
            _show(ended, output)
            return Exit.OK
        kinds = {one.value for one in order.kinds}
        late = _await_workers(
            journal,
            lambda one: not kinds & {known.kind for known in one.report.pauses},
            wait=order.wait,
        )
        _show(ended, output)
    return _said(late, "has not gone on yet" if order.wait else None)


def _await_workers(
    journal: Operations, obeys: Callable[[WorkerSeen], bool], *, wait: bool
) -> list[WorkerSeen]:
    """Return the workers that do not obey in time; says how many there are.

    What a silent worker told last may be true no longer: it does not count as obeying.
    """
    limit = time.monotonic() + OBEYED_WITHIN
    while True:
        running = [one for one in heartbeats.workers(journal) if one.liveness in _RUNNING]
        late = [one for one in running if one.liveness is Liveness.SILENT or not obeys(one)]
        if not late or not wait or time.monotonic() >= limit:
            break
        time.sleep(_LOOK_EVERY)
    if not running:
        complain("no worker tells of itself in the journal: it holds for each that starts")
    elif wait:
        complain(f"{len(running) - len(late)} of {len(running)} workers obey")
    return late if wait else []


def _held(journal: Operations) -> Counter[str]:
    """Return how many messages of each queue the running workers hold."""
    held: Counter[str] = Counter()
    for worker in heartbeats.workers(journal):
        if worker.liveness in _RUNNING:
            held.update({queue.queue: queue.held for queue in worker.report.queues})
    return held


def _said(late: Sequence[WorkerSeen], what: str | None) -> Exit:
    """Name the workers that do not obey yet."""
    if not late or what is None:
        return Exit.OK
    for one in late:
        name = f"{one.row.host} pid {one.row.pid}"
        if one.liveness is Liveness.SILENT:
            complain(
                f"{name} lives and has told nothing since {shown_time(one.row.seen_at)}: it hangs, or"
                " cannot reach the journal; look at its log, and restart it if it hangs"
            )
        else:
            complain(
                f"{name} {what} after {OBEYED_WITHIN:.0f} s: it obeys as soon as it reads the journal"
            )
    return Exit.PARTLY


def _show(found: Sequence[pauses.Pause], output: Format) -> None:
    if output is Format.TABLE:
        rows: list[dict[str, Any]] = [
            {
                "kind": one.kind.value,
                "since": shown_time(one.since),
                "until": shown_time(one.until) or "resumed",
                "by": one.operator,
                "user": one.real_user,
                "reason": one.reason,
            }
            for one in found
        ]
    else:
        rows = [
            {
                "kind": one.kind.value,
                "since": json_time(one.since),
                "until": json_time(one.until),
                "operator": one.operator,
                "real_user": one.real_user,
                "reason": one.reason,
            }
            for one in found
        ]
    show(rows, output)


@record
class CancelCommand:
    """A cancellation as an operator asks for it; `tenant` is a project's id or name."""

    word: str
    tenant: str | None
    reason: str | None
    operator: str | None
    yes: bool


def cancel_order(settings: Settings, command: CancelCommand, output: Format) -> Exit:
    """Preview, ask and cancel an order of which nothing has begun."""
    if not command.yes and not sys.stdin.isatty():
        text = "nothing was done: without a terminal --yes is required"
        raise CommandFailed(Exit.REFUSED, text)
    with _opened(settings) as journal:
        command = _with_project(settings, journal, command)
        if not command.yes:
            preview = cancel.preview(journal, command.word, command.tenant)
            _refuse(command, preview)
            confirm(_question(command.word, preview))
        found = cancel.cancel(
            journal,
            command.word,
            audit.local_actor(command.operator),
            command.reason,
            command.tenant,
            zone=ZoneInfo(settings.billing_timezone),
        )
    _refuse(command, found)
    row = {
        # First: the first column of a table is never left out.
        "outcome": found.outcome.value,
        "key": found.key or command.word,
        "operation": found.operation,
    }
    show([row], output)
    if found.outcome is CancelOutcome.WAITING:
        complain(
            f"no worker has had {command.word} yet: it is answered as cancelled when it comes within"
            f" 7 days; take it back with: ecs-worker cancel {command.word} --withdraw"
        )
    else:
        complain(
            "nothing of it is begun any more; a worker answers it (101.001040, cancelled) when its"
            f" message comes: ecs-worker show {found.key}"
        )
    return Exit.OK


def withdraw_cancellation(settings: Settings, command: CancelCommand, output: Format) -> Exit:
    """Withdraw the cancellation of an order that has not come."""
    actor = audit.local_actor(command.operator)
    with _opened(settings) as journal:
        command = _with_project(settings, journal, command)
        if not cancel.withdraw(journal, command.word, actor, command.reason, command.tenant):
            text = f"no cancellation waits for {command.word}; ecs-worker audit --key shows more"
            raise CommandFailed(Exit.CHECK_FAILED, text)
    show([{"outcome": "withdrawn", "key": command.word, "operation": None}], output)
    return Exit.OK


def _with_project(settings: Settings, journal: Operations, command: CancelCommand) -> CancelCommand:
    """Return the command with the id of its tenant's project, by which orders are known: with a
    name a cancellation would wait for an order that never comes, and the order would be carried out.
    """
    if command.tenant is None or cancel.preview(journal, command.word, command.tenant) is not None:
        return command
    from workers.dead_letters.tenants import CannotBeFound, project_id  # noqa: PLC0415 - the cloud

    try:
        found = asyncio.run(project_id(settings, command.tenant))
    except CannotBeFound as error:
        raise CommandFailed(
            Exit.REFUSED,
            f"nothing was done: the journal has no order {command.word} of {command.tenant!r}, and"
            f" that tenant cannot be looked up: {error}; name the order by its whole key,"
            " order:PROJECT-ID:ORDER-ID, or leave --tenant out",
        ) from error
    return replace(command, tenant=found)


def _question(word: str, preview: Cancelled | None) -> str:
    if preview is None:
        return (
            f"The journal knows no order {word}: it is mistyped, or no worker has had it."
            " It will be cancelled when it comes"
        )
    return (
        f"{preview.operation} {preview.key}, of which nothing has begun, will be cancelled for good"
    )


def _refuse(command: CancelCommand, found: Cancelled | None) -> None:
    """Raise `CommandFailed` where nothing can be cancelled."""
    if found is None or found.outcome in (CancelOutcome.CANCELLED, CancelOutcome.WAITING):
        return
    word = command.word
    texts = {
        CancelOutcome.BEGUN: f"{found.key} has begun and is carried out: {', '.join(found.begun)}",
        CancelOutcome.ENDED: f"{found.key} has its result already ({found.code or 'pruned'})",
        CancelOutcome.COMMAND: f"{word} is a command, which is answered within its time limit;"
        " only orders are cancelled",
        CancelOutcome.AMBIGUOUS: f"several orders are called {word}, name one by its whole key:"
        f" {', '.join(found.keys)}",
    }
    raise CommandFailed(Exit.REFUSED, f"nothing was cancelled: {texts[found.outcome]}")


def list_audit(settings: Settings, wanted: AuditFilter, output: Format) -> None:
    """Print what operators did, newest first."""
    with _opened(settings) as journal:
        found = audit.entries(journal, wanted)
    if output is Format.TABLE and Report.is_wide:
        show([_row(one) for one in found], output)
        return
    if output is Format.TABLE:
        # Two lines each: no name, id or reason is cut.
        report = Report()
        for one in found:
            row = _row(one)
            report.heading(f"{row['at']}  {row['operator']}: {row['action']} {row['target'] or ''}")
            report.line(f"    {row['user']}, from {row['from']}")
            if about := "; ".join(text for text in (row["reason"], row["details"]) if text):
                report.line(f"    {about}")
        return
    show(
        [
            {
                "at": json_time(one.at),
                "action": one.action,
                "target": one.target,
                "operator": one.operator,
                "real_user": one.real_user,
                "origin": one.origin,
                "reason": one.reason,
                "details": dict(one.details),
            }
            for one in found
        ],
        output,
    )


def _row(entry: AuditEntry) -> dict[str, Any]:
    return {
        "at": shown_time(entry.at),
        "action": entry.action,
        "target": entry.target,
        "operator": entry.operator,
        "user": entry.real_user,
        "from": entry.origin,
        "reason": entry.reason,
        "details": ", ".join(
            f"{name.replace('_', ' ')} {_in_words(name, value)}"
            for name, value in entry.details.items()
            if value not in (None, "", [], {})
        ),
    }


def _in_words(name: str, value: Any) -> str:
    if name in ("since", "until") and isinstance(value, (int, float)):
        return shown_time(value)
    return value if isinstance(value, str) else json_text(value)
