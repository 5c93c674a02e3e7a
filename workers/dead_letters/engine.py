"""Choosing, previewing and carrying out what is done with dead letters, for the command line and for
the operations console alike.

The order of a replay or a discard: `choose` (which reads `ecs.dead` and changes nothing), `preview`,
`divide` (what can be part of it), `begin` (records the batch), `carry_out`. What was begun is
resumed by the batch's name, from any process that has the journal; `stop` ends it from any process,
and `status` shows it. Nothing here prints or asks.
"""

import asyncio
import contextlib
import os
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

from messages.record import record
from workers.amqp.topology import NotDeclared
from workers.dead_letters.batch import BatchRequest, record_batch
from workers.dead_letters.batch_run import BatchResult, BatchRun, RunTerms
from workers.dead_letters.dead_letter import DeadLetter
from workers.dead_letters.dry_run_result import DryRunOutcome, DryRunResult
from workers.dead_letters.reader import Reader, Unreachable
from workers.dead_letters.selection import Selected, Selection, select_dead_letters
from workers.journal import (
    Action,
    Actor,
    Batch,
    DeadLetterCause,
    History,
    Journal,
    JournalError,
    Operations,
    Replay,
    ReplayState,
)
from workers.settings import Settings

#: Seconds between two signs of life of a run; it looks then whether it is to stop, too.
_SIGN_OF_LIFE = 1.0


class BatchRefused(Exception):
    """A batch cannot be carried out now; the text is one line that says why and what to do."""


class NoSuchBatch(BatchRefused):
    """The journal knows no such batch."""


@record
class Access:
    """Connections that the engine works with. The journal is open; the history is of the same database."""

    settings: Settings
    journal: Journal
    history: History


@record
class Division:
    """The chosen messages that can be part of a batch, and why the others cannot: the number of
    messages by reason.
    """

    able: list[DeadLetter]
    hindrances: dict[str, int]

    @property
    def hindered(self) -> int:
        """The number of messages that cannot be part of it."""
        return sum(self.hindrances.values())


@record
class Begun:
    """A batch that is recorded; `replays` are its messages, and `reader` holds them where they were
    chosen with `keep`.
    """

    batch: Batch
    replays: Sequence[Replay]
    reader: Reader | None = None


@record
class Report:
    """The end of a run. `trouble` is why it ended early: None where nothing is left, or it was told
    to stop (then `stopped_by` says by whom, where another process asked for it).
    """

    batch: str
    result: BatchResult
    trouble: str | None = None
    stopped_by: str | None = None


class Stop:
    """Ends a run: nothing more is begun, and what is under way is finished."""

    def __init__(self) -> None:
        self._run: BatchRun | None = None
        self.is_asked = False

    def ask(self) -> None:
        """End the run. May be called before it begins; not from another thread."""
        self.is_asked = True
        if self._run is not None:
            self._run.stop()

    def attach(self, run: BatchRun) -> None:
        """Name the run that is to end."""
        self._run = run
        if self.is_asked:
            run.stop()


async def choose(settings: Settings, selection: Selection, *, keep: bool = False) -> Selected:
    """Read through `ecs.dead`, change nothing, and return what is selected. Raises `Unreachable`,
    `NotDeclared`.

    Of the tenants only the words that are given are compared; `tenants.resolve_tenants` adds the
    ids to names and the names to ids. `keep`: the messages stay held for `carry_out`.
    """
    return await select_dead_letters(settings.broker, settings.names, selection, keep=keep)


async def note_causes(
    settings: Settings, journal: Journal, causes: Sequence[DeadLetterCause] | None
) -> None:
    """Set the journal's counts of dead letters by cause right, where all of the queue was seen."""
    if causes is not None:
        await journal.set_dead_letter_causes(settings.names.namespace, causes)


async def preview(
    settings: Settings,
    history: History,
    request: BatchRequest,
    letters: Sequence[DeadLetter],
    on_preview: Callable[[int], None] = lambda _: None,
) -> list[DryRunResult]:
    """Return what would become of each of these messages, in their order, without changing anything.

    Raises `ConfigurationError` where the region is not known, `JournalError`. A replay is tried with
    a read-only cloud and journal; what nobody has proven says so. `on_preview` gets 1 for each.
    """
    if request.action is Action.DISCARD:
        gone = "kept in the archive for 30 days: dead restore puts it back"
        return [DryRunResult(DryRunOutcome.DISCARDED, gone)] * len(letters)
    from handlers.openstack.cloud import Cloud  # noqa: PLC0415 - only a dry run needs a cloud
    from workers.bootstrap import cloud_settings, policy_of  # noqa: PLC0415
    from workers.dead_letters.dry_run import DryRun  # noqa: PLC0415

    policy = await asyncio.to_thread(policy_of, settings)
    cloud = Cloud(replace(cloud_settings(settings), read_only=True))
    try:
        dry_run = DryRun(settings, cloud, history, policy, request.tenant)
        results = await dry_run.preview(letters, lambda: on_preview(1))
    finally:
        await cloud.close()
    return [
        _with_doubt(letter, result, request, settings)
        for letter, result in zip(letters, results, strict=True)
    ]


def _with_doubt(
    letter: DeadLetter, result: DryRunResult, request: BatchRequest, settings: Settings
) -> DryRunResult:
    doubt = request.doubt(letter, settings)
    if doubt is None or letter.hindrance is not None:
        return result
    if request.vouch:
        what = doubt.partition(";")[0]
        return replace(result, detail=f"{what}, you vouch; {result.detail}")
    return replace(
        result,
        outcome=DryRunOutcome.UNPROVEN,
        detail=f"{doubt}; then it {result.outcome.text}: {result.detail}",
    )


