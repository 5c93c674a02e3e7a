"""Tests what a machine runs out of: file descriptors (63), room for the log (64); and clocks that
jump (59).
"""

import json
import re
import resource
import signal
import time
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from sandbox.openstack import SimulatedOpenStack
from sandbox.processes import install_debian
from sandbox.requester import Requester
from tests.support.dying_worker import Hold, Instant
from tests.support.invariants import RECOVERY, await_ends, check
from tests.support.kinds import FEW, ask_all
from tests.support.stage import await_held, dying, settled
from tests.support.workshop import Workshop

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_log_that_takes_nothing_more_stops_no_request(
    workshop: Workshop, simulated: SimulatedOpenStack, log_format: str
) -> None:
    tenant = workshop.tenant()
    asked = ask_all(FEW, tenant, simulated)
    dying(workshop, [], DYING_STDERR="/dev/full", ECS_LOG_FORMAT=log_format, ECS_LOG_LEVEL="debug")
    with Requester(workshop.broker_url) as requester:
        for one in asked:
            one.publish(requester)
        # What is wrong is logged as well, by another way.
        requester.publish("ecs.commands", "server.action", b"{", reply_to=requester.reply_to)
        await_ends(requester, asked)
        assert "ecs_log_lines_lost_total" in workshop.running.metrics()
        assert "ecs_log_lines_lost_total 0.0" not in workshop.running.metrics()
        settled(workshop, requester)
        check(requester.heard, asked, tenant, simulated.executed())


def test_a_worker_without_file_descriptors_works_again_once_it_has_some(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    tenant = workshop.tenant()
    asked = ask_all(FEW, tenant, simulated)
    worker = workshop.worker()
    process = psutil.Process(worker.pid)
    with Requester(workshop.broker_url) as requester:
        requester.result_of(requester.command("server.list"), 60)
        process.rlimit(resource.RLIMIT_NOFILE, (3, 4096))
        # More at once than the connections that are open already can carry.
        crowd = [requester.command("server.list") for _ in range(60)]
        for one in asked:
            one.publish(requester)
        requester.listen(5)
        process.rlimit(resource.RLIMIT_NOFILE, (1024, 4096))
        began = time.monotonic()
        await_ends(requester, asked)
        for read in (*crowd, requester.command("server.list")):
            requester.result_of(read)
        assert time.monotonic() - began < RECOVERY + 15
        assert re.search(r'status="no_connection"} [1-9]', worker.metrics())
        settled(workshop, requester)
        check(requester.heard, asked, tenant, simulated.executed())


def faketime() -> str:
    """The library by which a process has a clock of its own."""

    def found() -> list[Path]:
        return sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))

    install_debian(["libfaketime"], lambda: bool(found()), "libfaketime")
    return str(found()[0])


@pytest.mark.parametrize("jump", ["+2h", "-2h"])
@pytest.mark.parametrize("instant", [Instant.REQUEST_WRITTEN, Instant.WAITING])
def test_a_clock_that_jumps_ends_nothing_and_stretches_nothing(
    workshop: Workshop, simulated: SimulatedOpenStack, instant: Instant, jump: str
) -> None:
    """The wall clock of the worker jumps in the middle of every kind of request."""
    tenant = workshop.tenant()
    asked = ask_all(
        [kind for kind in FEW if kind.waits or instant is not Instant.WAITING], tenant, simulated
    )
    clock = workshop.folder / "clock"
    clock.write_text("+0\n")
    worker = dying(
        workshop,
        [Hold(one.message_id, instant, one.effect) for one in asked],
        stay=True,
        DYING_CLOCK=faketime(),
        FAKETIME_TIMESTAMP_FILE=str(clock),
        FAKETIME_CACHE_DURATION="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
    )
    with Requester(workshop.broker_url) as requester:
        for one in asked:
            one.publish(requester)
        await_held(workshop)
        clock.write_text(f"{jump}\n")
        time.sleep(1.5)
        worker.signal(signal.SIGUSR1)
        await_ends(requester, asked)
        settled(workshop, requester)
        check(requester.heard, asked, tenant, simulated.executed())
        # It did jump.
        told = [
            json.loads(line)["timestamp"]
            for line in workshop.logs().splitlines()
            if line.startswith("{")
        ]
        assert abs(hours(told[-1]) - hours(told[0])) > 1.5


def hours(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp() / 3600
