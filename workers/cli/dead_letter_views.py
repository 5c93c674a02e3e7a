"""`ecs-worker dead list|show|replays`: dead letters, and what operators did with them."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from messages.record import record
from messages.secrets import mask
from workers.amqp.topology import NotDeclared
from workers.cli.exits import CommandFailed, Exit
from workers.cli.journal import (
    journal_failed,
    open_history,
    print_request,
    replay_line,
    replay_row,
    request_record,
)
from workers.cli.output import Format, Report, complain, show, show_json
from workers.cli.times import ago, json_time, shown_time
from workers.dead_letters.archive import readable_body
from workers.dead_letters.dead_letter import DeadLetter, unix_time
from workers.dead_letters.engine import BatchRefused, NoSuchBatch, choose, note_causes
from workers.dead_letters.fates import fate_of
from workers.dead_letters.reader import Unreachable
from workers.dead_letters.selection import Selected, Selection, grouped
from workers.journal import History, Journal, JournalError, Replay, RequestRecord
from workers.settings import Settings

T = TypeVar("T")

#: Messages that a table lists without `--limit`.
FEW = 20
#: Seconds in which the journal is to take the counts of a list.
_PATIENCE = 2.0
#: Tenants of a group that are named.
_TENANTS = 3
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
    except NoSuchBatch as error:
        raise CommandFailed(Exit.CHECK_FAILED, str(error)) from error
    except BatchRefused as error:
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
    if selection.tenants:
        from workers.dead_letters.tenants import resolve_tenants  # noqa: PLC0415 - needs a cloud

        selection, unknown = run(resolve_tenants(settings, selection), runner)
        for line in unknown:
            complain(
                f"the tenant cannot be looked up ({line}): only messages that name it by this very"
                " word are meant"
            )
    selected = run(choose(settings, selection, keep=keep), runner)
    if selected.shared:
        queue = settings.names.dead_queue
        complain(
            f"another reader is reading {queue} now: the messages that it holds are not shown;"
            " try again later"
        )
    if selected.beyond:
        complain(
            f"{settings.names.dead_queue} has {selected.beyond} messages more than the {selected.total}"
            " in front, which are all that can be read at once: these alone are meant"
        )
    return selected


def unmatched_line(selected: Selected) -> str | None:
    """Return a line that says which of the named ids match nothing; None where all do."""
    if not selected.unmatched:
        return None
    named = ", ".join(repr(one) for one in selected.unmatched)
    return (
        f"none of {selected.total} dead letters that these options select is {named};"
        " ecs-worker show tells where a request is"
    )


def require_found(selected: Selected) -> None:
    """Raise `CommandFailed` where an id that was named matches nothing."""
    if (line := unmatched_line(selected)) is not None:
        raise CommandFailed(Exit.CHECK_FAILED, f"nothing was done: {line}")


def _set_right(settings: Settings, selected: Selected) -> None:
    """Tell the journal what was seen of the whole queue, for the metrics. A list needs no journal:
    where there is none, or it cannot be written, it stays as it is.
    """
    if selected.causes is None:
        return
    url = settings.journal_url.get_secret_value()

    async def write() -> None:
        History(url).open().close()  # one that a worker must bring up to date first is left alone
        journal = Journal(url)
        await journal.open()
        try:
            async with asyncio.timeout(_PATIENCE):
                await note_causes(settings, journal, selected.causes)
        finally:
            await journal.close()

    with suppress(JournalError, TimeoutError):
        asyncio.run(write())


@record
class Listing:
    """A list as it is asked for: `summary` only of groups, `everything` without a limit."""

    selection: Selection
    output: Format
    summary: bool = False
    everything: bool = False


def list_dead_letters(settings: Settings, listing: Listing) -> Exit:
    """Print groups and messages, oldest first; return the exit code."""
    selected = select(settings, listing.selection)
    _print_list(listing, selected)
    _set_right(settings, selected)
    if (line := unmatched_line(selected)) is not None:
        complain(line)
        return Exit.CHECK_FAILED
    return Exit.OK


def _print_list(listing: Listing, selected: Selected) -> None:
    output, letters, total = listing.output, selected.letters, selected.total
    if listing.summary:
        if output is Format.TABLE and letters:
            print_groups(Report(), letters)
        else:
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
    is_all = listing.everything or listing.selection.limit is not None
    few = letters if is_all else letters[:FEW]
    rows = [
        {
            "key": one.key or one.id,
            "failed": ago(one.failed) if one.failed else None,
            "error": one.error,
            "group": one.group,
            "failed replays": one.failed_replays or None,
            "operation": one.operation,
            "id": one.id if one.id != one.key else "",
            "tenant": one.tenant,
            "failed at": shown_time(one.failed or None),
        }
        for one in few
    ]
    report.table(rows, indent=2)
    if len(few) < len(letters):
        report.line(f"  … the oldest {len(few)}; --limit N lists more, --all all of them")
    report.line(
        "preview a replay: ecs-worker dead replay --group ID --dry-run;"
        " a whole message: ecs-worker dead show ID"
    )


def print_groups(report: Report, letters: Sequence[DeadLetter]) -> None:
    """Print a line for each group of dead letters with one cause."""
    tenants: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for one in letters:
        tenants[one.cause.group][one.tenant or "-"] += 1
    rows = [
        {
            "group": group.group,
            "count": group.count,
            "newest": ago(unix_time(group.newest)) if unix_time(group.newest) else "",
            "failed replays": group.failed_replays or None,
            "code": group.code,
            "reason": group.reason,
            "error": group.error,
            "operation": ", ".join(
                f"{name} {number}" if len(group.operations) > 1 else name
                for name, number in group.operations.items()
            ),
            "tenants": _most(tenants[group.group]),
            "oldest": _when(group.oldest),
        }
        for group in grouped(letters)
    ]
    report.table(rows, indent=2)


def _most(tenants: Counter[str]) -> str:
    """Return the tenants that have most of some dead letters, each with its number."""
    if list(tenants) == ["-"]:
        return ""
    named = [f"{name} {number}" for name, number in tenants.most_common(_TENANTS)]
    others = len(tenants) - len(named)
    return ", ".join([*named, f"{others} more"] if others else named)


def _when(time_text: str | None) -> str:
    seconds = unix_time(time_text)
    return f"{shown_time(seconds)} ({ago(seconds)})" if seconds else ""


def show_dead_letters(settings: Settings, selection: Selection, output: Format) -> Exit:
    """Print whole messages, and what the journal knows of them; return the exit code."""
    selected = select(settings, selection)
    line = unmatched_line(selected)
    if not selected.letters:
        text = f"none of {selected.total} dead letters matches; ecs-worker dead list shows them"
        raise CommandFailed(Exit.CHECK_FAILED, line or text)
    known, trouble = _known(settings, selected.letters)
    rows = [whole(one, *known.get(one.key or "", ([], []))) for one in selected.letters]
    if output is not Format.TABLE:
        show_json(rows, output)
    else:
        for letter, row in zip(selected.letters, rows, strict=True):
            _print_whole(letter, row, known.get(letter.key or "", ([], [])), trouble)
    if trouble is not None:
        complain(f"{trouble}: what the journal knows of them is not shown")
    if line is not None:
        complain(line)
        return Exit.CHECK_FAILED
    return Exit.OK


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


def whole(
    letter: DeadLetter, requests: Sequence[RequestRecord], replays: Sequence[Replay]
) -> dict[str, Any]:
    envelope = letter.envelope
    headers = mask(dict(envelope.headers))
    return {
        **letter.row(),
        "properties": {name: _readable(getattr(envelope, name)) for name in _PROPERTIES},
        "headers": {str(name): _readable(value) for name, value in headers.items()},
        # Masked once more, though no secret should be there.
        "body": readable_body(envelope.body),
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
    row = letter.row()
    failed = {"failed replays": row.pop("failed_replays") or None}
    report.facts(row | facts | failed)
    report.line("properties")
    report.facts(whole["properties"])
    report.line("headers")
    report.facts(whole["headers"])
    report.line("body")
    report.document(whole["body"], _SHOWN)
    requests, replays = known
    for request in requests:
        same = request.digest == letter.digest
        report.line(f"the journal knows its key{'' if same else ' with another content'}:")
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
    if output is not Format.TABLE:
        show_json(rows, output)
    elif batch is None:
        Report().table([_batch_line(row) for row in rows], keep=("action", "done", "by"))
    else:
        Report().table([_member_line(row) for row in rows], keep=("became", "by"))


def _batch_line(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row's fields, those first that matter most: the rest may have no room."""
    return {
        "batch": row["batch"],
        "action": row["action"],
        "done": f"{row['done']} of {row['messages']}",
        "parked again": row["parked_again"] or None,
        "by": ", ".join(row["people"]) or row["operator"],
        "runs now": row["runs"],
        "trouble": row["trouble"],
        "refused": row["refused"] or None,
        "gone": row["gone"] or None,
        "begun": shown_time(unix_time(row["begun_at"])),
        "user": row["real_user"],
        "from": row["source"],
        "why": row["why"],
        "chosen by": row["chosen_by"],
    }


