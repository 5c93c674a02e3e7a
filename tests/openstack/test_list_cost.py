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

#: Servers, the ids of all, volumes, floating IPs, routers, subnets; then ports, images; QoS policies where one is used.
MOST = 9
NUMBER = 100


@pytest.mark.timeout(900)
def test_a_page_of_a_hundred_servers_costs_no_more_calls_than_one_of_one(
    requester: Requester, tenant: Tenant, worker: WorkerProcess
) -> None:
    furnish(tenant)
    network = next(one.id for one in tenant.connection.network.networks() if one.name == "tenant-a-net")
    tenant.make_servers(NUMBER - 1, networks=[{"uuid": network}])
    requester.result_of(requester.command("image.list"))  # who the tenant is has been found out
    for size in (1, 10, NUMBER):
        time.sleep(10.5)  # what may be seconds old is asked for afresh
        servers = _listed(requester, worker, size, NUMBER, pageSize=size)
    _listed(requester, worker, 10, NUMBER, pageSize=10, pageNo=5)
    _listed(requester, worker, 10, NUMBER, pageSize=10, sortField="name")
    _listed(requester, worker, 1, 1, searchField="name", searchValue="furnished")
    _listed(requester, worker, 1, 1, searchField="uuid", searchValue=servers[0]["id"])
    _listed(requester, worker, 10, NUMBER, searchField="status", searchValue="active")
    _listed(requester, worker, 10, NUMBER, searchField="ip", searchValue="10.1.")
    assert all(one["nics"][0]["subnet_name"] == "tenant-a-subnet" for one in servers)
    assert _have_volumes(servers) == 1


def _listed(requester: Requester, worker: WorkerProcess, shown: int, least: int, **asked: Any) -> list[dict[str, Any]]:
    """The servers of a page, of so many in all at least; what it cost is printed."""
    before, begun = calls(worker, "GET"), time.monotonic()
    data = requester.result_of(requester.command("server.list", **asked)).body["data"]
    seconds, made = time.monotonic() - begun, calls(worker, "GET") - before
    print(f"\nserver.list {asked}: {made} calls, {seconds:.2f} s")
    assert (len(data["servers"]), data["totalCount"] >= least, made <= MOST) == (shown, True, True)
    servers: list[dict[str, Any]] = data["servers"]
    return servers


def _have_volumes(servers: list[dict[str, Any]]) -> int:
    return sum(bool(one["data_volumes"]) and bool(re.fullmatch("[0-9.]+", one["eip"]["ip_addr"])) for one in servers)
