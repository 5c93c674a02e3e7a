"""One worker takes over from another: in the middle of a batch (11), where the other stands still,
or drains.
"""

import signal
import time
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest

from sandbox.openstack import SimulatedOpenStack
from sandbox.postgres import PrivatePostgres
from sandbox.requester import Requester, Source
from tests.support.dying_worker import Hold, Instant
from tests.support.invariants import await_ends, check
from tests.support.kinds import FEW, KINDS, Asked, ask_all, batch
from tests.support.stage import await_held, dying, settled
from tests.support.workshop import Workshop

pytestmark = pytest.mark.slow


def test_a_batch_is_gone_on_with_though_each_server_was_at_another_instant(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    tenant = workshop.tenant()
    asked = batch(tenant, simulated)
    done, executed, meant, untouched = asked.actions
    holds = [
        Hold(asked.message_id, Instant.ANSWER_READ, done),
        Hold(asked.message_id, Instant.CALL_EXECUTED, executed),
        Hold(asked.message_id, Instant.INTENT_WRITTEN, meant),
        Hold(asked.message_id, Instant.EFFECT_NOT_BEGUN, untouched),
    ]
    worker = dying(workshop, holds)
    with Requester(workshop.broker_url) as requester:
        asked.publish(requester)
        await_held(workshop, worker)
        assert [len(tenant.actions(one)) for one in asked.actions] == [2, 2, 1, 1]
        workshop.worker()
        await_ends(requester, [asked])
        settled(workshop, requester)
        check(requester.heard, [asked], tenant, simulated.executed())


@pytest.mark.parametrize(
    "instant", [Instant.CALL_EXECUTED, Instant.WAITING, Instant.RESULT_WRITTEN]
)
def test_a_worker_that_is_there_already_takes_over_at_once(
    workshop: Workshop, simulated: SimulatedOpenStack, instant: Instant
) -> None:
    tenant = workshop.tenant()
    asked = [
        kind.ask(tenant, simulated)
        for kind in KINDS
        if kind.name in ("stop", "batch", "createImage", "extend")
    ]
    worker = dying(
        workshop, [Hold(one.message_id, instant, one.effect) for one in asked], stay=True
    )
    with Requester(workshop.broker_url) as requester:
        for one in asked:
            one.publish(requester)
        await_held(workshop)
        workshop.worker()
        killed_at = time.monotonic()
        worker.kill()
        await_ends(requester, asked)
        assert time.monotonic() - killed_at < 60
        settled(workshop, requester)
        check(requester.heard, asked, tenant, simulated.executed())


# A worker that stands still, as a paused machine does, and goes on when another has taken over.


def stand_still(
    workshop: Workshop, asked: list[Asked], instant: Instant, requester: Requester, **settings: str
) -> Any:
    """A worker that was stopped at that instant, and given up by the broker."""
    holds = [Hold(one.message_id, instant, one.effect) for one in asked]
    heartbeat = f"{workshop.broker_url}?heartbeat=2"
    worker = dying(workshop, holds, stay=True, **{**settings, "ECS_BROKER_URL": heartbeat})
    for one in asked:
        one.publish(requester)
    await_held(workshop)
    worker.signal(signal.SIGSTOP)
    return worker


def test_a_worker_that_stands_still_keeps_what_it_is_at_as_long_as_its_lock_is_its_own(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    """A SQLite journal's lock is the process's: nobody takes over, and both workers give the one
    result.
    """
    tenant = workshop.tenant()
    asked = [
        kind.ask(tenant, simulated)
        for kind in KINDS
        if kind.name in ("reboot", "batch", "createImage", "resize")
    ]
    with Requester(workshop.broker_url) as requester:
        stopped = stand_still(workshop, asked, Instant.INTENT_WRITTEN, requester)
        workshop.worker()
        # The broker has given the messages to the other one by now, which waits.
        requester.listen(10)
        assert [one.body for one in requester.heard if one.source is not Source.STATUS] == []
        stopped.signal(signal.SIGCONT)
        stopped.signal(signal.SIGUSR1)
        await_ends(requester, asked)
        assert stopped.terminate() == 0
        settled(workshop, requester)
        check(requester.heard, asked, tenant, simulated.executed())


@pytest.mark.parametrize("instant", [Instant.INTENT_WRITTEN, Instant.ANSWER_READ, Instant.WAITING])
def test_a_worker_that_was_taken_for_dead_does_nothing_when_it_goes_on(
    workshop: Workshop, simulated: SimulatedOpenStack, postgres: PrivatePostgres, instant: Instant
) -> None:
    """With PostgreSQL the lock is a session's, which may be ended while the process stands still."""
    tenant = workshop.tenant()
    journal = postgres.add_database(f"takeover_{uuid4().hex[:8]}")
    asked = ask_all(
        [kind for kind in FEW if kind.waits or instant is not Instant.WAITING], tenant, simulated
    )
    with Requester(workshop.broker_url) as requester:
        stopped = stand_still(workshop, asked, instant, requester, ECS_JOURNAL_URL=journal)
        end_sessions(journal)
        workshop.worker(ECS_JOURNAL_URL=journal)
        await_ends(requester, asked)
        before = len(requester.heard)
        executed = simulated.executed()
        stopped.signal(signal.SIGCONT)
        stopped.signal(signal.SIGUSR1)
        requester.listen(8)
        assert simulated.executed() == executed
        assert stopped.terminate() == 0
        settled(workshop, requester)
        check(requester.heard, asked, tenant, executed)
        # What it says, if anything, has been said before.
        known = {one.properties["message_id"] for one in requester.heard[:before]}
        assert {one.properties["message_id"] for one in requester.heard[before:]} <= known


def end_sessions(url: str) -> None:
    """Every session of a database: who has one makes another, unless he stands still."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = %s",
            [urlsplit(url).path[1:]],
        )


# SIGTERM.


def test_an_idle_worker_ends_at_sigterm(workshop: Workshop) -> None:
    worker = workshop.worker()
    began = time.monotonic()
    assert worker.terminate() == 0
    assert time.monotonic() - began < 10
    assert "worker.ended" in workshop.logs()


def test_a_worker_at_work_gives_back_at_sigterm_what_it_cannot_end(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    """Every kind of effect is in the middle of it; the next one goes on, and nothing is done twice."""
    tenant = workshop.tenant()
    asked = ask_all(FEW, tenant, simulated)
    holds = [Hold(one.message_id, Instant.ANSWER_READ, one.effect) for one in asked]
    worker = dying(workshop, holds, stay=True, constants={"workers.bootstrap.DRAIN": 1.0})
    with Requester(workshop.broker_url) as requester:
        for one in asked:
            one.publish(requester)
        await_held(workshop)
        assert worker.terminate() == 0
        workshop.worker()
        await_ends(requester, asked)
        settled(workshop, requester)
        check(requester.heard, asked, tenant, simulated.executed())
