"""Many servers at once: a batch takes about as long as its slowest server, its check a constant number of calls."""

import re
import time
from dataclasses import dataclass

import pytest

from sandbox.requester import Requester
from sandbox.worker import WorkerProcess
from tests.tenant import Tenant

NUMBER = 50


@dataclass(frozen=True)
class Course:
    """Seconds until the answer and until the end, calls until each."""

    answered: float
    ended: float
    reads_before_answer: int
    reads: int
    writes: int


def calls(worker: WorkerProcess, method: str) -> int:
    """OpenStack calls of the worker so far."""
    found = re.findall(rf'ecs_openstack_calls_total{{method="{method}",[^}}]*}} ([\d.]+)', worker.metrics())
    return int(sum(float(number) for number in found))


def run(requester: Requester, worker: WorkerProcess, ids: list[str], action: str, end: str) -> Course:
    reads, writes, begun = calls(worker, "GET"), calls(worker, "POST"), time.monotonic()
    message_id = requester.command("server.batch_action", body={action: {"servers": [{"id": one} for one in ids]}})
    result = requester.result_of(message_id, 120)
    answered, reads_before = time.monotonic() - begun, calls(worker, "GET") - reads
    assert (result.body["code"], len(result.body["data"]["servers"])) == (200, len(ids))
    for one in ids:
        assert requester.last_update_of("server", message_id, 240, resource_id=one).body["status"] == end
    ended = time.monotonic() - begun
    course = Course(answered, ended, reads_before, calls(worker, "GET") - reads, calls(worker, "POST") - writes)
    print(f"\n{action} of {len(ids)}: {course}")
    return course


@pytest.mark.timeout(600)
def test_fifty_servers_are_stopped_and_started_together(
    requester: Requester, tenant: Tenant, worker: WorkerProcess
) -> None:
    ids = tenant.make_servers(NUMBER)
    for action, end in (("os-stop", "SHUTOFF"), ("os-start", "ACTIVE")):
        one = run(requester, worker, ids[:1], action, end)
        assert one.writes == 1
        back = "os-start" if action == "os-stop" else "os-stop"
        run(requester, worker, ids[:1], back, "ACTIVE" if back == "os-start" else "SHUTOFF")
        many = run(requester, worker, ids, action, end)
        assert many.writes == NUMBER
        # One list checks them all, and one a tick follows them all. Whoever is not heard of for long is looked at, but
        # not singly: for each tick of half a second there may be one more list.
        assert many.reads_before_answer <= 3 + 2 * many.answered / 0.5
        assert many.reads <= 4 + 2 * many.ended / 0.5
