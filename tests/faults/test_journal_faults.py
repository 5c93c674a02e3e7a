"""Journal faults 36 to 42: what a worker does while its SQLite file or its PostgreSQL is locked,
full, or gone.
"""

import os
import sqlite3
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from sandbox.openstack import SimulatedOpenStack
from sandbox.postgres import PrivatePostgres
from sandbox.requester import Requester
from tests.support.load import Load, memory_flat
from tests.support.names import INPUT_QUEUES
from tests.support.stage import dying
from tests.support.waiting import eventually
from tests.support.workshop import Workshop

pytestmark = pytest.mark.slow

is_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")


@pytest.fixture
def shop(workshop: Workshop) -> Workshop:
    workshop.settings["ECS_COMMAND_TIMEOUT"] = "120"
    return workshop


@pytest.fixture
def load(shop: Workshop, simulated: SimulatedOpenStack) -> Iterator[Load]:
    with Load(shop.broker_url, simulated, shop.tenant()) as found:
        yield found


@pytest.fixture(scope="module")
def server() -> Iterator[PrivatePostgres]:
    """A PostgreSQL that may be stopped."""
    with PrivatePostgres() as found:
        yield found


@pytest.fixture
def database(shop: Workshop, server: PrivatePostgres) -> str:
    """The URL of a database of the server's, which is the journal from now on."""
    url = server.add_database(f"faults_{uuid.uuid4().hex[:8]}")
    shop.settings["ECS_JOURNAL_URL"] = url
    return url


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def paused(shop: Workshop, why: str) -> Callable[[], bool]:
    """Tell whether the worker says that it takes nothing because the journal is down, and why."""
    return lambda: any("journal is down" in one and why in one for one in shop.running.problems())


def nothing_is_acked(
    shop: Workshop, load: Load, why: str, worsen: Callable[[], None] = lambda: None
) -> None:
    """While the journal is in trouble: what came is held, what comes is left in its queue, and
    readiness says why.
    """
    is_paused = paused(shop, why)
    load.send(*load.mix())
    eventually(lambda: worsen() or is_paused(), 30)
    load.requester.listen(0.2)
    answered = len(load.requester.heard)
    left = load.mix()
    load.send(*left)
    load.requester.listen(1.0)
    assert len(load.requester.heard) == answered
    eventually(lambda: sum(load.requester.depth(queue) for queue in INPUT_QUEUES) == len(left))


