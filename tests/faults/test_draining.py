"""A worker that is told to end ends in time though its cloud hangs, and the next goes on where it
was.
"""

import signal
import time

import pytest

from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester
from tests.support.orders import paid
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.bootstrap import DRAIN_LIMIT

pytestmark = pytest.mark.slow

#: Seconds for which an answer does not come; and for which that of a read does not, so that the
#: call after it is begun while the worker drains, and still hangs when that has to end.
HANGS, READS = 55.0, 14.0
#: Seconds of the grace period of docker-compose.yml.
GRACE = 40.0


def test_a_worker_ends_in_time_though_the_cloud_hangs(
    workshop: Workshop, simulated: SimulatedOpenStack
) -> None:
    """The calls are carried out, and their answers do not come: the next worker finds it, and does
    nothing again.

    One was begun before the worker was told to end, one is while it drains.
    """
    tenant = workshop.tenant()
    stopped, renewed = tenant.make_server(disk=None), tenant.make_server(disk=None)
    tenant.set_metadata(stopped, charge_type="monthly")
    tenant.set_metadata(renewed, next_fee_time="2027-05-08 16:53:27", charge_type="monthly")
    worker = workshop.worker(ECS_COMMAND_TIMEOUT="300")
    simulated.fault("api.nova", match=f"^GET .*{stopped}", delay=READS, times=1)
    simulated.fault("api.nova", match="^(POST .*/action|POST .*/metadata)", delay=HANGS, after=True)
    with Requester(workshop.broker_url) as requester:
        command = requester.command("server.action", server_id=stopped, body={"os-stop": None})
        order = paid("renew", renewed, duration="1", durationUnit="M")
        sent = requester.publish("ecs.orders", "order.renew", order)
        eventually(lambda: any(stopped in one for one in simulated.calls()), 60)
        requester.wait(lambda one: one.body.get("message_id") == sent, 30)
        began = time.monotonic()
        worker.signal(signal.SIGTERM)
        assert worker.terminate() == 0
        took = time.monotonic() - began
        simulated.clear_faults()
        assert took < DRAIN_LIMIT + 3 < GRACE
        workshop.worker(ECS_COMMAND_TIMEOUT="300")
        assert requester.result_of(command, 90).body["code"] == 200
        assert requester.order_result_of(sent, 90).body["code"] == 200
        assert tenant.actions(stopped).count("stop") == 1
        assert tenant.server(renewed)["metadata"]["next_fee_time"] == "2027-06-08 16:53:27"
    assert "worker.calls_abandoned" in workshop.logs()
