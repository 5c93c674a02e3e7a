"""`ecs-worker dead replay|discard`: preview, question, progress and summary of a batch."""

import asyncio
import gc
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, TypeVar

from messages.record import record
from messages.secrets import mask
from messages.texts import terminal_safe
from workers.amqp.topology import NotDeclared
from workers.cli.dead_letter_views import print_groups, run, select
from workers.cli.exits import CommandFailed, Exit, policy_or_fail
from workers.cli.journal import open_history
from workers.cli.output import Format, Report, complain, show, show_json
from workers.dead_letters.batch import BatchRequest, record_batch
from workers.dead_letters.batch_run import BatchResult, BatchRun
from workers.dead_letters.dead_letter import DeadLetter
from workers.dead_letters.dry_run_result import DryRunOutcome, DryRunResult
from workers.dead_letters.reader import Reader, Unreachable
from workers.dead_letters.selection import Selection
from workers.journal import Action, Journal, JournalError, Replay, ReplayState
from workers.settings import Settings

T = TypeVar("T")

#: Messages of which the question shows a preview.
_SAMPLE = 50
_DONE = {Action.REPLAY: "replayed", Action.DISCARD: "discarded"}


@record
class BatchCommand:
    """A replay or a discard as an operator asks for it. `batch` names one to resume."""

    request: BatchRequest
    selection: Selection
    output: Format
    batch: str | None = None
    dry_run: bool = False
    yes: bool = False


