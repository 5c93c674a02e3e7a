"""Journal faults 39, 40 and 42 as the journal meets them: PostgreSQL cut off, hanging, locked, in a
deadlock.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace

import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from sandbox.postgres import PrivatePostgres
from tests.support.proxy import Proxy, Reset, Way
from workers.journal import (
    Begun,
    Claim,
    HeldElsewhere,
    Journal,
    JournalTimes,
    Kind,
    Known,
    NewRequest,
    Outcome,
    Resumed,
)

pytestmark = pytest.mark.slow

REQUEST = NewRequest("order:p:17", "17", Kind.ORDER, "order.changeConfigure", "p", "digest", 1000.0)


@pytest.fixture
def database(postgres: PrivatePostgres) -> str:
    """The URL of a PostgreSQL database without any table."""
    return postgres.add_database(f"faults_{uuid.uuid4().hex[:8]}")


@pytest.fixture
def proxy(database: str) -> Iterator[Proxy]:
    """The network between the journal and its database."""
    port = make_url(database).port
    assert port is not None
    with Proxy(port) as found:
        yield found


@asynccontextmanager
async def journal_at(url: str, times: JournalTimes | None = None) -> AsyncIterator[Journal]:
    found = Journal(url, times)
    await found.open()
    yield found
    await found.close()


def effects_of(outcome: Outcome) -> dict[str, object]:
    assert isinstance(outcome, Resumed), outcome
    return {name: effect.outcome for name, effect in outcome.effects.items()}


FAILING_TWICE = (
    "CREATE SEQUENCE tries",
    "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF nextval('tries') < 3 THEN"
    " RAISE EXCEPTION 'could not serialize access' USING ERRCODE = 'serialization_failure'; END IF; RETURN NEW; END $$",
    "CREATE TRIGGER failing BEFORE UPDATE ON effects FOR EACH ROW EXECUTE FUNCTION fail()",
)


class CutAtCommit:
    """Resets a connection beside its next COMMIT: before it arrives, or after, so that only its
    answer is lost.
    """

    def __init__(self, arrives: bool) -> None:
        self._arrives = arrives
        self.armed = False

    async def __call__(self, way: Way, data: bytes) -> bytes:
        if self.armed and way is Way.UP and b"COMMIT\x00" in data:
            self.armed = False
            raise Reset(data if self._arrives else b"")
        return data


@pytest.mark.parametrize("arrives", [True, False])
async def test_40_what_a_dead_worker_left_is_found_though_the_commit_was_not_answered(
    database: str, proxy: Proxy, arrives: bool
) -> None:
    async with journal_at(database) as dead:
        begun = await dead.begin(REQUEST)
        assert isinstance(begun, Begun)
        await dead.intend(begun.claim, "resize:1", None)
        await dead.record(begun.claim, "resize:1", {"status": 202}, "req-1")
    cut = CutAtCommit(arrives)
    async with journal_at(proxy.url_of(database)) as journal:
        proxy.tamper, cut.armed = cut, True
        outcome = await asyncio.wait_for(journal.begin(REQUEST), 20)
        assert not cut.armed
        assert effects_of(outcome) == {"resize:1": {"status": 202}}


@pytest.mark.parametrize("arrives", [True, False])
async def test_40_each_write_has_been_made_once_though_its_commit_was_not_answered(
    database: str, proxy: Proxy, arrives: bool
) -> None:
    cut = CutAtCommit(arrives)
    async with journal_at(proxy.url_of(database)) as journal:
        proxy.tamper = cut

        async def cut_off(
            write: "asyncio.Future[Outcome] | asyncio.Future[None]",
        ) -> Outcome | None:
            cut.armed = True
            done = await asyncio.wait_for(write, 20)
            assert not cut.armed
            return done

        begun = await cut_off(journal.begin(REQUEST))
        assert isinstance(begun, Begun)
        await cut_off(journal.intend(begun.claim, "resize:1", None))
        await cut_off(journal.record(begun.claim, "resize:1", {"status": 202}, "req-1"))
        await cut_off(journal.release(begun.claim, 1))
        resumed = await journal.begin(replace(REQUEST, received_at=2000.0))
        assert effects_of(resumed) == {"resize:1": {"status": 202}}
        assert isinstance(resumed, Resumed)
        assert (resumed.attempts, resumed.received_at) == (1, 1000.0)
        await cut_off(journal.finish(resumed.claim, {"code": 200}, []))
        await cut_off(journal.settle(REQUEST.key))
        assert await journal.begin(REQUEST) == Known({"code": 200}, [], settled=True)
        assert journal.trouble is None


#: Half a minute is a second.
QUICK = JournalTimes(connect=2.0, answer=1.0, keep_owner=0.3, last_writes=1.0)


async def until_trouble(journal: Journal, says: str = "") -> None:
    """Until the journal is in trouble that says this."""
    async with asyncio.timeout(20):
        while journal.trouble is None or says not in journal.trouble:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def until_well(journal: Journal) -> None:
    """Until it is in no trouble."""
    async with asyncio.timeout(20):
        while journal.trouble is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_database_that_swallows_everything_is_told_and_gone_on_with(
    database: str, proxy: Proxy
) -> None:
    async with journal_at(proxy.url_of(database), QUICK) as journal:
        begun = await journal.begin(REQUEST)
        assert isinstance(begun, Begun)
        proxy.blackhole()
        intended = journal.intend(begun.claim, "resize:1", None)
        await until_trouble(journal, "did not answer")
        assert not intended.done()
        proxy.clear()
        await asyncio.wait_for(intended, 20)
        await until_well(journal)


async def test_trouble_that_nobody_writes_in_is_over_by_itself(database: str, proxy: Proxy) -> None:
    async with journal_at(proxy.url_of(database), QUICK) as journal:
        await journal.begin(REQUEST)
        proxy.blackhole()
        await until_trouble(journal)
        proxy.clear()
        await until_well(journal)


async def test_a_journal_whose_database_hangs_can_be_closed(database: str, proxy: Proxy) -> None:
    async with journal_at(proxy.url_of(database), QUICK) as journal:
        proxy.blackhole()
        asked = journal.begin(REQUEST)
        began = time.monotonic()
    assert time.monotonic() - began < 6
    assert not asked.done()


async def test_an_owner_whose_lost_session_still_has_its_lock_lives_and_takes_it_again(
    database: str, proxy: Proxy
) -> None:
    """The server does not know that the session is lost: nothing reaches it, no end either."""
    async with (
        journal_at(proxy.url_of(database), QUICK) as journal,
        journal_at(database, QUICK) as other,
    ):
        assert isinstance(await journal.begin(REQUEST), Begun)
        proxy.hang()
        assert isinstance(await journal.begin(replace(REQUEST, key="order:p:18")), Begun)
        assert isinstance(await other.begin(REQUEST), HeldElsewhere)


async def test_42_a_deadlock_costs_a_try(database: str) -> None:
    async with journal_at(database) as journal:
        claims = [await begun_with_effect(journal, number) for number in (1, 2)]
        with a_second_client(database) as client:
            lock_effect(client, claims[1])
            written = [journal.record(claim, "resize:1", {"status": 202}, None) for claim in claims]
            await asyncio.sleep(0.3)
            # The journal has the first, and waits for ours; we ask for its. One of us is the
            # victim.
            with suppress(OperationalError):
                await asyncio.to_thread(lock_effect, client, claims[0])
            client.rollback()
        await asyncio.wait_for(asyncio.gather(*written), 30)
        assert deadlocks(database) == 1
        assert journal.trouble is None


async def test_42_a_serialization_failure_costs_a_try(database: str) -> None:
    """Ours do not fail so, whatever the database prefers; one that is made to is tried again."""
    async with journal_at(database) as journal:
        claim = await begun_with_effect(journal, 1)
        with a_second_client(database) as client:
            for statement in FAILING_TWICE:
                client.execute(text(statement))
            client.commit()
        await asyncio.wait_for(journal.record(claim, "resize:1", {"status": 202}, None), 30)
        assert journal.trouble is None
        await journal.release(claim)
        assert effects_of(await journal.begin(request(1))) == {"resize:1": {"status": 202}}


async def test_a_lock_that_another_client_keeps_is_told(database: str) -> None:
    async with journal_at(database, JournalTimes(row_lock=0.5)) as journal:
        claim = await begun_with_effect(journal, 1)
        with a_second_client(database) as client:
            lock_effect(client, claim)
            written = journal.record(claim, "resize:1", {"status": 202}, None)
            await until_trouble(journal, "lock timeout")
            client.commit()
        await asyncio.wait_for(written, 20)
        await until_well(journal)


async def test_40_backends_that_are_terminated_again_and_again_cost_nothing_but_time(
    database: str,
) -> None:
    async with journal_at(database) as journal:

        async def one(number: int) -> None:
            claim = await begun_with_effect(journal, number)
            await journal.record(claim, "resize:1", {"status": 202}, None)
            await journal.release(claim, 1)
            resumed = await journal.begin(request(number))
            assert effects_of(resumed) == {"resize:1": {"status": 202}}
            assert isinstance(resumed, Resumed)
            assert resumed.attempts == 1
            await journal.finish(resumed.claim, {"code": number}, [])
            assert await journal.begin(request(number)) == Known(
                {"code": number}, [], settled=False
            )

        killing = asyncio.create_task(terminate_again_and_again(database))
        for group in range(0, 2000, 100):
            await asyncio.wait_for(
                asyncio.gather(*(one(number) for number in range(group, group + 100))), 60
            )
            if killing.done():
                break
        assert await killing >= 5


async def terminate_again_and_again(database: str) -> int:
    """For three seconds; how many backends there were to terminate."""
    statement = text(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    terminated = 0
    with a_second_client(database) as client:
        for _ in range(20):
            terminated += (await asyncio.to_thread(client.execute, statement)).scalar_one()
            client.commit()
            await asyncio.sleep(0.15)
    return terminated


def request(number: int) -> NewRequest:
    return replace(REQUEST, key=f"order:p:{number}", name=str(number))


async def begun_with_effect(journal: Journal, number: int) -> Claim:
    outcome = await journal.begin(request(number))
    assert isinstance(outcome, Begun)
    await journal.intend(outcome.claim, "resize:1", None)
    return outcome.claim


@contextmanager
def a_second_client(database: str) -> Iterator[Connection]:
    engine = create_engine(database)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def lock_effect(client: Connection, claim: Claim) -> None:
    """Change it, without another value: in a transaction that stays open."""
    client.execute(
        text("UPDATE effects SET marker = marker WHERE request_key = :key"), {"key": claim.key}
    )


def deadlocks(database: str) -> int:
    """As the server counts them, a moment later."""
    with a_second_client(database) as client:
        limit = time.monotonic() + 10
        while time.monotonic() < limit:
            found = client.execute(
                text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
            ).scalar_one()
            client.rollback()
            if found:
                return int(found)
            time.sleep(0.2)
    return 0
