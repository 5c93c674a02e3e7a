"""`ecs-worker dead replay|discard`: what is parked is put in again, or thrown away."""

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

from messages.secrets import mask
from workers.amqp.topology import NotDeclared
from workers.cli.dead import look, print_groups, run, tell
from workers.cli.exits import CommandFailed, Exit
from workers.cli.journal import history_of
from workers.cli.options import policy_or_fail
from workers.cli.output import Format, Page, plain, show, show_json
from workers.dead_letters.batch import pin
from workers.dead_letters.forecast import WORDS, Fate, Forecast
from workers.dead_letters.reader import Unreachable
from workers.dead_letters.replay import Outcome, Run
from workers.dead_letters.selection import Found, Wanted
from workers.journal import Action, History, Journal, JournalError, Replay, ReplayState
from workers.settings import Settings

#: Messages of which a person is told, before he is asked, what would become of them.
_SAMPLE = 50
_NOT_PROVEN = "who sent it is not proven: look who it was, and answer for him with --vouch"
_DOING = {Action.REPLAY: "put in again", Action.DISCARD: "thrown away"}


@dataclass(frozen=True, slots=True)
class Wish:
    """What an operator asks for. `words` is what he typed to choose: the same again goes on with
    what it left.
    """

    action: Action
    wanted: Wanted
    words: str
    operator: str
    output: Format
    batch: str | None = None
    tenant: str | None = None
    rate: float | None = None
    dry_run: bool = False
    yes: bool = False
    vouch: bool = False


def take_in_hand(settings: Settings, wish: Wish) -> Exit:
    """Do what is asked for, if whoever asks wants it once he has seen it."""
    if not (wish.yes or wish.dry_run or sys.stdin.isatty()):
        raise CommandFailed(
            Exit.REFUSED,
            "nothing was done: give --yes, or sit at a terminal and be asked; --dry-run only shows",
        )
    if wish.batch is not None:
        return _go_on(settings, wish, wish.batch)
    found = look(settings, wish.wanted).chosen
    if not found:
        tell("nothing matches")
        return Exit.OK
    if wish.dry_run:
        _print_forecasts(found, _forecasts(settings, wish, found), wish.output)
        return Exit.OK
    hindrances = [_hindrance(one, settings, wish) for one in found]
    hindered = [why for why in hindrances if why is not None]
    left = [one for one, why in zip(found, hindrances, strict=True) if why is None]
    for reason, number in Counter(hindered).items():
        tell(f"{number} cannot be put in again, and stay: {reason}")
    if not left:
        raise CommandFailed(Exit.REFUSED, "nothing was done: none of them can be put in again")
    run(_prepared(settings))
    with history_of(settings) as history:
        if (batch := history.unfinished(wish.words, wish.action, wish.operator)) is not None:
            tell(
                f"going on with {batch}, which the same command left unfinished; what came since is not touched"
            )
            return _go_on(settings, wish, batch)
    if not wish.yes:
        _ask(settings, wish, left)
    return _carry_out(
        settings,
        wish,
        lambda journal, history: _pinned(journal, history, settings, wish, left),
        len(hindered),
    )


def _hindrance(found: Found, settings: Settings, wish: Wish) -> str | None:
    """Return why a message cannot be put in again as the operator asks for it; None where it can."""
    if wish.action is not Action.REPLAY:
        return None
    if found.parked.hindrance is None and not wish.vouch and _is_unproven(found, settings):
        return _NOT_PROVEN
    return found.parked.hindrance


def _is_unproven(found: Found, settings: Settings) -> bool:
    return found.parked.is_unproven(trusting=settings.trust_publishers)


async def _prepared(settings: Settings) -> None:
    """A journal that no worker has opened yet is made."""
    journal = Journal(settings.journal_url.get_secret_value())
    await journal.open()
    await journal.close()