@dataclass(slots=True)
class _Execution:
    """A command that is carried out, with its event loop. `reader` holds the messages that were
    chosen, from choosing them until they are done, where nobody is asked in between.
    """

    settings: Settings
    command: BatchCommand
    runner: asyncio.Runner
    reader: Reader | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run what needs broker and journal. Raises `CommandFailed`."""
        return run(work, self.runner)


def run_batch(settings: Settings, command: BatchCommand) -> Exit:
    """Preview, ask and carry out, as the command says. Raises `CommandFailed`."""
    if not (command.yes or command.dry_run or sys.stdin.isatty()):
        text = "nothing was done: without a terminal --yes is required; --dry-run only shows"
        raise CommandFailed(Exit.REFUSED, text)
    with asyncio.Runner() as runner:
        execution = _Execution(settings, command, runner)
        if command.batch is not None:
            return _resume(execution, command.batch)
        try:
            return _carry_out_chosen(execution)
        finally:
            if execution.reader is not None:
                execution.run(execution.reader.close())


def _carry_out_chosen(execution: _Execution) -> Exit:
    settings, command, request = execution.settings, execution.command, execution.command.request
    keep = command.yes and not command.dry_run
    chosen = select(settings, command.selection, execution.runner, keep=keep)
    found, execution.reader = chosen.letters, chosen.reader
    if not found:
        complain("nothing matches")
        return Exit.OK
    if command.dry_run:
        previews = execution.run(_previews(settings, request, found))
        _print_previews(found, previews, command.output)
        return Exit.OK
    letters, hindered = _without_hindered(settings, request, found)
    execution.run(_migrate(settings))
    with open_history(settings) as history:
        batch = history.unfinished(request.command, request.action, request.operator)
    if batch is not None:
        complain(
            f"resuming batch {batch}, which the same command left unfinished;"
            " newer dead letters are not touched"
        )
        return _resume(execution, batch)
    if not command.yes:
        _ask(execution, letters)
    replays = execution.run(_record(settings, request, letters))
    return _carry_out(execution, replays, hindered)


def _without_hindered(
    settings: Settings, request: BatchRequest, letters: Sequence[DeadLetter]
) -> tuple[list[DeadLetter], int]:
    """Those that can be done, and the number of those that cannot; says why they cannot."""
    hindrances = [request.hindrance(one, settings) for one in letters]
    for reason, number in Counter(why for why in hindrances if why is not None).items():
        complain(f"{number} cannot be replayed and stay: {reason}")
    able = [one for one, why in zip(letters, hindrances, strict=True) if why is None]
    if not able:
        raise CommandFailed(Exit.REFUSED, "nothing was done: none of them can be replayed")
    return able, len(letters) - len(able)


@asynccontextmanager
async def _open_journal(settings: Settings) -> AsyncIterator[Journal]:
    journal = Journal(settings.journal_url.get_secret_value())
    await journal.open()
    try:
        yield journal
    finally:
        await journal.close()


async def _migrate(settings: Settings) -> None:
    """Create the journal where no worker has opened it yet."""
    async with _open_journal(settings):
        pass


def _resume(execution: _Execution, batch: str) -> Exit:
    settings, command = execution.settings, execution.command
    with open_history(settings) as history:
        replays = history.replays(batch=batch)
    action = command.request.action
    if not replays or replays[0].action != action:
        text = f"no such batch {batch!r}; ecs-worker dead replays lists them"
        raise CommandFailed(Exit.CHECK_FAILED, text)
    total, left = len(replays), sum(one.done_at is None for one in replays)
    if command.dry_run or not left:
        complain(f"{batch}: {total - left} of {total} are done, {left} are left")
        return Exit.OK
    if not command.yes:
        _confirm(f"{left} of {total} messages of {batch} are left to be {_DONE[action]}")
    # Those that are done are looked for, too: they may not have been acked.
    not_gone = [one for one in replays if one.state is not ReplayState.GONE]
    return _carry_out(execution, not_gone, 0)


# The preview, and the question.


async def _previews(
    settings: Settings, request: BatchRequest, letters: Sequence[DeadLetter]
) -> list[DryRunResult]:
    if request.action is Action.DISCARD:
        return [DryRunResult(DryRunOutcome.DISCARDED, "for good")] * len(letters)
    from handlers.openstack.cloud import Cloud  # noqa: PLC0415 - only a dry run needs a cloud
    from workers.bootstrap import cloud_settings  # noqa: PLC0415
    from workers.dead_letters.dry_run import DryRun  # noqa: PLC0415

    cloud = Cloud(replace(cloud_settings(settings), read_only=True))
    with _progress_bar("dry run", len(letters)) as advance, open_history(settings) as history:
        dry_run = DryRun(settings, cloud, history, policy_or_fail(settings), request.tenant)
        try:
            results = await dry_run.preview(letters, lambda: advance(1))
        finally:
            await cloud.close()
    return [
        replace(result, detail=f"not proven who sent it; {result.detail}")
        if letter.is_unproven(trusting=settings.trust_publishers)
        else result
        for letter, result in zip(letters, results, strict=True)
    ]


def _print_previews(
    letters: Sequence[DeadLetter], previews: Sequence[DryRunResult], output: Format
) -> None:
    pairs = list(zip(letters, previews, strict=True))
    if output is not Format.TABLE:
        rows = [
            {
                "id": letter.id,
                "key": letter.key,
                "operation": letter.operation,
                "code": letter.code,
                "would": preview.outcome.value,
                "detail": preview.detail,
                "plan": mask(preview.plan),
                "steps": mask(list(preview.steps)),
            }
            for letter, preview in pairs
        ]
        show_json(rows, output)
        return
    report = Report()
    report.table(
        [
            {
                "id": letter.id,
                "key": letter.key if letter.key != letter.id else "",
                "operation": letter.operation,
                "outcome": preview.outcome.text,
                "detail": preview.detail,
            }
            for letter, preview in pairs
        ]
    )
    report.line()
    for text, number in Counter(one.outcome.text for one in previews).most_common():
        report.line(f"{number:>8} {text}")


def _ask(execution: _Execution, letters: Sequence[DeadLetter]) -> None:
    """Show the groups and a preview, and ask."""
    request = execution.command.request
    report = Report(sys.stderr)
    print_groups(report, letters)
    if request.action is Action.REPLAY:
        sample = letters[:_SAMPLE]
        results = execution.run(_previews(execution.settings, request, sample))
        previews = Counter((one.outcome.text, one.detail) for one in results)
        is_part = len(sample) < len(letters)
        report.line(f"dry run of the oldest {len(sample)}" if is_part else "dry run")
        rows = [
            {"messages": number, "outcome": text, "detail": detail}
            for (text, detail), number in previews.most_common()
        ]
        report.table(rows, indent=2)
    done = _DONE[request.action]
    _confirm(f"{len(letters)} messages will be {done} by {request.operator}")


def _confirm(question: str) -> None:
    print(f"{terminal_safe(question)}. Continue? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandFailed(Exit.REFUSED, "nothing was done")


# Carrying out.


async def _record(
    settings: Settings, request: BatchRequest, letters: Sequence[DeadLetter]
) -> list[Replay]:
    async with _open_journal(settings) as journal:
        with open_history(settings) as history:
            return await record_batch(journal, history, settings, request, letters)


def _carry_out(execution: _Execution, replays: Sequence[Replay], hindered: int) -> Exit:
    started = monotonic()
    command, request, batch = execution.command, execution.command.request, replays[0].batch
    result, trouble = execution.run(_work(execution, replays))
    row = {
        "batch": batch,
        "action": request.action.value,
        "operator": request.operator,
        "done": result.done,
        "gone": result.gone,
        "refused": result.refused,
        "left": result.left,
        "impossible": hindered,
        "seconds": round(monotonic() - started, 3),
    }
    if command.output is Format.TABLE:
        Report().facts({name: value for name, value in row.items() if value or name == "done"})
    else:
        show([row], command.output)
    queue = execution.settings.names.dead_queue
    _print_advice(request.action, result, batch, trouble, queue)
    partly = result.left or result.refused or result.gone or hindered
    return Exit.PARTLY if partly else Exit.OK


def _print_advice(
    action: Action, result: BatchResult, batch: str, trouble: str | None, queue: str
) -> None:
    if result.gone:
        complain(f"{result.gone} were no longer in {queue}: another command took them")
    if result.refused:
        complain(
            f"{result.refused} were not taken by the broker and stay in {queue}:"
            " see ecs-worker topology apply"
        )
    if result.left:
        total = result.done + result.left
        complain(
            f"{trouble or 'stopped'}: {result.done} of {total} are {_DONE[action]},"
            f" {result.left} are left and safe;"
            f" resume with: ecs-worker dead {action.value} --batch {batch}"
        )
    elif action is Action.REPLAY:
        complain(f"see the results: ecs-worker dead replays {batch}")


async def _work(execution: _Execution, replays: Sequence[Replay]) -> tuple[BatchResult, str | None]:
    """The numbers, and what ended it early; None where nothing did."""
    settings, request = execution.settings, execution.command.request
    gc.freeze()  # the messages that were chosen stay until they are done
    async with _open_journal(settings) as journal:
        with _progress_bar(_DONE[request.action], len(replays)) as advance:
            advance(sum(one.done_at is not None for one in replays))
            batch_run = BatchRun(settings, journal, replays, request, advance)
            with _stopped_by_signals(batch_run.stop):
                try:
                    await batch_run.work(execution.reader)
                except (Unreachable, NotDeclared, JournalError) as error:
                    return batch_run.result, str(error)
        return batch_run.result, None


@contextmanager
def _stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM calls `stop`, the second ends the process."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)

    def remove() -> None:
        for number in numbers:
            loop.remove_signal_handler(number)

    def received() -> None:
        stop()
        remove()

    for number in numbers:
        loop.add_signal_handler(number, received)
    try:
        yield
    finally:
        remove()


@contextmanager
def _progress_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, where that is a terminal. Yields a function that advances it."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda number: bar.advance(task, number)
