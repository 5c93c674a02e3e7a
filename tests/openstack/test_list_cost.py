"""A page of servers costs a constant number of calls, whatever is on it."""

import re
import time
from typing import Any

import pytest

from sandbox.control_plane import ControlPlane
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester
from tests.support.furnished import furnish
from tests.support.tenant import Tenant
from tests.support.workshop import Workshop

pytestmark = pytest.mark.slow

#: Servers, the ids of all, volumes, ports, floating IPs, routers, subnets; then images, and the
#: page's ports where the project has many more; QoS policies where one is used.
MOST = 10
#: Servers in all. A page of a hundred would keep the real control plane busy for minutes, and shows
#: nothing else.
NUMBER, REAL_NUMBER = 100, 25


@pytest.mark.long_on_real
@pytest.mark.timeout(900)
def test_a_long_page_of_servers_costs_no_more_calls_than_one_of_one(
    shop: Workshop, requester: Requester, tenant: Tenant, cloud: SimulatedOpenStack | ControlPlane
) -> None:
    number = NUMBER if isinstance(cloud, SimulatedOpenStack) else REAL_NUMBER
    furnish(tenant)
    network = next(
        one.id for one in tenant.connection.network.networks() if one.name == "tenant-a-net"
    )
    tenant.make_servers(number - 1, networks=[{"uuid": network}])
    requester.result_of(requester.command("image.list"))  # who the tenant is has been found out
    for size in (1, 10, number):
        time.sleep(10.5)  # what may be seconds old is asked for afresh
        servers = _listed(shop, requester, size, number, pageSize=size)
    _listed(shop, requester, 10, number, pageSize=10, pageNo=2)
    _listed(shop, requester, 10, number, pageSize=10, sortField="name")
    _listed(shop, requester, 1, 1, searchField="name", searchValue="furnished")
    _listed(shop, requester, 1, 1, searchField="uuid", searchValue=servers[0]["id"])
    _listed(shop, requester, 10, number, searchField="status", searchValue="active")
    _listed(shop, requester, 10, number, searchField="ip", searchValue="10.1.")
    assert all(one["nics"][0]["subnet_name"] == "tenant-a-subnet" for one in servers)
    assert _have_volumes(servers) == 1


def _listed(
    shop: Workshop, requester: Requester, shown: int, least: int, **asked: Any
) -> list[dict[str, Any]]:
    """The servers of a page, of so many in all at least; what it cost is printed."""
    begun, message_id = time.monotonic(), requester.command("server.list", **asked)
    data = requester.result_of(message_id).body["data"]
    seconds, made = time.monotonic() - begun, shop.calls_of(message_id)["GET"]
    print(f"\nserver.list {asked}: {made} calls, {seconds:.2f} s")
    assert (len(data["servers"]), data["totalCount"] >= least, made <= MOST) == (shown, True, True)
    servers: list[dict[str, Any]] = data["servers"]
    return servers


def _have_volumes(servers: list[dict[str, Any]]) -> int:
    return sum(
        bool(one["data_volumes"]) and bool(re.fullmatch("[0-9.]+", one["eip"]["ip_addr"]))
        for one in servers
    )
