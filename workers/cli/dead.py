"""`ecs-worker dead list|show|replays`: what is parked, and what operators did with it."""

import asyncio
import json
from collections.abc import Awaitable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from messages.secrets import mask
from workers.amqp.topology import NotDeclared
from workers.cli.exits import CommandFailed, Exit
from workers.cli.journal import (
    history_of,
    print_request,
    reason_of,
    record,
    replay_line,
    replay_row,
    result_line,
)
from workers.cli.output import Format, Page, complain, plain, show, show_json
from workers.cli.times import ago, shown, wire
from workers.dead_letters.dead_letter import DeadLetter, instant_of
from workers.dead_letters.reader import Unreachable
from workers.dead_letters.selection import Survey, Wanted, grouped, survey
from workers.journal import History, JournalError, Replay, Request
from workers.pipeline.replies import masked_body
from workers.settings import Settings

T = TypeVar("T")

#: Messages that a table lists unless told otherwise.
FEW = 20
#: Characters of a body that a page shows.
_SHOWN = 4000


def run(work: Awaitable[T]) -> T:
    """Do what talks to the broker; that it cannot be reached ends the command."""

    async def awaited() -> T:
        return await work

    try:
        return asyncio.run(awaited())
    except Unreachable as error:
        raise CommandFailed(Exit.UNREACHABLE, f"{error}; see ecs-worker check") from error
    except NotDeclared as error:
        raise CommandFailed(Exit.REFUSED, str(error)) from error
    except JournalError as error:
        raise CommandFailed(
            Exit.UNREACHABLE, f"{error}; see ecs-worker check, ECS_JOURNAL_URL"
        ) from error


def look(settings: Settings, wanted: Wanted) -> Survey:
    """What is meant of what lies in `ecs.dead`; says so where not all of it could be seen."""
    found = run(survey(settings.broker, settings.names, wanted))
    if found.shared:
        queue = settings.names.dead_queue
        tell(
            f"somebody else is reading {queue} just now: what he holds is not seen here; try again when he has ended"
        )
    return found


def tell(text: str) -> None:
    """A line for whoever sits there, beside the data."""
    complain(plain(text))


def list_dead(settings: Settings, wanted: Wanted, output: Format, *, summary: bool) -> None:
    """Print the groups, and the messages, oldest first."""
    found = look(settings, wanted)
    messages = [one.parked for one in found.chosen]
    if summary:
        show([group.row() for group in grouped(messages)], output)
    elif output is not Format.TABLE:
        show_json([one.row() for one in messages], output)
    else:
        _print_list(messages, found.total, wanted.limit)


def _print_list(messages: Sequence[DeadLetter], total: int, limit: int | None) -> None:
    page = Page()
    if not messages:
        page.line("nothing is parked" if not total else f"none of {total} parked messages matches")
        return
    page.heading(f"{len(messages)} parked" + (f" of {total}" if total != len(messages) else ""))
    print_groups(page, messages)
    page.line()
    few = messages if limit is not None else messages[:FEW]
    page.table(
        [
            {
                "parked": _when(one.failed_at),
                "id": one.id,
                "key": one.key if one.key != one.id else "",
                "operation": one.operation,
                "tenant": one.tenant,
                "error": one.error,
            }
            for one in few
        ],
        indent=2,
    )
    if len(few) < len(messages):
        page.line(f"  … the oldest {len(few)}; --limit N lists more, -o json all")
    page.line(
        "what would become of them: ecs-worker dead replay --dry-run; one as a whole: ecs-worker dead show ID"
    )


def print_groups(page: Page, messages: Sequence[DeadLetter]) -> None:
    """A line for all that failed alike."""
    page.table(
        [
            {**group.row(), "oldest": _when(group.oldest), "newest": _when(group.newest)}
            for group in grouped(messages)
        ],
        indent=2,
    )


def _when(time_text: str | None) -> str:
    seconds = instant_of(time_text)
    return f"{shown(seconds)} ({ago(seconds)})" if seconds else ""


def show_dead(settings: Settings, wanted: Wanted, output: Format) -> None:
    """Print messages as a whole, and what the journal knows of them."""
    found = look(settings, wanted)
    messages = [one.parked for one in found.chosen]
    if not messages:
        raise CommandFailed(
            Exit.CHECK_FAILED,
            f"none of {found.total} parked messages matches; ecs-worker dead list shows them",
        )
    known, trouble = _known(settings, messages)
    if output is not Format.TABLE:
        show_json([_whole(one, known.get(one.key or "")) for one in messages], output)
    else:
        for one in messages:
            _print_whole(Page(), one, known.get(one.key or ""), trouble)
    if trouble is not None:
        tell(f"{trouble}: what is known of them there is not shown")