def _member_line(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"] or row["key"],
        "became": row["result"] or row["outcome"],
        "by": row["operator"],
        "at": shown_time(unix_time(row["done_at"])) if row["done_at"] else "",
        "key": row["key"] if row["key"] != row["id"] else "",
        "operation": row["operation"],
        "vouched": "yes" if row["vouched"] else "",
        "user": row["real_user"],
        "begun by": row["begun_by"] if row["begun_by"] != row["operator"] else "",
    }


def _batches(settings: Settings, limit: int) -> list[dict[str, Any]]:
    with open_history(settings) as history:
        batches = history.batches(limit)
    return [
        {
            "batch": one.name,
            "action": one.action.value,
            "operator": one.operator,
            "real_user": one.real_user,
            "people": list(one.people),
            "begun_at": json_time(one.begun_at),
            "ended_at": json_time(one.ended_at),
            "messages": one.messages,
            "done": one.done,
            "gone": one.gone,
            "parked_again": one.parked,
            "refused": one.refused,
            "left": one.left,
            "runs": one.runner_name,
            "stopped_by": one.stop_by,
            "trouble": one.trouble,
            "why": one.why,
            "chosen_by": one.chosen_by,
            "source": one.source,
        }
        for one in batches
    ]


def _members(settings: Settings, batch: str) -> list[dict[str, Any]]:
    """Each with what became of it, as far as the journal knows."""
    with open_history(settings) as history:
        replays = history.replays(batch=batch)
        requests = history.named([one.name for one in replays if one.name])
    rows = []
    for one in replays:
        fate = fate_of(one, requests.get(one.name or "", ()))
        rows.append(
            {
                "id": one.message_id,
                "key": one.name,
                "operation": one.operation,
                "code": one.code,
                "state": one.state.value,
                "operator": one.by,
                "real_user": one.by_user,
                "begun_by": one.operator,
                "vouched": one.vouched,
                "done_at": json_time(one.done_at),
                "arrived_at": json_time(one.arrived_at),
                "outcome": fate.outcome,
                "request": fate.request.state.value if fate.request is not None else None,
                "result": fate.text or None,
                "reason": fate.reason,
            }
        )
    return rows
