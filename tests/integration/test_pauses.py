"""Pauses as one worker obeys them while the journal cannot be read."""

import asyncio
import time
from contextlib import closing
from pathlib import Path

import pytest

from workers.admin import pauses as orders
from workers.amqp.names import Names
from workers.journal import Actor, Journal, Operations, Pausable
from workers.pauses import Pauses

ACTOR = Actor("alice", "alice@host", "host")


async def until(pauses: Pauses, queues: set[str], seconds: float) -> None:
    limit = time.monotonic() + seconds
    while pauses.queues != queues:
        assert time.monotonic() < limit, pauses.in_force
        await asyncio.sleep(0.05)


async def test_what_was_known_holds_while_the_journal_is_away_until_its_own_end(
    tmp_path: Path,
) -> None:
    path = tmp_path / "journal.db"
    url = f"sqlite:///{path}"
    journal, names, changes = Journal(url), Names(), list[frozenset[str]]()
    await journal.open()
    pauses = Pauses(journal, names, lambda: changes.append(pauses.queues))
    with closing(Operations(url, "ecs").open()) as operations:
        orders.pause(operations, [Pausable.ORDERS], ACTOR, "for good")
        orders.pause(operations, [Pausable.READS], ACTOR, "a while", time.time() + 6.0)
    with closing(Operations(url, "another").open()) as operations:
        orders.pause(operations, [Pausable.IMAGES], ACTOR, "another namespace's workers")
    watching = asyncio.create_task(pauses.watch())
    try:
        await until(pauses, {names.orders_queue, names.reads_queue}, 5.0)
        path.rename(tmp_path / "away.db")
        await until(pauses, {names.orders_queue}, 10.0)
        assert journal.trouble is not None, "nothing could be read meanwhile"
        (tmp_path / "away.db").rename(path)
        with closing(Operations(url, "ecs").open()) as operations:
            (ended,) = orders.resume(operations, [Pausable.ORDERS, Pausable.READS], ACTOR)
        assert (ended.kind, ended.operator, ended.reason) == (Pausable.ORDERS, "alice", "for good")
        await until(pauses, set(), 10.0)
    finally:
        watching.cancel()
        await journal.close()
    assert changes == [
        {names.orders_queue, names.reads_queue},
        {names.orders_queue},
        frozenset(),
    ]


async def test_a_kind_goes_on_when_its_last_pause_has_ended(tmp_path: Path) -> None:
    """A second pause, which is shorter, does not end the first one's."""
    url = f"sqlite:///{tmp_path}/journal.db"
    with closing(Operations(url, "ecs").open()) as operations:
        orders.pause(operations, [Pausable.ORDERS], ACTOR, "storage moves")
        other = Actor("bob", "bob@host", "host")
        orders.pause(operations, [Pausable.ORDERS], other, "a look", time.time() + 0.2)
        assert [one.operator for one in orders.current(operations)] == ["alice", "bob"]
        await asyncio.sleep(0.3)
        assert [one.operator for one in orders.current(operations)] == ["alice"]


@pytest.mark.parametrize("text", ["\x00", "\udcff", "x" * 5000])
async def test_a_reason_may_be_any_text(tmp_path: Path, text: str) -> None:
    with closing(Operations(f"sqlite:///{tmp_path}/journal.db", "ecs").open()) as operations:
        orders.pause(operations, [Pausable.ORDERS], Actor(text, text, text), text)
        assert orders.current(operations)