async def _pinned(
    journal: Journal, history: History, settings: Settings, wish: Wish, found: Sequence[Found]
) -> list[Replay]:
    vouched = frozenset(one.identity for one in found if _is_unproven(one, settings))
    return await pin(
        journal,
        history,
        found,
        action=wish.action,
        operator=wish.operator,
        selection=wish.words,
        tenant=wish.tenant,
        vouched=vouched,
    )


def _go_on(settings: Settings, wish: Wish, batch: str) -> Exit:
    """With what a set has left."""
    with history_of(settings) as history:
        members = history.replays(batch=batch)
    if not members or members[0].action != wish.action:
        raise CommandFailed(
            Exit.CHECK_FAILED, f"no such set {batch!r}; ecs-worker dead replays lists them"
        )
    left = [one for one in members if one.done_at is None]
    if wish.dry_run or not left:
        tell(
            f"{batch}: {len(members) - len(left)} of {len(members)} are done, {len(left)} are left"
        )
        return Exit.OK
    if not wish.yes:
        _confirm(
            f"{len(left)} of {len(members)} messages of {batch} are left to be {_DOING[wish.action]}. Go on?"
        )
    # Those that are done are looked for, too: they may not have been acked.
    undone = [one for one in members if one.state is not ReplayState.GONE]
    return _carry_out(settings, wish, lambda *_: _value(undone), 0)


async def _value(members: list[Replay]) -> list[Replay]:
    return members


# What would become of them.


def _forecasts(settings: Settings, wish: Wish, found: Sequence[Found]) -> list[Forecast]:
    if wish.action is Action.DISCARD:
        return [Forecast(Fate.DISCARDED, "for good")] * len(found)
    with (
        history_of(settings) as history,
        progress("asking journal and cloud", len(found)) as advance,
    ):
        return run(_rehearse(settings, wish.tenant, history, found, advance))


async def _rehearse(
    settings: Settings,
    tenant: str | None,
    history: History,
    found: Sequence[Found],
    advance: Callable[[int], None],
) -> list[Forecast]:
    from handlers.openstack.cloud import Cloud  # noqa: PLC0415 - only a rehearsal needs a cloud
    from workers.bootstrap import cloud_settings  # noqa: PLC0415
    from workers.dead_letters.dry_run import DryRun  # noqa: PLC0415

    cloud = Cloud(replace(cloud_settings(settings), read_only=True))
    rehearsal = DryRun(settings, cloud, history, policy_or_fail(settings), tenant)

    async def forecast(one: Found) -> Forecast:
        told = await rehearsal.forecast(one.parked)
        advance(1)
        if not _is_unproven(one, settings):
            return told
        return replace(told, detail=f"not proven who sent it; {told.detail}")

    try:
        return await asyncio.gather(*(forecast(one) for one in found))
    finally:
        await cloud.close()


def _print_forecasts(found: Sequence[Found], forecasts: Sequence[Forecast], output: Format) -> None:
    rows = [
        {
            "id": one.parked.id,
            "key": one.parked.key,
            "operation": one.parked.operation,
            "code": one.parked.code,
            "would": told.fate.value,
            "detail": told.detail,
            "plan": mask(told.plan),
        }
        for one, told in zip(found, forecasts, strict=True)
    ]
    if output is not Format.TABLE:
        show_json(rows, output)
        return
    page = Page()
    page.table(
        [
            {
                "id": row["id"],
                "key": row["key"] if row["key"] != row["id"] else "",
                "operation": row["operation"],
                "it": WORDS[Fate(row["would"])],
                "detail": row["detail"],
            }
            for row in rows
        ]
    )
    page.line()
    for word, number in Counter(WORDS[told.fate] for told in forecasts).most_common():
        page.line(f"{number:>8} {word}")


