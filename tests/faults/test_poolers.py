"""Fault 79: PgBouncer before the journal. In session mode it works; in transaction mode, where a lock
of a session means nothing, every program refuses, and a worker that runs ends.
"""

import json
from collections.abc import Iterator
from uuid import uuid4

import pytest
from sqlalchemy.engine import make_url

from sandbox.openstack import SimulatedOpenStack
from sandbox.pgbouncer import PrivatePgBouncer
from sandbox.postgres import PrivatePostgres
from sandbox.requester import Requester
from tests.support.invariants import await_ends, check
from tests.support.kinds import FEW, ask_all
from tests.support.stage import settled
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.journal import SharedSessions
from workers.journal.database import open_engine
from workers.journal.owners import SessionOwner
from workers.journal.postgres import Connector
from workers.journal.records import JournalTimes

pytestmark = pytest.mark.slow


@pytest.fixture
def database(postgres: PrivatePostgres) -> str:
    return postgres.add_database(f"pooled_{uuid4().hex[:8]}")


def pooler(database: str, mode: str, **options: bool) -> PrivatePgBouncer:
    port = make_url(database).port
    assert port is not None
    return PrivatePgBouncer(port, mode, **options)


@pytest.fixture
def transactions(database: str) -> Iterator[str]:
    """The URL of the database by way of a pooler in transaction mode."""
    with pooler(database, "transaction") as found:
        yield found.url_of(database)


@pytest.mark.parametrize("in_turn", [False, True])
@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_a_pooler_that_gives_sessions_to_others_is_refused_at_the_start_and_by_check(
    workshop: Workshop, database: str, mode: str, in_turn: bool
) -> None:
    with pooler(database, mode, in_turn=in_turn) as found:
        url = found.url_of(database)
        done = workshop.command("run", ECS_JOURNAL_URL=url)
        assert done.returncode == 7
        (line,) = [line for line in done.stderr.splitlines() if not line.startswith("{")]
        assert line.startswith("ECS_JOURNAL_URL: ")
        assert "pool_mode = session" in line
        done = workshop.command("check", "-o", "json", ECS_JOURNAL_URL=url)
        assert done.returncode == 5
        (row,) = [row for row in json.loads(done.stdout) if row["check"] == "journal"]
        assert (row["result"], "pool_mode = session" in row["found"]) == ("failed", True)


@pytest.mark.parametrize(
    "words",
    [
        ["pause", "orders", "--reason", "x"],
        ["journal", "list"],
        ["journal", "prune", "--older-than", "30d", "--yes"],
        ["cancel", "x", "--yes", "--reason", "x"],
        ["dead", "stop", "x"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_every_command_that_uses_the_journal_refuses_a_pooler_in_transaction_mode(
    workshop: Workshop, transactions: str, words: list[str]
) -> None:
    done = workshop.command(*words, ECS_JOURNAL_URL=transactions)
    assert done.returncode == 7, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert "pool_mode = session" in line


def test_a_worker_whose_pooler_changes_its_mode_drains_and_ends(
    workshop: Workshop, database: str
) -> None:
    with pooler(database, "session") as found:
        worker = workshop.worker(ECS_JOURNAL_URL=found.url_of(database))
        found.change_mode("transaction")
        assert worker.wait(90) == 7
        assert "worker.ended" in workshop.logs()
        last = worker.log.read_text().splitlines()[-1]
        assert last.startswith("ECS_JOURNAL_URL: ")
        assert "pool_mode = session" in last


@pytest.mark.parametrize("in_turn", [False, True])
def test_an_owner_whose_lock_keeps_nobody_out_notices_it(
    monkeypatch: pytest.MonkeyPatch, database: str, in_turn: bool
) -> None:
    """Also where the pooler tells a client the session's own process id."""
    monkeypatch.setattr(Connector, "_check", lambda *_: None)
    with pooler(database, "transaction", in_turn=in_turn) as found:
        engine = open_engine(found.url_of(database))
        with pytest.raises(SharedSessions):
            SessionOwner(engine)


def test_a_pooler_in_session_mode_works_and_a_dead_workers_requests_are_taken_over(
    workshop: Workshop, simulated: SimulatedOpenStack, database: str
) -> None:
    tenant = workshop.tenant()
    asked = ask_all(FEW, tenant, simulated)
    with pooler(database, "session") as found, Requester(workshop.broker_url) as requester:
        url = found.url_of(database)
        first = workshop.worker(ECS_JOURNAL_URL=url)
        for one in asked:
            one.publish(requester)
        eventually(lambda: "ecs_in_flight 0.0" not in first.metrics())
        workshop.worker(ECS_JOURNAL_URL=url)
        first.kill()
        await_ends(requester, asked)
        settled(workshop, requester)
        check(requester.heard, asked, tenant, simulated.executed())


def test_a_pooler_of_one_host_alone_and_one_whose_mode_changes_are_found_out(
    monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    with pooler(database, "session") as found:
        engine = open_engine(database)
        connect = engine.dialect.create_connect_args(make_url(found.url_of(database)))[1]
        direct = engine.dialect.create_connect_args(make_url(database))[1]
        connector = Connector(JournalTimes())
        connector.connect(**direct).close()
        connector.connect(**connect).close()
        found.change_mode("transaction")
        monkeypatch.setattr("workers.journal.postgres._TRIED", 0.0)
        with pytest.raises(SharedSessions):
            connector.connect(**connect)
        connector = Connector(JournalTimes())
        connector.connect(**direct).close()
        with pytest.raises(SharedSessions):
            connector.connect(**connect)


def test_an_owner_whose_session_stays_with_another_server_goes_to_the_others(
    database: str,
) -> None:
    """The old primary of a failover still answers: that is no pooler."""
    owner = SessionOwner(open_engine(database))
    with PrivatePostgres() as promoted:
        engine = open_engine(promoted.url)
        with engine.connect() as other:
            owner._engine = engine
            owner.keep(lambda: other)
            owner.keep(lambda: other)
            assert owner.is_alive(owner.id, other)
        owner.close()
