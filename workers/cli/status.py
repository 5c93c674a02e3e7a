"""`ecs-worker status` and `ecs-worker show`."""

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import typer

from messages.secrets import mask
from workers.admin.find import Event, Finder, Found, FoundMessage, FoundRequest
from workers.admin.limits import Limits
from workers.admin.state import QueueStatus, Sources, Stage, Status, WorkerStatus
from workers.admin.status import StatusReader
from workers.admin.times import SECONDS, span
from workers.amqp.queues import Role
from workers.cli.exits import CommandFailed, Exit
from workers.cli.journal import request_facts, request_record
from workers.cli.output import Format, Report, complain, json_text, show_json
from workers.cli.times import ago, json_time, shown_time
from workers.settings import Settings

_STAGES = {
    Stage.RUNNING: "running",
    Stage.WAITING_TURN: "waits: turn",
    Stage.WAITING_RETRY: "waits: retry",
    Stage.WAITING_RESOURCE: "waits: cloud",
    Stage.NO_WORKER: "no worker",
    Stage.ANSWERED: "answered",
}
#: Fields that hold Unix seconds, besides those that end in `_at`.
_TIMES = frozenset({"at", "since", "until"})


def show_status(settings: Settings, limits: Limits, watch: float | None, output: Format) -> Exit:
    """Print the status, with `watch` again and again, so many seconds apart; return the exit code."""
    unknown = _unknown_queues(settings, limits)
    if unknown:
        names = ", ".join(unknown)
        raise CommandFailed(Exit.USAGE, f"there is no queue {names}; ecs-worker topology show")
    reader = StatusReader(Sources.of(settings))
    try:
        with asyncio.Runner() as runner:
            before: Status | None = None
            while True:
                status = runner.run(reader.read())
                broken = limits.broken(status)
                if watch is None:
                    _print_status(status, before, broken, output)
                    break
                if output is Format.TABLE and sys.stdout.isatty():
                    print("\x1b[H\x1b[2J", end="")
                _print_status(status, before, broken, output)
                before = status
                time.sleep(watch)
    finally:
        reader.close()
    for line in broken:
        complain(f"beyond the limit: {line}")
    if not status.is_complete:
        return Exit.UNREACHABLE
    return Exit.CHECK_FAILED if broken else Exit.OK


def parse_limits(words: Sequence[str], option: str, names: Sequence[str]) -> dict[str, float]:
    """Return numbers (or durations in seconds) by queue of words `QUEUE=N` or `N`. Raises
    `BadParameter`.
    """
    found: dict[str, float] = {}
    for word in words:
        queue, _, value = word.rpartition("=")
        number = value[:-1] if value[-1:] in SECONDS and option == "--max-age" else value
        if not number.isdigit() or not number.isascii() or len(number) > 12:
            example = "ecs.orders=90s or 5m" if option == "--max-age" else "ecs.orders=1000 or 1000"
            raise typer.BadParameter(f"{option} {word}: must be like {example}")
        if queue and queue not in names and f"{names[0].partition('.')[0]}.{queue}" in names:
            queue = f"{names[0].partition('.')[0]}.{queue}"
        unit = SECONDS[value[-1]] if value[-1:] in SECONDS and option == "--max-age" else 1
        found[queue] = float(int(number) * unit)
    return found


def _unknown_queues(settings: Settings, limits: Limits) -> list[str]:
    known = {"", *queue_names(settings)}
    return sorted({*limits.ready, *limits.age} - known)


def queue_names(settings: Settings) -> list[str]:
    """Return the names of all queues."""
    from workers.amqp.topology import topology  # noqa: PLC0415

    return [one.name for one in topology(settings.retry_delays, settings.names).queues]


def _print_status(
    status: Status, before: Status | None, broken: Sequence[str], output: Format
) -> None:
    if output is not Format.TABLE:
        document = {**_json(asdict(status)), "beyond_limits": list(broken)}
        print(json_text(document, 2 if output is Format.JSON else None), flush=True)
        return
    report = Report()
    report.heading(shown_time(status.at))
    for line in status.findings:
        report.line(f"  ! {line}")
    if not status.findings:
        report.line("  nothing stands still")
    for line in status.unknown:
        report.line(f"  ? {line}")
    if status.queues:
        _print_queues(report, status, before)
    _print_requests(report, status)
    _print_workers(report, status)


