"""`ecs-worker dead`: the commands and their options."""

import functools
import hashlib
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from messages.record import record
from workers.cli.exits import CommandFailed, Exit, settings_or_fail
from workers.cli.output import Format, Output
from workers.cli.times import parse_time

if TYPE_CHECKING:
    from workers.dead_letters.selection import Selection
    from workers.journal import Action

T = TypeVar("T")
R = TypeVar("R")

dead_app = typer.Typer(
    no_args_is_help=True, help="Dead letters: list, show, replay, edit, discard, restore."
)

Operator = Annotated[
    str | None, typer.Option(help="Who does it, for the record; otherwise user@host.")
]
Why = Annotated[str | None, typer.Option(metavar="TEXT", help="Why, for the record.")]
Batch = Annotated[str, typer.Argument(metavar="BATCH", help="As `dead replays` names it.")]
Id = Annotated[str | None, typer.Argument(metavar="[ID]", help="A message_id, orderId or flowId.")]


@record
class _Filters:
    """The options by which dead letters are selected, as they were typed."""

    ids: Annotated[
        list[str] | None,
        typer.Option("--id", help="message_id, orderId or flowId; may be repeated."),
    ] = None
    codes: Annotated[
        list[str] | None, typer.Option("--code", help="For instance 101.001002; may be repeated.")
    ] = None
    reasons: Annotated[
        list[str] | None,
        typer.Option("--reason", help="For instance conflicting_duplicate; may be repeated."),
    ] = None
    errors: Annotated[
        list[str] | None,
        typer.Option("--error", metavar="TEXT", help="Part of the error's text, in any case."),
    ] = None
    operations: Annotated[
        list[str] | None,
        typer.Option("--operation", help="For instance server.action; may be repeated."),
    ] = None
    tenants: Annotated[
        list[str] | None,
        typer.Option("--tenant", help="A project's id or name; may be repeated."),
    ] = None
    origins: Annotated[
        list[str] | None,
        typer.Option("--origin", help="The queue they came from; may be repeated."),
    ] = None
    groups: Annotated[
        list[str] | None,
        typer.Option("--group", metavar="ID", help="A group of `dead list`: one cause."),
    ] = None
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Dead-lettered since: 2h, 3d, 2026-11-23T10:00:00Z."),
    ] = None
    before: Annotated[
        str | None, typer.Option(metavar="TIME", help="Dead-lettered before that.")
    ] = None
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many, the oldest.")] = None
    everything: Annotated[
        bool, typer.Option("--all", help="All of them: needed where nothing else selects.")
    ] = False

    def selection(self, named: str | None = None, set_file: Path | None = None) -> "Selection":
        """Return what these options select, `named` being one id more. Raises `CommandFailed` where
        they contradict each other.
        """
        from workers.dead_letters.selection import Selection, row_text  # noqa: PLC0415

        selection = Selection(
            ids=(*([named] if named is not None else []), *(self.ids or [])),
            codes=tuple(self.codes or ()),
            reasons=tuple(self.reasons or ()),
            errors=tuple(self.errors or ()),
            operations=tuple(self.operations or ()),
            tenants=tuple(self.tenants or ()),
            origins=tuple(self.origins or ()),
            groups=tuple(self.groups or ()),
            since=parse_time(self.since) if self.since is not None else None,
            before=parse_time(self.before) if self.before is not None else None,
            limit=self.limit,
            rows=tuple(map(row_text, _read_rows(set_file))) if set_file is not None else None,
        )
        if self.everything and not selection.is_empty:
            text = "--all and another option that selects contradict each other: leave one out"
            raise CommandFailed(Exit.USAGE, text)
        return selection

    def deliberate(self, named: str | None, set_file: Path | None = None) -> "Selection":
        """Return what these options select, for a command that must not take all of them by an
        oversight. Raises `CommandFailed` where nothing selects.
        """
        selection = self.selection(named, set_file)
        if selection.is_empty and not self.everything:
            text = (
                "nothing was done: say which ones, for instance with an id, --group or --code,"
                " or --all; ecs-worker dead list shows them"
            )
            raise CommandFailed(Exit.USAGE, text)
        return selection


@record
class _BatchOptions(_Filters):
    """The options of a replay or a discard, as they were typed."""

    set_file: Annotated[
        Path | None,
        typer.Option("--set", help="Exactly those that `dead list -o json` wrote there."),
    ] = None
    batch: Annotated[
        str | None, typer.Option("--batch", help="Resume a batch that was not finished.")
    ] = None
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would happen to each.")
    ] = False
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False
    operator: Operator = None
    why: Why = None