def divide(settings: Settings, request: BatchRequest, letters: Sequence[DeadLetter]) -> Division:
    """Tell the messages that can be part of a batch from those that cannot."""
    hindrances = [request.hindrance(one, settings) for one in letters]
    able = [one for one, why in zip(letters, hindrances, strict=True) if why is None]
    return Division(able, dict(Counter(why for why in hindrances if why is not None)))


async def begin(
    access: Access, request: BatchRequest, division: Division, reader: Reader | None = None
) -> Begun:
    """Record a batch of exactly these messages; nothing is done with them yet. Raises
    `JournalError`.
    """
    batch, replays = await record_batch(
        access.journal,
        access.history,
        access.settings,
        request,
        division.able,
        hindered=division.hindered,
    )
    return Begun(batch, replays, reader)


async def unfinished(history: History, request: BatchRequest) -> str | None:
    """Return the batch that the same command by the same operator left unfinished, or None."""
    return await asyncio.to_thread(
        history.unfinished, request.command, request.action, request.operator.name
    )


async def status(history: History, name: str) -> Batch:
    """Return how far a batch is, whichever process carries it out. Raises `NoSuchBatch`,
    `JournalError`.
    """
    found = await asyncio.to_thread(history.batch, name)
    if found is None:
        raise NoSuchBatch(f"no such batch {name!r}; ecs-worker dead replays lists them")
    return found


async def load(access: Access, name: str, operator: Actor, *, vouch: bool = False) -> Begun:
    """Return a batch to resume, with what may be left of it. Raises `NoSuchBatch`, `JournalError`.

    Raises `BatchRefused` where another operator than the one who vouched for its senders resumes it
    and does not vouch for those that are left.
    """
    batch = await status(access.history, name)
    replays = await asyncio.to_thread(lambda: access.history.replays(batch=name))
    doubted = sum(one.vouched and one.done_at is None for one in replays)
    is_replay = batch.action is Action.REPLAY
    if is_replay and doubted and not vouch and operator.name != batch.operator:
        raise BatchRefused(
            f"nothing was done: of {doubted} that are left it is not proven who sent them, and"
            f" {batch.operator} vouched for them: answer for it with --vouch, too"
        )
    # Those that are done are looked for, too: they may not have been acked.
    return Begun(batch, [one for one in replays if one.state is not ReplayState.GONE])


async def carry_out(
    access: Access,
    begun: Begun,
    terms: RunTerms,
    on_progress: Callable[[int], None] = lambda _: None,
    stop: Stop | None = None,
) -> Report:
    """Carry a batch out until nothing is left, it is stopped, or broker or journal fail (which the
    report says). `on_progress` gets the number of messages that were just done.

    Raises `BatchRefused` where another process carries it out, `JournalError` where the journal
    cannot be written at the beginning.
    """
    name = begun.batch.name
    # Others see by the process's lock that it is dead.
    runner = f"{access.journal.owner[:40]}.{uuid4().hex[:12]}"
    process = f"{terms.operator.name} ({socket.gethostname()}, process {os.getpid()})"
    other = await access.journal.claim_batch(begun.batch, runner, process[:255])
    if other is not None:
        raise BatchRefused(
            f"nothing was done: {other} carries {name} out now; ecs-worker dead stop {name} ends it"
        )
    await audit(
        access.settings,
        f"dead {terms.action.value}",
        terms.operator,
        target=name,
        reason=terms.why or begun.batch.why,
        details={
            "messages": begun.batch.messages,
            "left_at_begin": sum(one.done_at is None for one in begun.replays),
            "chosen_by": begun.batch.chosen_by,
            "vouched": sum(one.vouched for one in begun.replays),
        },
    )
    run = BatchRun(access.settings, access.journal, begun.replays, terms, on_progress)
    (stop := stop or Stop()).attach(run)
    signs = asyncio.create_task(_give_signs(access.journal, name, runner, stop))
    trouble: str | None = None
    try:
        await run.work(begun.reader)
    except (Unreachable, NotDeclared, JournalError) as error:
        trouble = str(error)
    finally:
        signs.cancel()
        stopped_by = (await asyncio.gather(signs, return_exceptions=True))[0]
        with contextlib.suppress(JournalError, TimeoutError):
            # A journal that takes nothing now forgets the run after a while.
            async with asyncio.timeout(_LEAVING):
                await access.journal.leave_batch(name, runner, trouble)
    asked = stopped_by if isinstance(stopped_by, str) else None
    return Report(name, run.result, trouble, asked)


#: Seconds in which the end of a run is to be recorded.
_LEAVING = 5.0


async def _give_signs(journal: Journal, name: str, runner: str, stop: Stop) -> str:
    """Tell again and again that the run is alive, until somebody asks for its end; return who."""
    while True:
        asked_by = await journal.keep_batch(name, runner)
        if asked_by is not None:
            stop.ask()
            return asked_by
        await asyncio.sleep(_SIGN_OF_LIFE)


async def stop_batch(access: Access, name: str, operator: Actor) -> bool:
    """Ask the process that carries a batch out to stop, wherever it runs; it does within a few
    seconds. Return False where none carries it out. Raises `NoSuchBatch`, `JournalError`.
    """
    await status(access.history, name)
    runs = await access.journal.stop_batch(name, operator.name)
    if runs:
        await audit(access.settings, "dead stop", operator, target=name)
    return runs


async def audit(
    settings: Settings,
    action: str,
    operator: Actor,
    *,
    target: str | None = None,
    reason: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Record what an operator does with dead letters. Raises `JournalError`."""

    def write() -> None:
        operations = Operations(
            settings.journal_url.get_secret_value(), settings.names.namespace
        ).open()
        try:
            operations.record(action, operator, target=target, reason=reason, details=details)
        finally:
            operations.close()

    await asyncio.to_thread(write)