def _print_queues(report: Report, status: Status, before: Status | None) -> None:
    """Print the queues, with their rates since the status `before`."""
    earlier = {one.name: one.ready for one in before.queues} if before is not None else {}
    passed = status.at - before.at if before is not None else 0.0
    report.line("queues")
    rows = [
        _queue_row(one, status.at, earlier.get(one.name), passed)
        for one in status.queues
        if one.role is not Role.RETRY
    ]
    report.table(rows, indent=2, keep=("ready",))
    waiting = [one for one in status.queues if one.role is Role.RETRY and one.ready != 0]
    report.line("retry queues" if waiting else "retry queues: empty")
    report.table([_retry_row(one, status.at) for one in waiting], indent=2)


def _print_requests(report: Report, status: Status) -> None:
    """Print unfinished requests and dead letters."""
    report.line("requests that are not finished" if status.requests else "no unfinished requests")
    report.table(
        [
            {
                "state": _STAGES[one.stage],
                "count": one.count,
                "oldest": one.oldest,
                "age": span(status.at - one.oldest_at),
                "goes on": _due(one.next_at, status.at),
                "tenant": one.tenant,
            }
            for one in status.requests
        ],
        indent=2,
        keep=("count", "age"),
    )
    report.line(f"dead letters: {_or_unknown(status.dead.total)}")
    report.table(
        [
            {
                "messages": one.count,
                "code": one.code,
                "reason": one.reason,
                "error": one.error,
                "newest": span(status.at - one.newest_at) if one.newest_at is not None else "",
            }
            for one in status.dead.causes
        ],
        indent=2,
        keep=("code",),
    )


def _print_workers(report: Report, status: Status) -> None:
    """Print workers, pauses and dependencies."""
    report.line("workers" if status.workers else "workers: none told of itself within a day")
    report.table(
        [_worker_row(one, status.at) for one in status.workers], indent=2, keep=("state", "version")
    )
    report.line("paused" if status.paused else "paused: nothing")
    report.table(
        [
            {
                "kind": one.kind,
                "by": one.by,
                "since": shown_time(one.since),
                "until": shown_time(one.until) or "resumed",
                "reason": one.reason,
            }
            for one in status.paused
        ],
        indent=2,
        keep=("until", "reason"),
    )
    report.line("dependencies")
    report.table(
        [
            {
                "dependency": one.name,
                "state": {True: "ok", False: "down", None: "unknown"}[one.is_up],
                "why": one.why,
            }
            for one in status.dependencies
        ],
        indent=2,
        keep=("state",),
    )
    sys.stdout.flush()


def _queue_row(
    queue: QueueStatus, now: float, earlier: int | None, passed: float
) -> dict[str, Any]:
    change = ""
    if passed and earlier is not None and queue.ready is not None:
        change = f"{(queue.ready - earlier) / passed:+.1f}/s"
    oldest = span(now - queue.oldest_at) if queue.oldest_at is not None else ""
    return {
        "queue": queue.name,
        "ready": _or_unknown(queue.ready),
        "held": "?" if queue.held is None else queue.held,
        "consumers": _or_unknown(queue.consumers),
        "oldest": oldest or ("?" if queue.oldest_unknown is not None and queue.ready else ""),
        "in": _rate(queue.delivered_rate),
        "out": _rate(queue.settled_rate),
        "change": change,
    }


def _retry_row(queue: QueueStatus, now: float) -> dict[str, Any]:
    return {
        "queue": queue.name,
        "ready": _or_unknown(queue.ready),
        "next goes on": _due(queue.next_at, now) or f"within {queue.delay} s",
        "last": _due(queue.last_at, now),
    }


def _worker_row(worker: WorkerStatus, now: float) -> dict[str, Any]:
    consumed = [one.queue.partition(".")[2] for one in worker.queues if one.consuming]
    return {
        "worker": worker.name,
        "state": worker.state.value,
        "seen": f"{span(now - worker.seen_at)} ago",
        "version": worker.version,
        "held": sum(one.held for one in worker.queues),
        "consumes": " ".join(consumed),
        "region": worker.region,
        "started": shown_time(worker.started_at),
        "problems": "; ".join(worker.problems),
    }


def _rate(rate: float | None) -> str:
    return "" if rate is None else f"{rate:.1f}/s"


def _or_unknown(number: int | None) -> str:
    return "unknown" if number is None else str(number)


