"""A cancellation and the first intent of an order meet in the journal: one of them wins, and the
other one knows. On SQLite and on PostgreSQL.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from workers.admin import cancel, pauses
from workers.journal import (
    Actor,
    Begun,
    CancelOutcome,
    Claim,
    ClaimLost,
    Journal,
    JournalError,
    Kind,
    NewRequest,
    Operations,
    Pausable,
    Resumed,
    State,
    database,
    writes,
)

ORDERS = 60
ACTOR = Actor("night shift", "alice@host", "host /dev/pts/1")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/journal.db"
    url: str = request.getfixturevalue("postgres").url
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return url


@pytest.fixture
async def journal(url: str) -> AsyncIterator[Journal]:
    found = Journal(url)
    await found.open()
    yield found
    await found.close()


def order(number: int) -> NewRequest:
    name = f"order-{number}"
    return NewRequest(f"order:p:{name}", name, Kind.ORDER, "order.renew", "p", "digest", 1000.0)


async def begin(journal: Journal, request: NewRequest) -> Claim:
    outcome = await journal.begin(request, (f"server-{request.name}",))
    assert isinstance(outcome, Begun)
    return outcome.claim


async def is_intended(journal: Journal, claim: Claim) -> bool:
    """Return whether the first effect may be done."""
    try:
        await journal.intend(claim, "renew:1", "marker")
    except ClaimLost:
        return False
    return True


async def cancelled(
    url: str, word: str, starts: Callable[[], object] = lambda: None
) -> CancelOutcome:
    """Cancel in a thread, as a command does in its process; `starts` is called on the loop when the
    journal is open.
    """
    loop = asyncio.get_running_loop()

    def run() -> CancelOutcome:
        with closing(Operations(url, "ecs").open()) as journal:
            loop.call_soon_threadsafe(starts)
            return cancel.cancel(journal, word, ACTOR, "ordered twice").outcome

    return await asyncio.to_thread(run)


async def meet(
    number: int, url: str, word: str, begin_it: Callable[[], Awaitable[bool]]
) -> tuple[CancelOutcome, bool]:
    """Cancel an order and begin it, of each six: one before, one after, and four at the same time,
    some milliseconds apart.
    """
    started = asyncio.Event()
    if number % 6 == 0:
        done = await begin_it()
        return await cancelled(url, word), done
    cancelling = asyncio.create_task(cancelled(url, word, started.set))
    if number % 6 == 5:
        await cancelling
    else:
        await started.wait()
        await asyncio.sleep((number % 11) * 0.002)
    done = await begin_it()
    return await cancelling, done


async def check(journal: Journal, request: NewRequest, outcome: CancelOutcome, done: bool) -> None:
    """Check that either nothing may be done, and whoever has the order next knows, or it was not
    cancelled.
    """
    if outcome is CancelOutcome.BEGUN:
        assert done, f"{request.name}: refused, and never begun"
        return
    assert outcome in (CancelOutcome.CANCELLED, CancelOutcome.WAITING)
    assert not done, f"{request.name}: cancelled, and begun"
    again = await journal.begin(request)
    assert isinstance(again, Resumed)
    assert again.cancelled
    assert again.effects == {}
    await journal.finish(again.claim, {"code": "101.001040"}, [])


async def test_an_order_is_cancelled_or_begun_and_never_both(journal: Journal, url: str) -> None:
    async def race(number: int, claim: Claim) -> CancelOutcome:
        request = order(number)
        outcome, done = await meet(number, url, request.name, lambda: is_intended(journal, claim))
        await check(journal, request, outcome, done)
        return outcome

    claims = await asyncio.gather(*(begin(journal, order(number)) for number in range(ORDERS)))
    outcomes = await asyncio.gather(*(race(number, one) for number, one in enumerate(claims)))
    assert Counter(outcomes).keys() == {CancelOutcome.CANCELLED, CancelOutcome.BEGUN}


async def test_an_order_that_comes_while_it_is_cancelled_is_cancelled_or_begun(
    journal: Journal, url: str
) -> None:
    async def race(number: int) -> CancelOutcome:
        request = order(number)

        async def begin_it() -> bool:
            return await is_intended(journal, await begin(journal, request))

        outcome, done = await meet(number, url, request.name, begin_it)
        await check(journal, request, outcome, done)
        return outcome

    outcomes = await asyncio.gather(*(race(number) for number in range(ORDERS)))
    assert {CancelOutcome.WAITING, CancelOutcome.BEGUN} <= Counter(outcomes).keys()
    with closing(Operations(url, "ecs").open()) as operations:
        assert cancel.pending(operations) == [], "each has met its order"


async def test_an_order_to_come_is_cancelled_when_it_comes(journal: Journal, url: str) -> None:
    assert await cancelled(url, "order-1") is CancelOutcome.WAITING
    assert await cancelled(url, "order:q:order-1") is CancelOutcome.WAITING
    assert (await journal.controls("ecs")).has_cancellations
    begun = await journal.begin(order(1))
    assert isinstance(begun, Begun)
    assert begun.cancelled
    with closing(Operations(url, "ecs").open()) as operations:
        (left,) = cancel.pending(operations)
        assert (left.name, left.tenant, left.reason) == ("order-1", "q", "ordered twice")
        assert cancel.withdraw(operations, "order:q:order-1", ACTOR, None)
        assert not cancel.withdraw(operations, "order:q:order-1", ACTOR, None)
    assert await cancelled(url, "order-1") is CancelOutcome.CANCELLED, "it is so already"


async def test_what_has_ended_or_is_a_command_or_has_two_tenants_is_not_cancelled(
    journal: Journal, url: str
) -> None:
    claim = await begin(journal, order(1))
    await journal.finish(claim, {"code": 200}, [])
    assert await cancelled(url, "order-1") is CancelOutcome.ENDED
    command = NewRequest("command:p:m", "m", Kind.COMMAND, "server.action", "p", "digest", 1000.0)
    await begin(journal, command)
    assert await cancelled(url, "m") is CancelOutcome.COMMAND
    first = order(2)
    other = NewRequest(
        "order:q:order-2", first.name, Kind.ORDER, first.operation, "q", "digest", 1000.0
    )
    await begin(journal, first)
    await begin(journal, other)
    assert await cancelled(url, "order-2") is CancelOutcome.AMBIGUOUS
    assert await cancelled(url, "order:q:order-2") is CancelOutcome.CANCELLED
    states = {one.key: one.state for one in await journal.find("order-2")}
    assert states == {first.key: State.RUNNING, other.key: State.DONE}


async def test_what_was_refused_or_only_noted_is_not_begun(journal: Journal, url: str) -> None:
    """The same as `ledger.any_begun` says."""
    claim = await begin(journal, order(1))
    await journal.remember(claim, "plan", [1])
    await journal.intend(claim, "renew:1", "marker")
    await journal.record(claim, "renew:1", {"refused": "409"}, None)
    assert await cancelled(url, "order-1") is CancelOutcome.CANCELLED
    claim = await begin(journal, order(2))
    await journal.intend(claim, "renew:1", "marker")
    await journal.record(claim, "renew:1", {"status": 202}, None)
    assert await cancelled(url, "order-2") is CancelOutcome.BEGUN


async def test_a_cancelled_order_that_a_worker_has_taken_is_never_found_running(
    journal: Journal, url: str
) -> None:
    """A worker of the version before, which knows no cancellations, would carry it out after that
    worker was killed.
    """
    await begin(journal, order(1))
    assert await cancelled(url, "order-1") is CancelOutcome.CANCELLED
    taken = await journal.begin(order(1))
    assert isinstance(taken, Resumed)
    (found,) = await journal.find("order-1")
    assert (found.state, (found.result or {})["code"]) == (State.DONE, "101.001040")
    with pytest.raises(ClaimLost):
        await journal.intend(taken.claim, "renew:1", "marker")
    await journal.finish(taken.claim, {"code": "101.001040", "data": "its own"}, [])
    (found,) = await journal.find("order-1")
    assert found.result == {"code": "101.001040", "data": "its own"}


async def test_what_is_done_is_on_record_by_the_same_commit(journal: Journal, url: str) -> None:
    """A process that is killed at any time leaves no action without its record: a journal that takes
    no record takes no action, either.
    """
    await begin(journal, order(1))
    with closing(Operations(url, "ecs").open()) as operations:
        pauses.pause(operations, [Pausable.READS], ACTOR, "the cloud is upgraded")
        cancel.cancel(operations, "order-3", ACTOR, None)
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE audit RENAME TO audit_away"))
        for act in (
            lambda: pauses.pause(operations, [Pausable.ORDERS], ACTOR, "night"),
            lambda: pauses.resume(operations, [Pausable.READS], ACTOR),
            lambda: cancel.cancel(operations, "order-1", ACTOR, None),
            lambda: cancel.cancel(operations, "order-2", ACTOR, None),
            lambda: cancel.withdraw(operations, "order-3", ACTOR, None),
        ):
            with pytest.raises(JournalError):
                act()
        engine.dispose()
        assert [one.kind for one in operations.pauses()] == [Pausable.READS]
        assert [one.name for one in operations.cancellations()] == ["order-3"]
    (found,) = await journal.find("order-1")
    assert found.state is State.RUNNING


async def test_an_intent_that_stands_is_not_called_refused(
    journal: Journal, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An intent of the same group is refused, and then this one's order is cancelled: the
    cancellation finds it begun, so it must be.
    """
    lost, mine = [await begin(journal, order(number)) for number in (1, 2)]
    execute = database.execute_all

    def and_then_cancelled(*arguments: Any) -> int:
        count = execute(*arguments)
        if url.startswith("postgresql"):  # SQLite has one writer at a time
            engine = create_engine(url)
            with engine.begin() as other:
                other.execute(
                    text("INSERT INTO cancellations VALUES ('order-2', '', 1.0, 'bob', NULL)")
                )
            engine.dispose()
            monkeypatch.undo()
        return count

    monkeypatch.setattr("workers.journal.writes.execute_all", and_then_cancelled)
    engine = database.open_engine(url)
    with engine.begin() as connection:
        first, second = writes.Intend.run_all(
            connection,
            [
                writes.Intend(Claim(lost.key, "another"), "renew:1", "1", 1000.5),
                writes.Intend(mine, "renew:1", "1", 1000.25),
            ],
        )
    engine.dispose()
    assert isinstance(first, ClaimLost)
    assert second is None
    assert await cancelled(url, "order-1") is CancelOutcome.CANCELLED
    assert await cancelled(url, "order-2") is CancelOutcome.BEGUN
