"""`ecs-worker dead`: the words that are typed."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workers.cli.exits import CommandFailed, Exit
from workers.cli.options import Output, settings_or_fail
from workers.cli.output import Format
from workers.cli.times import instant

if TYPE_CHECKING:
    from workers.dead_letters.selection import Wanted
    from workers.journal import Action
    from workers.settings import Settings

dead_app = typer.Typer(
    no_args_is_help=True, help="Parked messages: look, put in again, throw away."
)

Word = Annotated[
    str | None, typer.Argument(metavar="[ID]", help="A message_id, orderId or flowId.")
]
Ids = Annotated[
    list[str] | None, typer.Option("--id", help="message_id, orderId or flowId; may be repeated.")
]
Codes = Annotated[
    list[str] | None, typer.Option("--code", help="For instance 101.001002; may be repeated.")
]
Operations = Annotated[
    list[str] | None, typer.Option("--operation", help="For instance server.action; repeatable.")
]
Origins = Annotated[
    list[str] | None, typer.Option("--origin", help="The queue they came from; may be repeated.")
]
Since = Annotated[
    str | None, typer.Option(metavar="TIME", help="Parked since: 2h, 3d, 2026-11-23T10:00:00Z.")
]
Before = Annotated[str | None, typer.Option(metavar="TIME", help="Parked before that.")]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many, the oldest.")]
SetFile = Annotated[
    Path | None, typer.Option("--set", help="Exactly those that `dead list -o json` wrote there.")
]
BatchName = Annotated[
    str | None, typer.Option("--batch", help="Go on with a set that was not finished.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would become of each.")]
Vouch = Annotated[
    bool, typer.Option("--vouch", help="Answer for who sent them, where that is not proven.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Operator = Annotated[
    str | None, typer.Option(help="Who does it, for the record; otherwise user@host.")
]


@dead_app.command("list")
def dead_list(
    *,
    ids: Ids = None,
    codes: Codes = None,
    operations: Operations = None,
    origins: Origins = None,
    since: Since = None,
    before: Before = None,
    limit: Limit = None,
    summary: Annotated[
        bool, typer.Option("--summary", "--group", help="Groups alone: what failed alike.")
    ] = False,
    output: Output = Format.TABLE,
) -> None:
    """List what is parked, grouped by code, operation and origin; oldest first. Nothing is taken
    out.
    """
    from workers.cli.dead import list_dead  # noqa: PLC0415 - each command imports what it needs

    wanted = _wanted(ids, codes, operations, origins, since=since, before=before, limit=limit)
    list_dead(_settings(), wanted, output, summary=summary)


@dead_app.command("show")
def dead_show(
    *,
    word: Word = None,
    ids: Ids = None,
    codes: Codes = None,
    operations: Operations = None,
    origins: Origins = None,
    since: Since = None,
    before: Before = None,
    limit: Limit = None,
    output: Output = Format.TABLE,
) -> None:
    """Show messages as a whole, without their secrets, and what the journal knows of them."""
    from workers.cli.dead import show_dead  # noqa: PLC0415

    wanted = _wanted(
        _with(word, ids), codes, operations, origins, since=since, before=before, limit=limit
    )
    show_dead(_settings(), wanted, output)


@dead_app.command("replay")
def dead_replay(
    *,
    word: Word = None,
    ids: Ids = None,
    codes: Codes = None,
    operations: Operations = None,
    origins: Origins = None,
    since: Since = None,
    before: Before = None,
    limit: Limit = None,
    set_file: SetFile = None,
    batch: BatchName = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    rate: Annotated[
        float | None, typer.Option(min=0.01, help="Messages a second, at most.")
    ] = None,
    tenant: Annotated[
        str | None,
        typer.Option(help="The project (id or name) of those that only their token told."),
    ] = None,
    vouch: Vouch = False,
    operator: Operator = None,
    output: Output = Format.TABLE,
) -> None:
    """Put messages in again. Known requests get their result; what never ran runs, on the
    operator's word.
    """
    from workers.cli.hand import Wish, take_in_hand  # noqa: PLC0415
    from workers.journal import Action  # noqa: PLC0415

    _alone(batch, set_file, word, ids, codes, operations, origins, since, before, limit)
    wanted = _wanted(
        _with(word, ids),
        codes,
        operations,
        origins,
        since=since,
        before=before,
        limit=limit,
        set_file=set_file,
    )
    words = _words(Action.REPLAY, wanted, since, before, tenant, vouch=vouch)
    wish = Wish(
        Action.REPLAY,
        wanted,
        words,
        _operator(operator),
        output,
        batch=batch,
        tenant=tenant,
        rate=rate,
        dry_run=dry_run,
        yes=yes,
        vouch=vouch,
    )
    raise typer.Exit(take_in_hand(_settings(), wish))


@dead_app.command("discard")
def dead_discard(
    *,
    word: Word = None,
    ids: Ids = None,
    codes: Codes = None,
    operations: Operations = None,
    origins: Origins = None,
    since: Since = None,
    before: Before = None,
    limit: Limit = None,
    set_file: SetFile = None,
    batch: BatchName = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    operator: Operator = None,
    output: Output = Format.TABLE,
) -> None:
    """Throw messages away for good; who did it, and what it was, stays on record."""
    from workers.cli.hand import Wish, take_in_hand  # noqa: PLC0415
    from workers.journal import Action  # noqa: PLC0415

    _alone(batch, set_file, word, ids, codes, operations, origins, since, before, limit)
    wanted = _wanted(
        _with(word, ids),
        codes,
        operations,
        origins,
        since=since,
        before=before,
        limit=limit,
        set_file=set_file,
    )
    words = _words(Action.DISCARD, wanted, since, before, None)
    wish = Wish(
        Action.DISCARD,
        wanted,
        words,
        _operator(operator),
        output,
        batch=batch,
        dry_run=dry_run,
        yes=yes,
    )
    raise typer.Exit(take_in_hand(_settings(), wish))


@dead_app.command("replays")
def dead_replays(
    *,
    batch: Annotated[
        str | None, typer.Argument(metavar="[BATCH]", help="The messages of this set.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many sets, the newest.")] = 50,
    output: Output = Format.TABLE,
) -> None:
    """Show who put in again, or threw away, what and when, and what became of it."""
    from workers.cli.dead import list_replays  # noqa: PLC0415

    list_replays(_settings(), batch, limit, output)


def _settings() -> "Settings":
    """The configuration; of the logs only what is an error, beside the data."""
    from workers.telemetry import configure_logs  # noqa: PLC0415

    settings = settings_or_fail()
    configure_logs("console", "error")
    return settings


def _wanted(
    ids: list[str] | None,
    codes: list[str] | None,
    operations: list[str] | None,
    origins: list[str] | None,
    *,
    since: str | None,
    before: str | None,
    limit: int | None,
    set_file: Path | None = None,
) -> "Wanted":
    from workers.dead_letters.selection import Wanted, row_text  # noqa: PLC0415

    rows = tuple(row_text(row) for row in _rows_of(set_file)) if set_file is not None else None
    return Wanted(
        tuple(ids or ()),
        tuple(codes or ()),
        tuple(operations or ()),
        tuple(origins or ()),
        instant(since) if since is not None else None,
        instant(before) if before is not None else None,
        limit,
        rows,
    )


def _with(word: str | None, ids: list[str] | None) -> list[str]:
    return [*([word] if word is not None else []), *(ids or [])]


def _rows_of(set_file: Path) -> list[dict[str, Any]]:
    """The rows of a list that was kept, as `-o json` or `-o jsonl` wrote it."""
    no_list = f"{set_file} is no list that ecs-worker dead list -o json wrote"
    try:
        text = set_file.read_text(encoding="utf-8")
        found = (
            json.loads(text)
            if text.lstrip().startswith("[")
            else [json.loads(line) for line in text.splitlines()]
        )
    except (OSError, ValueError) as error:
        raise CommandFailed(Exit.USAGE, f"{no_list}: {error}") from None
    if not all(isinstance(row, dict) and "failed_at" in row for row in found):
        raise CommandFailed(Exit.USAGE, no_list)
    return list(found)


def _alone(batch: str | None, *others: Any) -> None:
    if batch is not None and any(others):
        raise CommandFailed(Exit.USAGE, "--batch is a set already: no other words choose beside it")


def _words(
    action: "Action",
    wanted: "Wanted",
    since: str | None,
    before: str | None,
    tenant: str | None,
    *,
    vouch: bool = False,
) -> str:
    """The same for the same words: 64 hexadecimal digits."""
    told = (
        action.value,
        wanted.ids,
        wanted.codes,
        wanted.operations,
        wanted.origins,
        since,
        before,
        wanted.limit,
        wanted.rows,
        tenant,
        *([vouch] if vouch else []),
    )
    return hashlib.sha256(repr(told).encode("utf-8", "backslashreplace")).hexdigest()


def _operator(named: str | None) -> str:
    from workers.dead_letters.batch import who_is_there  # noqa: PLC0415

    return named or who_is_there()
