"""Journal faults 36 to 42: SQLite and PostgreSQL that are locked, full, read-only, stopped, cut off, or torn."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from sandbox.postgres import PrivatePostgres
from tests.faults.proxy import Proxy, Reset, Way
from workers.journal import Begun, Journal, Kind, Known, NewRequest, Outcome, Resumed

REQUEST = NewRequest("order:p:17", "17", Kind.ORDER, "order.changeConfigure", "p", "digest", 1000.0)


@pytest.fixture
def database(postgres: PrivatePostgres) -> str:
    """The URL of a PostgreSQL database without any table."""
    engine = create_engine(postgres.url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return postgres.url


@pytest.fixture
def proxy(database: str) -> Iterator[Proxy]:
    """The network between the journal and its database."""
    port = make_url(database).port
    assert port is not None
    with Proxy(port) as found:
        yield found


@asynccontextmanager
async def journal_at(url: str) -> AsyncIterator[Journal]:
    found = Journal(url)
    await found.open()
    yield found
    await found.close()


def effects_of(outcome: Outcome) -> dict[str, object]:
    assert isinstance(outcome, Resumed), outcome
    return {name: effect.outcome for name, effect in outcome.effects.items()}


class CutAtCommit:
    """Resets a connection beside its next COMMIT: before it arrives, or after, so that only its answer is lost."""

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

        async def cut_off(write: "asyncio.Future[Outcome] | asyncio.Future[None]") -> Outcome | None:
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
