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

dead_app = typer.Typer(no_args_is_help=True, help="Dead letters: list, show, replay, discard.")

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
    operations: Annotated[
        list[str] | None,
        typer.Option("--operation", help="For instance server.action; may be repeated."),
    ] = None
    origins: Annotated[
        list[str] | None,
        typer.Option("--origin", help="The queue they came from; may be repeated."),
    ] = None
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Dead-lettered since: 2h, 3d, 2026-11-23T10:00:00Z."),
    ] = None
    before: Annotated[
        str | None, typer.Option(metavar="TIME", help="Dead-lettered before that.")
    ] = None
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many, the oldest.")] = None

    def selection(self, named: str | None = None, set_file: Path | None = None) -> "Selection":
        """Return what these options select, `named` being one id more."""
        from workers.dead_letters.selection import Selection, row_text  # noqa: PLC0415

        return Selection(
            ids=(*([named] if named is not None else []), *(self.ids or [])),
            codes=tuple(self.codes or ()),
            operations=tuple(self.operations or ()),
            origins=tuple(self.origins or ()),
            since=parse_time(self.since) if self.since is not None else None,
            before=parse_time(self.before) if self.before is not None else None,
            limit=self.limit,
            rows=tuple(map(row_text, _read_rows(set_file))) if set_file is not None else None,
        )


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
    operator: Annotated[
        str | None, typer.Option(help="Who does it, for the record; otherwise user@host.")
    ] = None


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
        bool, typer.Option("--summary", "--group", help="Only groups of those that failed alike.")
    ] = False,
    output: Output = Format.TABLE,
) -> None:
    """List dead letters, grouped by code, operation and origin; oldest first. Removes nothing."""
    from workers.cli.dead_letter_views import list_dead_letters  # noqa: PLC0415

    list_dead_letters(settings_or_fail(), filters.selection(), output, summary=summary)


@dead_app.command("show")
@_with_options(_Filters)
def dead_show(filters: _Filters, *, named: Id = None, output: Output = Format.TABLE) -> None:
    """Show whole messages, without their secrets, and what the journal knows of them."""
    from workers.cli.dead_letter_views import show_dead_letters  # noqa: PLC0415

    show_dead_letters(settings_or_fail(), filters.selection(named), output)


@dead_app.command("replay")
@_with_options(_BatchOptions)
def dead_replay(
    options: _BatchOptions,
    *,
    named: Id = None,
    rate: Annotated[
        float | None, typer.Option(min=0.01, help="Messages a second, at most.")
    ] = None,
    tenant: Annotated[
        str | None,
        typer.Option(help="The project (id or name) of those whose token alone named it."),
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

    terms = _Terms(Action.REPLAY, tenant, rate, vouch)
    raise typer.Exit(_run_batch(options, named, terms, output))


@dead_app.command("discard")
@_with_options(_BatchOptions)
def dead_discard(
    options: _BatchOptions, *, named: Id = None, output: Output = Format.TABLE
) -> None:
    """Discard messages for good; who did it, and what it was, stays on record."""
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


@record
class _Terms:
    """The action of a batch with its options."""

    action: "Action"
    tenant: str | None = None
    rate: float | None = None
    vouch: bool = False


def _run_batch(options: _BatchOptions, named: str | None, terms: _Terms, output: Format) -> Exit:
    from workers.cli.batches import BatchCommand, run_batch  # noqa: PLC0415
    from workers.dead_letters.batch import BatchRequest, default_operator  # noqa: PLC0415

    selection = options.selection(named, options.set_file)
    if options.batch is not None and selection != _Filters().selection():
        text = "--batch names all messages of a batch: no other option selects beside it"
        raise CommandFailed(Exit.USAGE, text)
    request = BatchRequest(
        action=terms.action,
        operator=options.operator or default_operator(),
        command=_digest(options, selection, terms),
        tenant=terms.tenant,
        rate=terms.rate,
        vouch=terms.vouch,
    )
    return run_batch(
        settings_or_fail(),
        BatchCommand(request, selection, output, options.batch, options.dry_run, options.yes),
    )


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