#: What the journal knows of a name.
_Known = tuple[list[Request], list[Replay]]


def _known(
    settings: Settings, messages: Sequence[DeadLetter]
) -> tuple[dict[str, _Known], str | None]:
    """A journal that is away must not keep anybody from seeing the message."""
    names = {one.key for one in messages if one.key}
    try:
        with history_of(settings) as history:
            return {name: (history.find(name), history.replays(name=name)) for name in names}, None
    except CommandFailed as failed:
        return {}, str(failed)


def _properties(parked: DeadLetter) -> dict[str, Any]:
    told = asdict(parked.envelope)
    names = (
        "message_id",
        "correlation_id",
        "reply_to",
        "type",
        "timestamp",
        "content_type",
        "content_encoding",
    )
    return {name: _readable(told[name]) for name in names}


def _readable(value: Any) -> Any:
    return value if value is None or isinstance(value, (str, int)) else str(value)


def _body(parked: DeadLetter) -> Any:
    """JSON where it is some; without secrets, though none should be there."""
    body = masked_body(parked.envelope.body)
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "backslashreplace")


def _whole(parked: DeadLetter, known: _Known | None) -> dict[str, Any]:
    requests, replays = known or ([], [])
    headers = {
        str(name): _readable(value) for name, value in mask(dict(parked.envelope.headers)).items()
    }
    return {
        **parked.row(),
        "properties": _properties(parked),
        "headers": headers,
        "body": _body(parked),
        "hindrance": parked.hindrance,
        "journal": [record(one, []) for one in requests],
        "replays": [replay_row(one) for one in replays],
    }


def _print_whole(page: Page, parked: DeadLetter, known: _Known | None, trouble: str | None) -> None:
    whole = _whole(parked, known)
    page.heading(str(parked.id or parked.key or "a message without id"))
    page.facts(
        {
            **parked.row(),
            "failed_at": _when(parked.failed_at),
            "cannot be put in again": whole["hindrance"],
        }
    )
    page.line("properties")
    page.facts(whole["properties"])
    page.line("headers")
    page.facts(whole["headers"])
    page.line("body")
    page.document(whole["body"], _SHOWN)
    requests, replays = known or ([], [])
    for request in requests:
        page.line("the journal knows its key:")
        print_request(page, request, [])
    if not requests and trouble is None:
        page.line("the journal does not know its key: nothing was begun")
    if replays:
        page.line("what operators did with messages of this key")
        page.table([replay_line(one) for one in replays], indent=2)
    page.line()


def list_replays(settings: Settings, batch: str | None, limit: int, output: Format) -> None:
    """Print the sets that operators took in hand, or what became of the messages of one."""
    with history_of(settings) as history:
        rows = _batches(history, limit) if batch is None else _members(history, batch)
    if batch is not None and not rows:
        raise CommandFailed(
            Exit.CHECK_FAILED, f"no set {batch!r}; ecs-worker dead replays lists them"
        )
    if output is Format.TABLE:
        rows = [{name: _seconds(name, value) for name, value in row.items()} for row in rows]
    show(rows, output)


def _seconds(name: str, value: Any) -> Any:
    """Times in whole seconds, for eyes."""
    return shown(instant_of(value)) if name.endswith("_at") and value else value


def _batches(history: History, limit: int) -> list[dict[str, Any]]:
    return [
        {
            "batch": one.name,
            "action": one.action,
            "operator": one.operator,
            "real_user": one.real_user,
            "begun_at": wire(one.begun_at),
            "ended_at": wire(one.ended_at),
            "messages": one.messages,
            "done": one.done,
            "left": one.messages - one.done,
        }
        for one in history.batches(limit)
    ]


def _members(history: History, batch: str) -> list[dict[str, Any]]:
    """Each with the result that its request has now, where the journal knows one."""
    replays = history.replays(batch=batch)
    requests = history.results([one.name for one in replays if one.name])
    return [
        {
            "id": one.message_id,
            "key": one.name,
            "operation": one.operation,
            "code": one.code,
            "state": one.state.value,
            "operator": one.operator,
            "real_user": one.real_user,
            "vouched": one.vouched,
            "done_at": wire(one.done_at),
            "arrived_at": wire(one.arrived_at),
            **_result(requests.get(one.name or "")),
        }
        for one in replays
    ]


def _result(request: Request | None) -> dict[str, Any]:
    result = request.result if request is not None else None
    return {
        "request": request.state.value if request is not None else None,
        "result": result_line(result) or None,
        "reason": reason_of(result or {}),
    }