def _with_options(record: Callable[..., T]) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Give a command the options of a record's fields. The record is its first argument."""
    options = list(inspect.signature(record, eval_str=True).parameters.values())

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

        @functools.wraps(command)
        def called(**values: Any) -> R:
            return command(record(**{one.name: values.pop(one.name) for one in options}), **values)

        # typer reads the options of a command from its signature.
        vars(called)["__signature__"] = inspect.Signature(
            [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*options, *own)]
        )
        return called

    return decorate


@dead_app.command("list")
@_with_options(_Filters)
def dead_list(
    filters: _Filters,
    *,
    summary: Annotated[
        bool, typer.Option("--summary", help="Only the groups of those with one cause.")
    ] = False,
    output: Output = Format.TABLE,
) -> None:
    """List dead letters, grouped by cause: code, reason and error; oldest first. Removes nothing."""
    from workers.cli.dead_letter_views import Listing, list_dead_letters  # noqa: PLC0415

    listing = Listing(filters.selection(), output, summary, filters.everything)
    raise typer.Exit(list_dead_letters(settings_or_fail(), listing))


@dead_app.command("show")
@_with_options(_Filters)
def dead_show(filters: _Filters, *, named: Id = None, output: Output = Format.TABLE) -> None:
    """Show whole messages, without their secrets, and what the journal knows of them."""
    from workers.cli.dead_letter_views import show_dead_letters  # noqa: PLC0415

    raise typer.Exit(show_dead_letters(settings_or_fail(), filters.deliberate(named), output))


@dead_app.command("replay")
@_with_options(_BatchOptions)
def dead_replay(
    options: _BatchOptions,
    *,
    named: Id = None,
    rate: Annotated[
        float | None, typer.Option(min=0.01, help="Messages a second, at most.")
    ] = None,
    as_tenant: Annotated[
        str | None,
        typer.Option(
            "--as-tenant", help="The project (id or name) of those whose token alone named it."
        ),
    ] = None,
    vouch: Annotated[
        bool, typer.Option("--vouch", help="Answer for who sent them, where that is not proven.")
    ] = False,
    output: Output = Format.TABLE,
) -> None:
    """Replay messages. Known requests get their result; what never ran runs, on the operator's
    authority.
    """
    from workers.journal import Action  # noqa: PLC0415

    terms = _Terms(Action.REPLAY, as_tenant, rate, vouch)
    raise typer.Exit(_run_batch(options, named, terms, output))


@dead_app.command("discard")
@_with_options(_BatchOptions)
def dead_discard(
    options: _BatchOptions, *, named: Id = None, output: Output = Format.TABLE
) -> None:
    """Discard messages; they stay in the archive for 30 days, and who did it on record."""
    from workers.journal import Action  # noqa: PLC0415

    raise typer.Exit(_run_batch(options, named, _Terms(Action.DISCARD), output))


@dead_app.command("replays")
def dead_replays(
    *,
    batch: Annotated[
        str | None, typer.Argument(metavar="[BATCH]", help="The messages of this batch.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many batches, the newest.")] = 50,
    output: Output = Format.TABLE,
) -> None:
    """Show who replayed or discarded what and when, and the results."""
    from workers.cli.dead_letter_views import list_replays  # noqa: PLC0415

    list_replays(settings_or_fail(), batch, limit, output)


@dead_app.command("stop")
def dead_stop(batch: Batch, *, operator: Operator = None) -> None:
    """Stop a replay or discard that runs, on whichever machine; what is left can be resumed."""
    from workers.cli.batches import stop_batch  # noqa: PLC0415

    raise typer.Exit(stop_batch(settings_or_fail(), batch, operator))


@dead_app.command("archive")
def dead_archive(
    *,
    named: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="An id of the archive, or of the message: all of it."),
    ] = None,
    batch: Annotated[str | None, typer.Option("--batch", help="What this batch discarded.")] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Archived since.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 50,
    output: Output = Format.TABLE,
) -> None:
    """List what was discarded (kept for 30 days) and the originals of what was edited."""
    from workers.cli.archive import ArchiveFilter, list_archive  # noqa: PLC0415

    begin = parse_time(since) if since is not None else None
    wanted = ArchiveFilter((named,) if named is not None else (), batch, begin, limit)
    list_archive(settings_or_fail(), wanted, output, whole=named is not None)


