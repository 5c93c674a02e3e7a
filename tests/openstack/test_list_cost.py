"""A page of servers costs a constant number of calls, whatever is on it."""

import re
import time
from typing import Any

import pytest

from sandbox.requester import Requester
from sandbox.worker import WorkerProcess
from tests.furnished import furnish
from tests.openstack.test_batch import calls
from tests.tenant import Tenant

#: Servers, their hosts, volumes, floating IPs, routers, subnets; then ports, images; QoS policies where one is used.
MOST = 9
NUMBER = 100


@pytest.mark.timeout(900)
def test_a_page_of_a_hundred_servers_costs_no_more_calls_than_one_of_one(
    requester: Requester, tenant: Tenant, worker: WorkerProcess
) -> None:
    furnish(tenant)
    network = next(one.id for one in tenant.connection.network.networks() if one.name == "tenant-a-net")
    tenant.make_servers(NUMBER - 1, networks=[{"uuid": network}])
    time.sleep(10.5)  # what may be seconds old is asked for afresh
    for size in (1, 10, NUMBER):
        before, begun = calls(worker, "GET"), time.monotonic()
        answer = requester.result_of(requester.command("server.list", pageSize=size)).body
        seconds, made = time.monotonic() - begun, calls(worker, "GET") - before
        print(f"\nserver.list of {size}: {made} calls, {seconds:.2f} s")
        servers = answer["data"]["servers"]
        assert (len(servers), answer["data"]["totalCount"] >= NUMBER) == (size, True)
        assert made <= MOST
    assert all(one["nics"][0]["subnet_name"] == "tenant-a-subnet" for one in servers)
    assert _have_volumes(servers) == 1


def _have_volumes(servers: list[dict[str, Any]]) -> int:
    return sum(bool(one["data_volumes"]) and bool(re.fullmatch("[0-9.]+", one["eip"]["ip_addr"])) for one in servers)
