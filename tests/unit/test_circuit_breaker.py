"""Tests what is down for everybody, and which queues are then left alone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from handlers.openstack.errors import Forbidden
from messages.errors import Transient
from tests.support.names import (
    IMAGES_QUEUE,
    NAMES,
    ORDERS_QUEUE,
    READS_QUEUE,
    SERVERS_QUEUE,
    UNDELIVERED_QUEUE,
)
from workers import circuit_breaker
from workers.circuit_breaker import CircuitBreaker, Streak, is_no_answer


class Sky:
    """Holds what the probes find and the journal says."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.trouble: str | None = None
        self.probed: list[str] = []
        self.changes = 0
        self._news = asyncio.Event()
        self.weather = CircuitBreaker(NAMES, self._probe, lambda: self.trouble, self._changed)

    async def _probe(self, service: str) -> None:
        self.probed.append(service)
        if self.error is not None:
            raise self.error

    def _changed(self) -> None:
        self.changes += 1
        self._news.set()

    async def until(self, changes: int) -> None:
        async with asyncio.timeout(5):
            while self.changes < changes:
                self._news.clear()
                await self._news.wait()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {
        "SUSPICIOUS_SECONDS": 0.05,
        "JOURNAL_PATIENCE": 0.05,
        "LOOK_EVERY": 0.01,
        "PROBE_EVERY": 0.02,
    }
    for name, seconds in quick.items():
        monkeypatch.setattr(circuit_breaker, name, seconds)


@pytest.fixture
async def sky() -> AsyncIterator[Sky]:
    found = Sky()
    task = asyncio.create_task(found.weather.watch())
    yield found
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _fail(sky: Sky, service: str, outcome: str) -> None:
    for _ in range(12):
        sky.weather.called(service, outcome)
        await asyncio.sleep(0.01)


async def test_a_service_that_the_probe_finds_down_keeps_its_queues_from_being_consumed(
    sky: Sky,
) -> None:
    sky.error = Transient("http_503", detail="HTTP 503")
    await _fail(sky, "compute", "http_503")
    await sky.until(1)
    assert dict(sky.weather.down) == {"compute": "HTTP 503"}
    assert not sky.weather.may_consume(SERVERS_QUEUE)
    assert not sky.weather.may_consume(ORDERS_QUEUE)
    assert sky.weather.may_consume(IMAGES_QUEUE)
    assert sky.weather.may_consume(READS_QUEUE)
    assert sky.weather.may_consume(UNDELIVERED_QUEUE)
    sky.error = None
    await sky.until(2)
    assert not sky.weather.down


@pytest.mark.parametrize("error", [None, Forbidden(403, "no role", None), Transient("http_429")])
async def test_what_fails_for_one_tenant_alone_stops_nobody(
    sky: Sky, error: Exception | None
) -> None:
    sky.error = error
    await _fail(sky, "compute", "http_401")
    await asyncio.sleep(0.1)
    assert "compute" in sky.probed
    assert sky.changes == 0


async def test_a_success_in_between_ends_the_suspicion(sky: Sky) -> None:
    sky.error = Transient("no_connection")
    for outcome in ("no_answer", "no_answer", "404") * 10:
        sky.weather.called("compute", outcome)
        await asyncio.sleep(0.005)
    assert sky.probed == []


async def test_a_service_that_no_queue_needs_is_not_watched(sky: Sky) -> None:
    sky.error = Transient("no_connection")
    await _fail(sky, "network", "no_connection")
    assert sky.probed == []


async def test_a_journal_in_trouble_stops_all_changes_and_comes_back_at_once(sky: Sky) -> None:
    sky.trouble = "database or disk is full"
    await sky.until(1)
    assert dict(sky.weather.down) == {"journal": "database or disk is full"}
    taken = [queue for queue in NAMES.input_queues if sky.weather.may_consume(queue)]
    assert taken == [READS_QUEUE]
    # What the broker gave up on may have been begun: it would be given back again and again.
    assert not sky.weather.may_consume(NAMES.undelivered_queue)
    sky.trouble = None
    await sky.until(2)
    consumed = (*NAMES.input_queues, NAMES.undelivered_queue)
    assert all(sky.weather.may_consume(queue) for queue in consumed)


def test_what_counts_as_no_answer() -> None:
    assert all(
        is_no_answer(one)
        for one in ("http_500", "http_503", "http_401", "no_connection", "keystone")
    )
    assert not any(
        is_no_answer(one) for one in ("200", "404", "409", "403", "http_429", "http_413")
    )


def test_a_streak_lasts_from_its_first_failure() -> None:
    streak = Streak()
    for now in (1.0, 2.0, 3.0):
        streak.failed("x", now)
    assert streak.is_suspicious(1.0 + circuit_breaker.SUSPICIOUS_SECONDS)
    streak.ended()
    assert not streak.is_suspicious(100.0)