@dead_app.command("restore")
def dead_restore(
    *,
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="Ids of the archive, or of messages."),
    ] = None,
    batch: Annotated[
        str | None, typer.Option("--batch", help="All that this batch discarded.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    operator: Operator = None,
    why: Why = None,
    output: Output = Format.TABLE,
) -> None:
    """Put discarded messages into the queue of dead letters again, as they were."""
    from workers.cli.archive import ArchiveFilter, RestoreCommand, restore  # noqa: PLC0415

    if not ids and batch is None:
        text = "nothing was done: name messages by their ids, or --batch; see dead archive"
        raise CommandFailed(Exit.USAGE, text)
    wanted = ArchiveFilter(tuple(ids or ()), batch)
    command = RestoreCommand(wanted, operator, why, yes, output)
    raise typer.Exit(restore(settings_or_fail(), command))


@dead_app.command("export")
@_with_options(_Filters)
def dead_export(
    filters: _Filters,
    *,
    file: Annotated[Path, typer.Argument(help="Must not exist yet; `-` is stdout.")],
    archived: Annotated[
        bool, typer.Option("--archived", help="What is in the archive, not in the queue.")
    ] = False,
) -> None:
    """Write whole messages, without their secrets, to a file: a JSON object a line."""
    from workers.cli.archive import export  # noqa: PLC0415

    raise typer.Exit(export(settings_or_fail(), filters.deliberate(None), file, archived=archived))


@dead_app.command("edit")
def dead_edit(
    message: Annotated[str, typer.Argument(metavar="ID", help="message_id, orderId or flowId.")],
    *,
    body: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The new body; `-` is stdin. Otherwise $EDITOR opens."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check it, and say what its replay would do.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    operator: Operator = None,
    why: Why = None,
    output: Output = Format.TABLE,
) -> None:
    """Change the body of a dead letter before its replay; the original stays on record."""
    from workers.cli.edits import EditCommand, edit  # noqa: PLC0415

    command = EditCommand(message, body, operator, why, dry_run, yes, output)
    raise typer.Exit(edit(settings_or_fail(), command))


@record
class _Terms:
    """The action of a batch with its options."""

    action: "Action"
    tenant: str | None = None
    rate: float | None = None
    vouch: bool = False


def _run_batch(options: _BatchOptions, named: str | None, terms: _Terms, output: Format) -> Exit:
    from workers.admin.audit import local_actor  # noqa: PLC0415
    from workers.cli.batches import BatchCommand, run_batch  # noqa: PLC0415
    from workers.dead_letters.batch import BatchRequest  # noqa: PLC0415

    if options.batch is not None:
        selection = options.selection(named, options.set_file)
        if not selection.is_empty or options.limit is not None or options.everything:
            text = "--batch names all messages of a batch: no other option selects beside it"
            raise CommandFailed(Exit.USAGE, text)
    else:
        selection = options.deliberate(named, options.set_file)
    request = BatchRequest(
        action=terms.action,
        operator=local_actor(options.operator),
        command=_digest(options, selection, terms),
        tenant=terms.tenant,
        vouch=terms.vouch,
        why=options.why,
        chosen_by=selection.described(),
    )
    command = BatchCommand(
        request, selection, output, options.batch, options.dry_run, options.yes, terms.rate
    )
    return run_batch(settings_or_fail(), command)


def _digest(options: _BatchOptions, selection: "Selection", terms: _Terms) -> str:
    """Equal for the same command: 64 hexadecimal digits, which the journal stores."""
    options_given = (
        terms.action.value,
        selection.ids,
        selection.codes,
        selection.operations,
        selection.origins,
        options.since,
        options.before,
        selection.limit,
        selection.rows,
        terms.tenant,
        *([True] if terms.vouch else []),
        # Last, and only where they are given: a batch of the version before is resumed, too.
        *(
            [name, values]
            for name, values in (
                ("reasons", selection.reasons),
                ("errors", selection.errors),
                ("tenants", selection.tenants),
                ("groups", selection.groups),
            )
            if values
        ),
    )
    return hashlib.sha256(repr(options_given).encode("utf-8", "backslashreplace")).hexdigest()


def _read_rows(set_file: Path) -> list[dict[str, Any]]:
    """The rows of a list that was kept, as `-o json` or `-o jsonl` wrote it."""
    wrong = f"{set_file} is not a list that ecs-worker dead list -o json wrote"
    try:
        text = set_file.read_text(encoding="utf-8")
        rows = (
            json.loads(text)
            if text.lstrip().startswith("[")
            else [json.loads(line) for line in text.splitlines()]
        )
    except (OSError, ValueError) as error:
        raise CommandFailed(Exit.USAGE, f"{wrong}: {error}") from None
    if not all(isinstance(row, dict) and "failed_at" in row for row in rows):
        raise CommandFailed(Exit.USAGE, wrong)
    return list(rows)
