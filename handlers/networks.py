"""Neutron: the calls that are made. What is read is left as Neutron writes it."""

from collections.abc import Iterable, Mapping
from typing import Any

from handlers.cloud import Project, Service

Thing = Mapping[str, Any]
#: Ids in one call; a URL has an end.
_IDS = 150


async def list_ports(project: Project, device_ids: Iterable[str]) -> list[Thing]:
    """The ports of these servers and routers; a call for each hundred and fifty of them, none for none."""
    wanted = sorted(set(device_ids))
    found: list[Thing] = []
    for begin in range(0, len(wanted), _IDS):
        found += await project.get_all(Service.NETWORK, "/ports", "ports", {"device_id": wanted[begin : begin + _IDS]})
    return found


async def list_floating_ips(project: Project) -> list[Thing]:
    """The project's floating IPs."""
    return await project.get_all(Service.NETWORK, "/floatingips", "floatingips", {"project_id": project.id})


async def list_subnets(project: Project) -> list[Thing]:
    """The subnets that the project may use; seconds old."""
    return await project.recent.get("subnets", lambda: project.get_all(Service.NETWORK, "/subnets", "subnets", {}))


async def list_routers(project: Project) -> list[Thing]:
    """The project's routers; seconds old."""
    return await project.recent.get(
        "routers", lambda: project.get_all(Service.NETWORK, "/routers", "routers", {"project_id": project.id})
    )


async def list_policies(project: Project) -> list[Thing]:
    """The QoS policies that the project may use, with their rules; seconds old."""
    return await project.recent.get(
        "policies", lambda: project.get_all(Service.NETWORK, "/qos/policies", "policies", {})
    )
