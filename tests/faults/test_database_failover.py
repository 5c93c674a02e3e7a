"""Faults 80 and 81: a primary and a standby of PostgreSQL. The worker has both in its URL and goes on
with the one that is promoted; its commits wait for the disk, and for a synchronous standby.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from signal import SIGCONT, SIGSTOP
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, text

from sandbox.openstack import SimulatedOpenStack
from sandbox.postgres import PrivatePostgres
from tests.support.invariants import await_ends
from tests.support.kinds import KINDS
from tests.support.load import Load
from tests.support.proxy import Proxy
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.journal.database import migrate, open_engine

pytestmark = pytest.mark.slow


@dataclass
class Pair:
    """A primary, its standby, and the network between a worker and each."""

    primary: PrivatePostgres
    standby: PrivatePostgres
    name: str

    def url(self, *ports: int) -> str:
        """The URL of the journal, with the standby first."""
        first, second = ports or (self.standby.port, self.primary.port)
        return f"postgresql://postgres@127.0.0.1:{first},127.0.0.1:{second}/{self.name}"

    def is_level(self) -> bool:
        """Tell whether the standby has all that was committed."""
        return self._asked(
            "SELECT coalesce(bool_and(replay_lsn = pg_current_wal_lsn()), false)"
            " FROM pg_stat_replication"
        )

    def is_followed(self) -> bool:
        """Tell whether the standby is connected."""
        return self._asked("SELECT count(*) > 0 FROM pg_stat_replication WHERE state = 'streaming'")

    def _asked(self, question: str) -> bool:
        engine = create_engine(self.primary.url)
        with engine.connect() as connection:
            found = connection.execute(text(question)).scalar()
        engine.dispose()
        return bool(found)

    def cut(self) -> None:
        """Part the two: the standby receives nothing any more."""
        self.standby.configure(primary_conninfo="host=127.0.0.1 port=1")
        eventually(lambda: not self.is_followed(), 30)

    def join(self) -> None:
        """Have the standby follow again."""
        self.standby.configure(
            primary_conninfo=f"host=127.0.0.1 port={self.primary.port} user=postgres"
        )

    def fail_over(self) -> None:
        """The primary dies, the standby takes its place."""
        self.primary.kill()
        self.standby.promote()


@pytest.fixture
def pair() -> Iterator[Pair]:
    with PrivatePostgres() as primary:
        name = "journal"
        primary.add_database(name)
        with primary.standby() as standby:
            found = Pair(primary, standby, name)
            eventually(found.is_followed, 30)
            yield found


def done(cloud: SimulatedOpenStack) -> list[str]:
    """The calls that changed something, but for logins."""
    return [call for call in cloud.executed() if not call.startswith("keystone ")]


def synchronous(pair: Pair) -> None:
    pair.primary.configure(synchronous_standby_names="*")
    eventually(pair.is_level, 30)


@pytest.fixture
def load(workshop: Workshop, simulated: SimulatedOpenStack) -> Iterator[Load]:
    workshop.settings["ECS_COMMAND_TIMEOUT"] = "120"
    with Load(workshop.broker_url, simulated, workshop.tenant()) as found:
        yield found


@pytest.mark.parametrize("is_synchronous", [True, False], ids=["synchronous", "not behind"])
def test_80_a_worker_at_work_goes_on_with_the_standby_that_is_promoted(
    workshop: Workshop, load: Load, pair: Pair, is_synchronous: bool
) -> None:
    if is_synchronous:
        synchronous(pair)
    worker = workshop.worker(ECS_JOURNAL_URL=pair.url())
    load.send(*load.mix(12))
    eventually(load.has_begun, 60)
    if not is_synchronous:
        worker.signal(SIGSTOP)
        eventually(pair.is_level, 30)
    pair.fail_over()
    worker.signal(SIGCONT)
    load.recovered(60)
    load.account()


def test_80_what_a_standby_that_was_behind_does_not_know_is_looked_for_in_the_cloud(
    workshop: Workshop, load: Load, pair: Pair, simulated: SimulatedOpenStack
) -> None:
    """Requests that were answered are repeated after the failover. A command that leaves no mark is
    done again.
    """
    workshop.worker(ECS_JOURNAL_URL=pair.url())
    kinds = {kind.name: kind for kind in KINDS}
    names = ("resize", "extend", "renew", "new server", "createImage", "reboot")
    asked = [kinds[name].ask(workshop.tenant(), simulated) for name in names]
    pair.cut()
    load.send(*asked)
    load.account()
    before = Counter(done(simulated))
    pair.fail_over()
    load.recovered(60)
    load.requester.heard.clear()
    for one in asked:
        one.publish(load.requester)
    await_ends(load.requester, asked)
    again = Counter(done(simulated)) - before
    assert [call.rpartition(" ")[2] for call in again] == ["reboot"]


def test_80_a_synchronous_standby_that_is_away_is_waited_for(
    workshop: Workshop, load: Load, pair: Pair, simulated: SimulatedOpenStack
) -> None:
    """Nothing is begun that the standby does not know."""
    synchronous(pair)
    worker = workshop.worker(ECS_JOURNAL_URL=pair.url())
    pair.cut()
    asked = load.mix(1)
    before = done(simulated)
    load.send(*asked)
    eventually(lambda: any("did not answer" in one for one in worker.problems()), 90)
    load.requester.listen(1)
    assert load.requester.heard == []
    assert done(simulated) == before
    pair.join()
    load.recovered(60)
    load.account()


def test_80_an_old_primary_that_still_lives_acknowledges_nothing(
    workshop: Workshop, load: Load, pair: Pair
) -> None:
    """Split brain: a worker that is cut off from the broker works on with the old primary, another
    one with its synchronous standby, which was promoted.
    """
    synchronous(pair)
    port = urlsplit(workshop.broker_url).port
    assert port is not None
    with Proxy(port) as network:
        first = workshop.worker(
            ECS_JOURNAL_URL=pair.url(pair.primary.port, pair.standby.port),
            ECS_BROKER_URL=f"{network.url_of(workshop.broker_url)}?heartbeat=2",
        )
        load.send(*load.mix(12))
        eventually(load.has_begun, 60)
        pair.cut()
        pair.standby.promote()
        network.blackhole()
        workshop.worker(ECS_JOURNAL_URL=pair.url())
        load.account(120)
        first.kill()


@pytest.mark.parametrize("place", ["DATABASE", "ROLE"])
def test_81_commits_wait_for_the_disk_whatever_the_database_says(
    postgres: PrivatePostgres, place: str
) -> None:
    name = f"quick_{uuid4().hex[:8]}"
    url = postgres.add_database(name)
    if place == "ROLE":
        postgres.execute(f"CREATE ROLE {name} LOGIN SUPERUSER")
        url = url.replace("postgres@", f"{name}@")
    for given, expected in (("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")):
        postgres.execute(f"ALTER {place} {name} SET synchronous_commit = {given}")
        with open_engine(url).connect() as connection:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == expected


def test_the_form_of_sqlalchemy_for_several_hosts_works_too(workshop: Workshop, pair: Pair) -> None:
    hosts = "&".join(f"host=127.0.0.1:{one.port}" for one in (pair.standby, pair.primary))
    workshop.worker(ECS_JOURNAL_URL=f"postgresql://postgres@/{pair.name}?{hosts}")


def test_check_tells_what_the_database_does_not_promise(workshop: Workshop, pair: Pair) -> None:
    def told(url: str, code: int) -> dict[str, str]:
        done = workshop.command("check", "-o", "json", ECS_JOURNAL_URL=url)
        assert done.returncode == code, done.stdout + done.stderr
        rows = [row for row in json.loads(done.stdout) if row["check"] == "journal"]
        return {row["found"]: row["result"] for row in rows if row["result"] != "ok"}

    migrate(open_engine(pair.url()))
    assert told(pair.url(), 0) == {"no standby is synchronous": "warning"}
    assert told(pair.primary.url_of(pair.name), 0) == {"no standby is synchronous": "warning"}
    pair.primary.configure(full_page_writes="off", fsync="off")
    synchronous(pair)
    assert told(pair.url(), 0) == {"fsync is off": "warning", "full_page_writes is off": "warning"}
    pair.cut()
    found = told(pair.url(), 0)
    assert found.pop("none of the synchronous standbys (*) is connected") == "warning"
    pair.primary.configure(synchronous_standby_names="", fsync="on", full_page_writes="on")
    assert told(pair.standby.url_of(pair.name), 5) == {"the database is a standby": "failed"}
    url = pair.primary.url_of(pair.name)
    pair.primary.execute("CREATE ROLE reader LOGIN")
    (line,) = told(url.replace("postgres@", "reader@"), 5)
    assert line.startswith("the role reader has no right to SELECT on ")
    # Enough for all but the next migration.
    pair.primary.execute("GRANT pg_read_all_data, pg_write_all_data TO reader")
    found = told(url.replace("postgres@", "reader@"), 0)
    assert found.pop("the role reader has no right to CREATE in the schema") == "warning"
    pair.primary.execute(f"ALTER DATABASE {pair.name} SET default_transaction_read_only = on")
    assert told(url, 5) == {"the database may only be read": "failed"}