def _due(at: float | None, now: float) -> str:
    if at is None:
        return ""
    return f"in {span(at - now)}" if at > now else f"due {span(now - at)} ago"


def _json(value: Any, name: str = "") -> Any:
    """Return records as JSON: times as UTC, everything else as it is."""
    if isinstance(value, Mapping):
        return {key: _json(one, key) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(one, name) for one in value]
    is_time = isinstance(value, float) and (name in _TIMES or name.endswith("_at"))
    return json_time(value) if is_time else value


# One request.


def show_everywhere(settings: Settings, word: str, output: Format) -> Exit:
    """Print everything about one request, wherever it is; return the exit code."""
    finder = Finder(Sources.of(settings))
    try:
        found = asyncio.run(finder.find(word))
    finally:
        finder.close()
    if output is Format.TABLE:
        _print_found(found)
    elif output is Format.JSON:
        print(json_text(found_record(found), 2))
    else:
        show_json([found_record(found)], output)
    sys.stdout.flush()
    if found.unreachable:
        complain(f"not everything could be looked at: {'; '.join(found.unknown)}")
        return Exit.UNREACHABLE
    return Exit.OK if found.is_known else Exit.CHECK_FAILED


def found_record(found: Found) -> dict[str, Any]:
    """Return what was found as JSON."""
    return {
        "word": found.word,
        "answer": found.answer,
        "requests": [
            {
                **request_record(one.record, list(one.replays)),
                "place": one.place.value,
                "queue": one.queue,
                "why": one.why,
                "goes_on_at": json_time(one.goes_on_at),
                "timeline": [
                    {**_json(asdict(event)), "text": event.text} for event in one.timeline
                ],
            }
            for one in found.requests
        ],
        "messages": [mask(_json(asdict(one))) for one in found.messages],
        "held": [_json(asdict(one)) for one in found.held],
        "unknown": list(found.unknown),
    }


def _print_found(found: Found) -> None:
    report = Report()
    for request in found.requests:
        _print_request(report, request)
    for message in found.messages:
        _print_message(report, message)
    if not found.is_known:
        report.line(found.answer)
        report.table(
            [
                {
                    "worker": one.worker,
                    "queue": one.queue,
                    "not begun": one.waiting,
                    "oldest": shown_time(one.oldest_at),
                }
                for one in found.held
            ],
            indent=2,
        )
    for line in found.unknown:
        report.line(f"? {line}")


def _print_request(report: Report, found: FoundRequest) -> None:
    request = found.record
    where = found.place.value.replace("_", " ")
    queue = f" ({found.queue})" if found.queue is not None else ""
    report.heading(request.key)
    report.facts(
        {
            "where": f"{where}{queue}",
            "why": found.why,
            "goes on": _when(found.goes_on_at),
            **request_facts(request),
            "last error": request.wait.detail if request.wait is not None else "",
        }
    )
    events = found.timeline
    days = {shown_time(one.at)[:10] for one in events}
    report.line(f"timeline of {' '.join(days)} (UTC)" if len(days) == 1 else "timeline")
    report.table(
        [_event_row(one, with_day=len(days) > 1) for one in events], indent=2, keep=("event",)
    )


def _event_row(event: Event, *, with_day: bool) -> dict[str, Any]:
    lasted = ""
    if event.until is not None and event.until > event.at:
        lasted = f"{event.until - event.at:.1f} s"
    time_text = shown_time(event.at)
    return {
        "time": time_text if with_day else time_text[11:],
        "event": event.label,
        "of": event.subject,
        "lasts": lasted,
        "mark": "" if event.mark.value == "done" else event.mark.value,
        "detail": event.detail,
    }


def _print_message(report: Report, message: FoundMessage) -> None:
    report.heading(f"a message in {message.queue}: {message.key or message.message_id}")
    report.facts(
        {
            "where": message.place.value.replace("_", " "),
            "why": message.why,
            "goes on": f"by {shown_time(message.goes_on_at)}" if message.goes_on_at else "",
            "message_id": message.message_id,
            "operation": message.operation,
            "tenant": message.tenant,
            "published": _when(message.published_at),
            "position": message.position,
            "attempts": message.attempts or "",
            "code": message.code,
            "error": message.error,
            "failed": _when(message.failed_at),
        }
    )


def _when(at: float | None) -> str:
    if at is None:
        return ""
    return f"{shown_time(at)} ({ago(at) if at <= time.time() else f'in {span(at - time.time())}'})"
