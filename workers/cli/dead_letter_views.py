"""`ecs-worker dead list|show|replays`: dead letters, and what operators did with them."""

import asyncio
import json
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from messages.secrets import mask
from workers.amqp.topology import NotDeclared
from workers.cli.exits import CommandFailed, Exit
from workers.cli.journal import (
    journal_failed,
    open_history,
    print_request,
    reason_of,
    replay_line,
    replay_row,
    request_record,
    result_line,
)
from workers.cli.output import Format, Report, complain, show, show_json
from workers.cli.times import ago, json_time, shown_time
from workers.dead_letters.dead_letter import DeadLetter, unix_time
from workers.dead_letters.reader import Unreachable
from workers.dead_letters.selection import Selected, Selection, grouped, select_dead_letters
from workers.journal import JournalError, Replay, RequestRecord
from workers.pipeline.replies import masked_body
from workers.settings import Settings

T = TypeVar("T")

#: Messages that a table lists without `--limit`.
FEW = 20
#: Characters of a body that a page shows.
_SHOWN = 4000
_PROPERTIES = (
    "message_id",
    "correlation_id",
    "reply_to",
    "type",
    "timestamp",
    "content_type",
    "content_encoding",
)


def run(work: Coroutine[Any, Any, T], runner: asyncio.Runner | None = None) -> T:
    """Run what needs broker and journal, in the runner's event loop where there is one. Raises
    `CommandFailed` where they cannot be reached.
    """
    try:
        return runner.run(work) if runner is not None else asyncio.run(work)
    except Unreachable as error:
        raise CommandFailed(Exit.UNREACHABLE, f"{error}; see ecs-worker check") from error
    except NotDeclared as error:
        raise CommandFailed(Exit.REFUSED, str(error)) from error
    except JournalError as error:
        raise journal_failed(error) from error


def select(
    settings: Settings,
    selection: Selection,
    runner: asyncio.Runner | None = None,
    *,
    keep: bool = False,
) -> Selected:
    """Select from `ecs.dead`; a line on stderr says so where not all of it could be seen.

    `keep`: everything stays held, in the runner's event loop.
    """
    selecting = select_dead_letters(settings.broker, settings.names, selection, keep=keep)
    selected = run(selecting, runner)
    if selected.shared:
        queue = settings.names.dead_queue
        complain(
            f"another reader is reading {queue} now: the messages that it holds are not shown;"
            " try again later"
        )
    return selected


def list_dead_letters(
    settings: Settings, selection: Selection, output: Format, *, summary: bool
) -> None:
    """Print groups and messages, oldest first; only groups with `summary`."""
    selected = select(settings, selection)
    letters, total = selected.letters, selected.total
    if summary:
        show([group.row() for group in grouped(letters)], output)
        return
    if output is not Format.TABLE:
        show_json([one.row() for one in letters], output)
        return
    report = Report()
    if not letters:
        report.line(f"none of {total} dead letters matches" if total else "no dead letters")
        return
    of_total = f" of {total}" if total != len(letters) else ""
    report.heading(f"{len(letters)}{of_total} dead letters")
    print_groups(report, letters)
    report.line()
    few = letters if selection.limit is not None else letters[:FEW]
    rows = [
        {
            "failed at": _when(one.failed_at),
            "id": one.id,
            "key": one.key if one.key != one.id else "",
            "operation": one.operation,
            "tenant": one.tenant,
            "error": one.error,
        }
        for one in few
    ]
    report.table(rows, indent=2)
    if len(few) < len(letters):
        report.line(f"  … the oldest {len(few)}; --limit N lists more, -o json all")
    report.line("preview a replay: ecs-worker dead replay --dry-run; a whole message: dead show ID")


def print_groups(report: Report, letters: Sequence[DeadLetter]) -> None:
    """Print a line for each group of dead letters that failed alike."""
    rows = [
        {**group.row(), "oldest": _when(group.oldest), "newest": _when(group.newest)}
        for group in grouped(letters)
    ]
    report.table(rows, indent=2)


def _when(time_text: str | None) -> str:
    seconds = unix_time(time_text)
    return f"{shown_time(seconds)} ({ago(seconds)})" if seconds else ""


def show_dead_letters(settings: Settings, selection: Selection, output: Format) -> None:
    """Print whole messages, and what the journal knows of them."""
    selected = select(settings, selection)
    if not selected.letters:
        text = f"none of {selected.total} dead letters matches; ecs-worker dead list shows them"
        raise CommandFailed(Exit.CHECK_FAILED, text)
    known, trouble = _known(settings, selected.letters)
    rows = [_whole(one, *known.get(one.key or "", ([], []))) for one in selected.letters]
    if output is not Format.TABLE:
        show_json(rows, output)
    else:
        for letter, row in zip(selected.letters, rows, strict=True):
            _print_whole(letter, row, known.get(letter.key or "", ([], [])), trouble)
    if trouble is not None:
        complain(f"{trouble}: what the journal knows of them is not shown")