def test_36_a_journal_that_is_locked_is_waited_for(shop: Workshop, load: Load) -> None:
    worker = shop.worker()
    with memory_flat(worker):
        with closing(sqlite3.connect(shop.folder / "journal.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            nothing_is_acked(shop, load, "database is locked")
            other.execute("ROLLBACK")
        load.recovered()
        load.account()


def test_a_command_is_not_held_for_ever_by_a_journal_that_does_not_take_its_answer(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    tenant = workshop.tenant()
    server_id = tenant.make_server(disk=None)
    simulated.fault("api.nova", match=f"^POST .*{server_id}/action", delay=4, times=1, after=True)
    dying(
        workshop,
        [],
        constants={"workers.pipeline.process.HOLD_LIMIT": 16.0},
        ECS_COMMAND_TIMEOUT="6",
    )
    with Requester(workshop.broker_url) as requester:
        message_id = requester.command("server.action", server_id=server_id, body={"os-stop": None})
        eventually(lambda: any(f"{server_id}/action" in one for one in simulated.calls()), 30)
        with closing(
            sqlite3.connect(workshop.folder / "journal.db", isolation_level=None)
        ) as other:
            other.execute("BEGIN IMMEDIATE")
            eventually(lambda: "request.held_too_long" in workshop.logs(), 60)
            other.execute("ROLLBACK")
        result = requester.result_of(message_id, 60)
        assert result.body["code"] in (200, "101.001040")
        assert requester.last_update_of("server", message_id).body["status"] == "SHUTOFF"
    assert tenant.actions(server_id) == ["create", "stop"]


@is_root
def test_37_a_full_disk_is_waited_for(shop: Workshop, load: Load) -> None:
    with small_disk(shop.folder / "disk") as disk:
        worker = shop.worker(ECS_JOURNAL_URL=f"sqlite:///{disk}/journal.db")
        load.recovered()
        fill(disk)
        # SQLite gives back what its log takes when it closes it, and goes on for a while with that.
        nothing_is_acked(shop, load, "disk", worsen=lambda: fill(disk))
        (disk / "filler").unlink()
        load.recovered()
        load.account()
        worker.stop()


def fill(disk: Path) -> None:
    with suppress(OSError), (disk / "filler").open("ab", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def test_38_a_journal_that_may_only_be_read_is_waited_for(
    shop: Workshop, load: Load, database: str
) -> None:
    shop.worker()
    with closing_engine(database) as execute:
        execute("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
        try:
            nothing_is_acked(shop, load, "read-only transaction")
        finally:
            execute(
                "SET default_transaction_read_only = off",
                "ALTER SYSTEM RESET default_transaction_read_only",
                "SELECT pg_reload_conf()",
            )
    load.recovered()
    load.account()


@is_root
def test_38_a_worker_does_not_start_on_a_journal_that_may_only_be_read(shop: Workshop) -> None:
    with small_disk(shop.folder / "disk") as disk:
        worker = shop.worker(ECS_JOURNAL_URL=f"sqlite:///{disk}/journal.db")
        assert worker.terminate() == 0
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        done = shop.command("run", ECS_JOURNAL_URL=f"sqlite:///{disk}/journal.db")
        assert done.returncode == 4
        is_one_line(done.stderr)


def test_39_a_database_that_is_stopped_at_once_is_waited_for(
    shop: Workshop, load: Load, server: PrivatePostgres, database: str
) -> None:
    shop.worker()
    load.send(*load.mix())
    eventually(load.has_begun)
    server.stop_immediately()
    eventually(paused(shop, ""), 30)
    server.start()
    load.recovered()
    load.account()


def test_40_backends_that_are_terminated_under_load_cost_nothing_but_time(
    shop: Workshop, load: Load, database: str
) -> None:
    shop.worker()
    load.send(*load.mix(12))
    with closing_engine(database) as execute:
        for _ in range(20):
            execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            time.sleep(0.2)
    load.recovered()
    load.account()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_41_of_two_workers_with_the_same_request_one_acts(
    shop: Workshop, load: Load, request: pytest.FixtureRequest, kind: str
) -> None:
    if kind == "postgresql":
        url: str = request.getfixturevalue("database")
        with closing_engine(url) as execute:  # what the database prefers must not matter
            name = url.rpartition("/")[2]
            execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    workers = [shop.worker(wait=False, ECS_PREFETCH="5") for _ in range(2)]
    for worker in workers:
        worker.wait_ready()
    asked = load.mix()
    for one in asked:
        load.send(*[one] * 10)
    load.account()
    took = [worker.log.read_text().count('"request.') for worker in workers]
    assert all(took), "both had copies"


@pytest.mark.parametrize("what", ["gone", "another"])
def test_a_journal_that_is_taken_away_is_waited_for(shop: Workshop, load: Load, what: str) -> None:
    shop.worker()
    load.recovered()
    file, away = shop.folder / "journal.db", shop.folder / "away"
    away.mkdir()
    for one in shop.folder.glob("journal.db*"):
        one.rename(away / one.name)
    if what == "another":
        file.write_bytes(b"")
    nothing_is_acked(shop, load, what)
    for one in away.iterdir():
        if one.is_file():
            one.rename(shop.folder / one.name)
    load.recovered()
    load.account()
    assert list((shop.folder / "journal.db.owners").iterdir()), "it has taken its lock again"


def test_a_journal_that_is_no_journal_ends_the_worker_with_one_line(shop: Workshop) -> None:
    file = shop.folder / "journal.db"
    for content in (os.urandom(8192), b"SQLite format 3\x00" + bytes(4080) + os.urandom(4096)):
        file.write_bytes(content)
        done = shop.command("run")
        assert done.returncode == 4, done.stderr
        is_one_line(done.stderr)


def test_a_journal_that_is_cut_off_ends_the_worker_with_one_line(
    shop: Workshop, load: Load
) -> None:
    shop.worker()
    load.send(*load.mix())
    load.account()
    shop.running.terminate()
    file = shop.folder / "journal.db"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    done = shop.command("run")
    assert done.returncode == 4, done.stderr
    is_one_line(done.stderr)


def is_one_line(stderr: str) -> None:
    (line,) = [line for line in stderr.splitlines() if not line.startswith("{")]
    assert "journal" in line
    assert "ECS_JOURNAL_URL" in line


@contextmanager
def closing_engine(url: str) -> Iterator[Callable[..., None]]:
    """Executes statements one by one, by itself."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")

    def execute(*statements: str) -> None:
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))

    yield execute
    engine.dispose()