def _ask(settings: Settings, wish: Wish, found: Sequence[Found]) -> None:
    """Show what would be done, and ask."""
    page = Page(sys.stderr)
    print_groups(page, [one.parked for one in found])
    if wish.action is Action.REPLAY:
        sample = found[:_SAMPLE]
        told = Counter((WORDS[one.fate], one.detail) for one in _forecasts(settings, wish, sample))
        page.line(
            f"of the oldest {len(sample)}"
            if len(sample) < len(found)
            else "what would become of them"
        )
        page.table(
            [
                {"messages": number, "": word, "detail": detail}
                for (word, detail), number in told.most_common()
            ],
            indent=2,
        )
    _confirm(f"{len(found)} messages will be {_DOING[wish.action]} by {wish.operator}. Go on?")


def _confirm(question: str) -> None:
    print(f"{plain(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandFailed(Exit.REFUSED, "nothing was done")


# Doing it.


def _carry_out(settings: Settings, wish: Wish, members: Any, hindered: int) -> Exit:
    started = monotonic()
    outcome, batch, trouble = run(_work(settings, wish, members))
    seconds = monotonic() - started
    row = {
        "batch": batch,
        "action": wish.action.value,
        "operator": wish.operator,
        "done": outcome.done,
        "gone": outcome.gone,
        "refused": outcome.refused,
        "left": outcome.left,
        "impossible": hindered,
        "seconds": round(seconds, 3),
    }
    if wish.output is Format.TABLE:
        Page().facts({name: value for name, value in row.items() if value or name == "done"})
    else:
        show([row], wish.output)
    partly = outcome.left or outcome.refused or outcome.gone or hindered
    _tell_outcome(wish, outcome, batch, trouble, settings.names.dead_queue)
    return Exit.PARTLY if partly else Exit.OK


def _tell_outcome(
    wish: Wish, outcome: Outcome, batch: str, trouble: str | None, queue: str
) -> None:
    if outcome.gone:
        tell(f"{outcome.gone} were in {queue} no more: somebody else has taken them in hand")
    if outcome.refused:
        tell(
            f"{outcome.refused} were not taken by the broker, and stay in {queue}: see ecs-worker topology apply"
        )
    if outcome.left:
        why = f"{trouble}: " if trouble else "stopped: "
        tell(
            f"{why}{outcome.done} of {outcome.done + outcome.left} are {_DOING[wish.action]}, {outcome.left} are left, "
            f"and safe; go on with: ecs-worker dead {wish.action.value} --batch {batch}"
        )
    elif wish.action is Action.REPLAY:
        tell(f"what became of them: ecs-worker dead replays {batch}")


async def _work(settings: Settings, wish: Wish, members: Any) -> tuple[Outcome, str, str | None]:
    from workers.bootstrap import collect_seldom  # noqa: PLC0415

    collect_seldom()
    journal = Journal(settings.journal_url.get_secret_value())
    await journal.open()
    try:
        with history_of(settings) as history:
            pinned: list[Replay] = await members(journal, history)
        stopping = asyncio.Event()
        with _stopped_by_signals(stopping), progress(_DOING[wish.action], len(pinned)) as advance:
            advance(sum(one.done_at is not None for one in pinned))
            work = Run(
                settings.broker,
                settings.names,
                journal,
                pinned,
                operator=wish.operator,
                rate=wish.rate,
                stopping=stopping,
                on_progress=advance,
            )
            try:
                await work.work()
            except (Unreachable, NotDeclared, JournalError) as error:
                return work.outcome(), pinned[0].batch, str(error)
        return work.outcome(), pinned[0].batch, None
    finally:
        await journal.close()


@contextmanager
def _stopped_by_signals(stopping: asyncio.Event) -> Iterator[None]:
    """The first Ctrl-C ends it cleanly, the second at once."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)

    def stop() -> None:
        stopping.set()
        for number in numbers:
            loop.remove_signal_handler(number)

    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, where somebody looks."""
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
        task = bar.add_task(what, total=total)
        yield lambda number: bar.advance(task, number)
