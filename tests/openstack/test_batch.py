"""Many servers at once: a batch takes about as long as its slowest server, its check a constant
number of calls.
"""

import re
import time
from dataclasses import dataclass

import pytest

from sandbox.control_plane import ControlPlane
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester
from sandbox.worker import WorkerProcess
from tests.support.tenant import Tenant
from tests.support.workshop import Workshop

#: Servers of the batch. Fifty would keep the real control plane busy for minutes, and show nothing
#: else.
NUMBER, REAL_NUMBER = 50, 8


@dataclass(frozen=True)
class Course:
    """Seconds until the answer and until the end, calls until each."""

    answered: float
    ended: float
    reads_before_answer: int
    reads: int
    writes: int


def nova_reads(worker: WorkerProcess) -> int:
    """GETs of Nova by the worker so far."""
    found = re.findall(
        r'ecs_openstack_calls_total{method="GET",[^}]*service="compute"[^}]*} ([\d.]+)',
        worker.metrics(),
    )
    return int(sum(float(number) for number in found))


def run(shop: Workshop, requester: Requester, ids: list[str], action: str, end: str) -> Course:
    worker = shop.running
    reads, begun = nova_reads(worker), time.monotonic()
    message_id = requester.command(
        "server.batch_action", body={action: {"servers": [{"id": one} for one in ids]}}
    )
    result = requester.result_of(message_id, 120)
    answered, reads_before = time.monotonic() - begun, nova_reads(worker) - reads
    assert (result.body["code"], len(result.body["data"]["servers"])) == (200, len(ids))
    for one in ids:
        assert (
            requester.last_update_of("server", message_id, 240, resource_id=one).body["status"]
            == end
        )
    ended = time.monotonic() - begun
    cost = shop.calls_of(message_id)
    course = Course(answered, ended, reads_before, cost["GET"], cost["POST"])
    print(f"\n{action} of {len(ids)}: {course}")
    return course


@pytest.mark.long_on_real
@pytest.mark.timeout(600)
def test_many_servers_are_stopped_and_started_together(
    shop: Workshop, requester: Requester, tenant: Tenant, cloud: SimulatedOpenStack | ControlPlane
) -> None:
    number = NUMBER if isinstance(cloud, SimulatedOpenStack) else REAL_NUMBER
    ids = tenant.make_servers(number)
    for action, end in (("os-stop", "SHUTOFF"), ("os-start", "ACTIVE")):
        one = run(shop, requester, ids[:1], action, end)
        assert one.writes == 1
        back = "os-start" if action == "os-stop" else "os-stop"
        run(shop, requester, ids[:1], back, "ACTIVE" if back == "os-start" else "SHUTOFF")
        many = run(shop, requester, ids, action, end)
        assert many.writes == number
        # One list checks them all, and one a tick follows them all. Whoever is not heard of for
        # long is looked at, but not singly: for each tick of half a second there may be one more
        # list.
        assert many.reads_before_answer <= 3 + 2 * many.answered / 0.5
        assert many.reads <= 4 + 2 * many.ended / 0.5
