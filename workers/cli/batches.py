"""`ecs-worker dead replay|discard|stop`: preview, question, progress and summary of a batch."""

import asyncio
import gc
import signal
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, TypeVar

from messages.record import record
from messages.secrets import mask
from workers.admin.audit import local_actor
from workers.cli.dead_letter_views import print_groups, require_found, run, select
from workers.cli.exits import CommandFailed, Exit, policy_or_fail
from workers.cli.output import Format, complain, show, show_json
from workers.cli.output import Report as Page
from workers.cli.questions import confirm, require_answer
from workers.dead_letters import engine
from workers.dead_letters.batch import BatchRequest
from workers.dead_letters.batch_run import RunTerms
from workers.dead_letters.dead_letter import DeadLetter
from workers.dead_letters.dry_run_result import DryRunResult
from workers.dead_letters.reader import Reader
from workers.dead_letters.selection import Selection
from workers.journal import Action, History, Journal
from workers.settings import Settings

T = TypeVar("T")

#: Messages of which the question shows a preview.
_SAMPLE = 50
_DONE = {Action.REPLAY: "replayed", Action.DISCARD: "discarded"}


@record
class BatchCommand:
    """A replay or a discard as an operator asks for it. `batch` names one to resume, `rate` is in
    messages a second.
    """

    request: BatchRequest
    selection: Selection
    output: Format
    batch: str | None = None
    dry_run: bool = False
    yes: bool = False
    rate: float | None = None