#: What the journal knows by a key.
_Known = tuple[list[RequestRecord], list[Replay]]


def _known(
    settings: Settings, letters: Sequence[DeadLetter]
) -> tuple[dict[str, _Known], str | None]:
    """The journal's requests and replays by key, and its trouble where it cannot be read: the
    messages are shown all the same.
    """
    keys = {one.key for one in letters if one.key}
    try:
        with open_history(settings) as history:
            return {key: (history.find(key), history.replays(name=key)) for key in keys}, None
    except CommandFailed as failed:
        return {}, str(failed)


def _whole(
    letter: DeadLetter, requests: Sequence[RequestRecord], replays: Sequence[Replay]
) -> dict[str, Any]:
    envelope = letter.envelope
    # Masked once more, though no secret should be there.
    body = masked_body(envelope.body)
    try:
        shown_body = json.loads(body)
    except (ValueError, RecursionError):
        shown_body = body.decode("utf-8", "backslashreplace")
    headers = mask(dict(envelope.headers))
    return {
        **letter.row(),
        "properties": {name: _readable(getattr(envelope, name)) for name in _PROPERTIES},
        "headers": {str(name): _readable(value) for name, value in headers.items()},
        "body": shown_body,
        "hindrance": letter.hindrance,
        "journal": [request_record(one, []) for one in requests],
        "replays": [replay_row(one) for one in replays],
    }


def _readable(value: Any) -> Any:
    return value if value is None or isinstance(value, (str, int)) else str(value)


def _print_whole(
    letter: DeadLetter, whole: dict[str, Any], known: _Known, trouble: str | None
) -> None:
    report = Report()
    report.heading(str(letter.id or letter.key or "a message without id"))
    facts = {"failed_at": _when(letter.failed_at), "cannot be replayed": whole["hindrance"]}
    report.facts(letter.row() | facts)
    report.line("properties")
    report.facts(whole["properties"])
    report.line("headers")
    report.facts(whole["headers"])
    report.line("body")
    report.document(whole["body"], _SHOWN)
    requests, replays = known
    for request in requests:
        report.line("the journal knows its key:")
        print_request(report, request, [])
    if not requests and trouble is None:
        report.line("the journal does not know its key: nothing was begun")
    if replays:
        report.line("replays and discards of messages with this key")
        report.table([replay_line(one) for one in replays], indent=2)
    report.line()


def list_replays(settings: Settings, batch: str | None, limit: int, output: Format) -> None:
    """Print the batches, newest first, or the messages of one with their results."""
    rows = _batches(settings, limit) if batch is None else _members(settings, batch)
    if batch is not None and not rows:
        text = f"no batch {batch!r}; ecs-worker dead replays lists them"
        raise CommandFailed(Exit.CHECK_FAILED, text)
    if output is Format.TABLE:
        rows = [
            {
                name: shown_time(unix_time(value)) if name.endswith("_at") and value else value
                for name, value in row.items()
            }
            for row in rows
        ]
    show(rows, output)


def _batches(settings: Settings, limit: int) -> list[dict[str, Any]]:
    with open_history(settings) as history:
        batches = history.batches(limit)
    return [
        {
            "batch": one.name,
            "action": one.action,
            "operator": one.operator,
            "real_user": one.real_user,
            "begun_at": json_time(one.begun_at),
            "ended_at": json_time(one.ended_at),
            "messages": one.messages,
            "done": one.done,
            "left": one.messages - one.done,
        }
        for one in batches
    ]


def _members(settings: Settings, batch: str) -> list[dict[str, Any]]:
    """Each with the result that its request has by now, where the journal knows one."""
    with open_history(settings) as history:
        replays = history.replays(batch=batch)
        requests = history.results([one.name for one in replays if one.name])
    rows = []
    for one in replays:
        request = requests.get(one.name or "")
        result = request.result if request is not None else None
        rows.append(
            {
                "id": one.message_id,
                "key": one.name,
                "operation": one.operation,
                "code": one.code,
                "state": one.state.value,
                "operator": one.operator,
                "real_user": one.real_user,
                "vouched": one.vouched,
                "done_at": json_time(one.done_at),
                "arrived_at": json_time(one.arrived_at),
                "request": request.state.value if request is not None else None,
                "result": result_line(result) or None,
                "reason": reason_of(result or {}),
            }
        )
    return rows
