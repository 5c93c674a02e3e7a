"""The record of what operators did, on SQLite and on PostgreSQL."""

import time
from contextlib import closing
from pathlib import Path

import pytest

from workers.admin import audit
from workers.admin.audit import AuditFilter
from workers.journal import Action, Actor, Batch, Journal, Operations, Replay, ReplayState

ALICE = Actor("alice", "alice@ops1", "ops1 /dev/pts/1")
BOB = Actor("bob", "root (logged in as bob)@ops2", "10.0.0.7")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/journal.db"
    server = request.getfixturevalue("postgres")
    return str(server.add_database(f"audit_{tmp_path.name.replace('-', '_')}"[:60]))


def replayed(batch: str, name: str) -> Replay:
    return Replay(
        id=f"{batch}-{name}",
        batch=batch,
        position=0,
        action="replay",
        operator="alice",
        selection="",
        name=name,
        message_id=f"message-of-{name}",
        operation="order.renew",
        origin="ecs.orders",
        code="101.001040",
        failed_at="2026-11-26T10:00:00Z",
        identity="",
        digest="",
        tenant=None,
        state=ReplayState.PINNED,
        pinned_at=time.time(),
    )


async def test_a_batch_is_one_entry_with_all_who_worked_on_it(url: str) -> None:
    """Case R42."""
    journal = Journal(url)
    await journal.open()
    batch = Batch("batch-1", Action.REPLAY, "alice", None, time.time(), 1)
    await journal.add_batch(batch, [replayed("batch-1", "order-17")])
    await journal.close()
    with closing(Operations(url, "ecs").open()) as operations:
        operations.record(
            "dead replay", ALICE, target="batch-1", reason="fixed", details={"messages": 100}
        )
        operations.record("pause", BOB, target="orders")
        operations.record("dead replay", BOB, target="batch-1", details={"messages": 100})
        operations.record("dead replay", ALICE, target="batch-2")
        found = audit.entries(operations, AuditFilter())
        assert [(one.action, one.target, one.operator) for one in found] == [
            ("dead replay", "batch-2", "alice"),
            ("pause", "orders", "bob"),
            ("dead replay", "batch-1", "alice, bob"),
        ]
        last = found[-1]
        assert last.real_user == "alice@ops1, root (logged in as bob)@ops2"
        assert last.origin == "ops1 /dev/pts/1, 10.0.0.7"
        assert (last.reason, last.details) == ("fixed", {"messages": 100})

        def listed(**wanted: object) -> list[str | None]:
            chosen = audit.entries(operations, AuditFilter(**wanted))  # type: ignore[arg-type]
            return [one.target for one in chosen]

        assert listed(operator="bob") == ["orders", "batch-1"], "also what he went on with"
        assert listed(operator="alice@ops1") == ["batch-2", "batch-1"]
        assert listed(word="order-17") == ["batch-1"], "the batch in which it was replayed"
        assert listed(word="message-of-order-17") == ["batch-1"]
        assert listed(action="pause") == ["orders"]
        assert listed(limit=1) == ["batch-2"]
        assert listed(since=time.time() + 60) == []


def test_a_key_is_found_by_the_name_that_its_sender_knows(url: str) -> None:
    with closing(Operations(url, "ecs").open()) as operations:
        for target in ("order:p:a_b", "order:p:a%b", "order:p:axb"):
            operations.record("cancel", ALICE, target=target)

        def found(word: str) -> list[str | None]:
            return [one.target for one in audit.entries(operations, AuditFilter(word=word))]

        assert found("a_b") == ["order:p:a_b"]
        assert found("a%b") == ["order:p:a%b"]
        assert found("order:p:axb") == ["order:p:axb"]
        assert found("b") == []