@dataclass(slots=True)
class Execution:
    """A command that is carried out, with its event loop; a context manager that closes all of it.

    `reader` holds the messages that were chosen, from choosing them until they are done, where
    nobody is asked in between.
    """

    settings: Settings
    runner: asyncio.Runner = field(default_factory=asyncio.Runner)
    reader: Reader | None = None
    _stack: ExitStack = field(default_factory=ExitStack)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run what needs broker and journal. Raises `CommandFailed`."""
        return run(work, self.runner)

    def access(self) -> engine.Access:
        """Open the journal; one that no worker has opened yet is made."""
        url = self.settings.journal_url.get_secret_value()

        async def opened() -> tuple[Journal, History]:
            journal = Journal(url)  # its thread belongs to the running loop
            await journal.open()
            return journal, History(url).open()

        journal, history = self.run(opened())
        self._stack.callback(lambda: self.run(journal.close()))
        self._stack.callback(history.close)
        return engine.Access(self.settings, journal, history)

    def __enter__(self) -> "Execution":
        self._stack.enter_context(self.runner)
        self._stack.callback(self._release)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _release(self) -> None:
        if self.reader is not None:
            self.run(self.reader.close())


def run_batch(settings: Settings, command: BatchCommand) -> Exit:
    """Preview, ask and carry out, as the command says. Raises `CommandFailed`."""
    require_answer(yes=command.yes or command.dry_run)
    with Execution(settings) as execution:
        if command.batch is not None:
            return _resume(execution, execution.access(), command, command.batch)
        return _carry_out_chosen(execution, command)


def stop_batch(settings: Settings, batch: str, operator: str | None) -> Exit:
    """Ask the process that carries a batch out to stop."""
    with Execution(settings) as execution:
        access = execution.access()
        if execution.run(engine.stop_batch(access, batch, local_actor(operator))):
            complain(f"{batch} is told to stop: what is under way is finished first")
            return Exit.OK
        found = execution.run(engine.status(access.history, batch))
        complain(f"nobody carries {batch} out now: {found.left} of {found.messages} are left")
        return Exit.OK


def _carry_out_chosen(execution: Execution, command: BatchCommand) -> Exit:
    settings, request = execution.settings, command.request
    keep = command.yes and not command.dry_run
    chosen = select(settings, command.selection, execution.runner, keep=keep)
    execution.reader = chosen.reader
    if command.dry_run:
        require_found(chosen)
        if not chosen.letters:
            complain("nothing matches")
            return Exit.OK
        previews = previews_of(execution, request, chosen.letters)
        _print_previews(chosen.letters, previews, command.output)
        return Exit.OK
    access = execution.access()
    execution.run(engine.note_causes(settings, access.journal, chosen.causes))
    batch = execution.run(engine.unfinished(access.history, request))
    if batch is not None:
        complain(
            f"resuming batch {batch}, which the same command left unfinished;"
            " newer dead letters are not touched"
        )
        return _resume(execution, access, command, batch)
    require_found(chosen)
    if not chosen.letters:
        complain("nothing matches")
        return Exit.OK
    division = engine.divide(settings, request, chosen.letters)
    for reason, number in division.hindrances.items():
        complain(f"{number} cannot be replayed and stay: {reason}")
    if not division.able:
        raise CommandFailed(Exit.REFUSED, "nothing was done: none of them can be replayed")
    if not command.yes:
        _ask(execution, request, division.able)
    begun = execution.run(engine.begin(access, request, division, execution.reader))
    return _carry_out(execution, access, command, begun)


def _resume(execution: Execution, access: engine.Access, command: BatchCommand, batch: str) -> Exit:
    request = command.request
    begun = execution.run(engine.load(access, batch, request.operator, vouch=request.vouch))
    found = begun.batch
    if found.action is not request.action:
        text = f"{batch} is a {found.action.value}: ecs-worker dead {found.action.value} resumes it"
        raise CommandFailed(Exit.CHECK_FAILED, text)
    if command.dry_run or not found.left:
        ended = found.messages - found.left
        complain(f"{batch}: {ended} of {found.messages} are done, {found.left} are left")
        return Exit.OK
    if not command.yes:
        unproven = sum(one.vouched and one.done_at is None for one in begun.replays)
        doubt = f", of {unproven} of them it is not proven who sent them," if unproven else ""
        confirm(
            f"{found.left} of {found.messages} messages of {batch} are left{doubt} to be"
            f" {_DONE[request.action]} by {request.operator.name}"
        )
    begun = engine.Begun(found, begun.replays, execution.reader)
    return _carry_out(execution, access, command, begun)


# The preview, and the question.


def previews_of(
    execution: Execution, request: BatchRequest, letters: Sequence[DeadLetter]
) -> list[DryRunResult]:
    """Return what would become of each of these messages. Raises `CommandFailed`."""
    settings = execution.settings
    policy_or_fail(settings)

    async def preview() -> list[DryRunResult]:
        history = History(settings.journal_url.get_secret_value()).open()
        try:
            with _progress_bar("dry run", len(letters)) as advance:
                return await engine.preview(settings, history, request, letters, advance)
        finally:
            history.close()

    return execution.run(preview())


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
                "group": letter.group,
                "failed_replays": letter.failed_replays,
                "plan": mask(preview.plan),
                "steps": mask(list(preview.steps)),
            }
            for letter, preview in pairs
        ]
        show_json(rows, output)
        return
    report = Page()
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
        ],
        keep=("outcome",),
    )
    report.line()
    for text, number in Counter(one.outcome.text for one in previews).most_common():
        report.line(f"{number:>8} {text}")


def _ask(execution: Execution, request: BatchRequest, letters: Sequence[DeadLetter]) -> None:
    """Show the groups and a preview, and ask."""
    report = Page(sys.stderr)
    print_groups(report, letters)
    if request.action is Action.REPLAY:
        sample = letters[:_SAMPLE]
        results = previews_of(execution, request, sample)
        previews = Counter((one.outcome.text, one.detail) for one in results)
        is_part = len(sample) < len(letters)
        report.line(f"dry run of the oldest {len(sample)}" if is_part else "dry run")
        rows = [
            {"messages": number, "outcome": text, "detail": detail}
            for (text, detail), number in previews.most_common()
        ]
        report.table(rows, indent=2)
    settings = execution.settings
    unproven = sum(request.doubt(one, settings) is not None for one in letters)
    doubt = ""
    if request.action is Action.REPLAY and unproven:
        doubt = (
            f"; of {unproven} it is not proven who sent them, and {request.operator.name} vouches"
        )
    done = _DONE[request.action]
    confirm(f"{len(letters)} messages will be {done} by {request.operator.name}{doubt}")


# Carrying out.


def _carry_out(
    execution: Execution, access: engine.Access, command: BatchCommand, begun: engine.Begun
) -> Exit:
    started, request, batch = monotonic(), command.request, begun.batch
    terms = RunTerms(request.action, request.operator, command.rate, request.why or batch.why)
    report = execution.run(_work(access, begun, terms))
    result = report.result
    row = {
        "batch": batch.name,
        "action": request.action.value,
        "operator": request.operator.name,
        "done": result.done,
        "gone": result.gone,
        "refused": result.refused,
        "left": result.left,
        "impossible": batch.hindered,
        "seconds": round(monotonic() - started, 3),
    }
    if command.output is Format.TABLE:
        Page().facts({name: value for name, value in row.items() if value or name == "done"})
    else:
        show([row], command.output)
    _print_advice(command, report, execution.settings.names.dead_queue)
    partly = result.left or result.refused or result.gone or batch.hindered
    return Exit.PARTLY if partly else Exit.OK


def _print_advice(command: BatchCommand, report: engine.Report, queue: str) -> None:
    action, result, batch = command.request.action, report.result, report.batch
    if result.gone:
        complain(f"{result.gone} were no longer in {queue}: another command took them")
    if result.refused:
        complain(
            f"{result.refused} were not taken by the broker and stay in {queue}:"
            " see ecs-worker topology apply"
        )
    if result.left:
        total = result.done + result.left
        # A batch does not remember it.
        rate = f" --rate {command.rate:g}" if command.rate else ""
        stopped = f"stopped by {report.stopped_by}" if report.stopped_by else "stopped"
        complain(
            f"{report.trouble or stopped}: {result.done} of {total} are {_DONE[action]},"
            f" {result.left} are left and safe;"
            f" resume with: ecs-worker dead {action.value} --batch {batch}{rate}"
        )
    elif action is Action.REPLAY:
        complain(f"see the results: ecs-worker dead replays {batch}")
    else:
        complain(f"for 30 days they can be put back: ecs-worker dead restore --batch {batch}")


async def _work(access: engine.Access, begun: engine.Begun, terms: RunTerms) -> engine.Report:
    gc.freeze()  # the messages that were chosen stay until they are done
    stop = engine.Stop()
    with _progress_bar(_DONE[terms.action], len(begun.replays)) as advance:
        advance(sum(one.done_at is not None for one in begun.replays))
        with _stopped_by_signals(stop.ask):
            return await engine.carry_out(access, begun, terms, advance, stop)


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
