"""Neutron: the calls that are made. Their answers are left as Neutron writes them.

Networks, subnets and ports every Neutron has. All else comes with extensions, any of which a cloud
may be without: then there is nothing of it. A filter that an extension adds may be ignored, so what
it asks for is looked for again.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal

from handlers.openstack.errors import Forbidden, NotFound
from handlers.openstack.project import Project
from handlers.openstack.sessions import Reply, Service

#: A resource as Neutron writes it.
Resource = Mapping[str, Any]
#: Ids in one call; a URL has an end.
_IDS = 150


async def list_ports(
    project: Project, field: Literal["device_id", "id"], values: Iterable[str]
) -> list[Resource]:
    """List the ports of servers and routers (`device_id`), or those of some ports that there are.

    A call for each hundred and fifty values, none for none.
    """
    wanted = sorted(set(values))
    found: list[Resource] = []
    for begin in range(0, len(wanted), _IDS):
        filters: Mapping[str, Any] = {field: wanted[begin : begin + _IDS]}
        found += await project.get_all(Service.NETWORK, "/ports", "ports", filters)
    return found


async def list_few_ports(project: Project, limit: int) -> list[Resource] | None:
    """List the project's own ports in one call; None where there may be `limit` or more."""
    filters: Mapping[str, Any] = {"project_id": project.id, "limit": limit}
    reply = await project.get(Service.NETWORK, "/ports", filters)
    # A cloud may allow fewer in one page than our limit.
    links = reply.body.get("ports_links") or ()
    found: list[Resource] = reply.body["ports"]
    return None if any(link["rel"] == "next" for link in links) else found


async def list_ports_described(project: Project, description: str) -> list[Resource]:
    """List the project's ports with this description."""
    filters = {"description": description, "project_id": project.id}
    found = await project.get_all(Service.NETWORK, "/ports", "ports", filters)
    return [one for one in found if one.get("description") == description]


async def create_port(
    project: Project,
    *,
    network_id: str,
    subnet_id: str,
    name: str,
    description: str,
    security_groups: Iterable[str],
) -> Reply:
    """Make a port with an address of this subnet, and these security groups (none: the default);
    `body["port"]["id"]`.
    """
    wanted: dict[str, Any] = {
        "network_id": network_id,
        "fixed_ips": [{"subnet_id": subnet_id}],
        "name": name,
        "description": description,
    }
    groups = list(security_groups)
    return await project.post(
        Service.NETWORK,
        "/ports",
        {"port": wanted | ({"security_groups": groups} if groups else {})},
    )


async def delete_port(project: Project, port_id: str) -> Reply:
    """Delete a port; `NotFound` where it is gone."""
    return await project.delete(Service.NETWORK, f"/ports/{port_id}")


async def release_floating_ip(project: Project, floating_ip_id: str) -> Reply:
    """Take a floating IP off its port; doing it twice is doing it once."""
    return await project.put(
        Service.NETWORK, f"/floatingips/{floating_ip_id}", {"floatingip": {"port_id": None}}
    )


async def is_released(project: Project, floating_ip_id: str, ports: Collection[str]) -> bool:
    """Return True where a floating IP is on none of these ports, or is gone."""
    filters = {"id": floating_ip_id}
    found = await project.get_all_if_offered(
        Service.NETWORK, "/floatingips", "floatingips", filters
    )
    return all(one["port_id"] not in ports for one in found)


async def list_networks(project: Project) -> list[Resource]:
    """List the project's own and the shared networks, without external ones."""
    found = await project.get_all(Service.NETWORK, "/networks", "networks", {})
    return [
        one
        for one in found
        if not one.get("router:external") and (one["project_id"] == project.id or one.get("shared"))
    ]


async def list_security_groups(project: Project) -> list[Resource]:
    """List the project's security groups."""
    filters = {"project_id": project.id}
    return await project.get_all_if_offered(
        Service.NETWORK, "/security-groups", "security_groups", filters
    )


async def ports_left(project: Project) -> int | None:
    """Return the rest of the quota of ports; None where there is no limit, or it is not told."""
    try:
        reply = await project.get(Service.NETWORK, f"/quotas/{project.id}/details.json")
    except (NotFound, Forbidden):
        return None
    quota = reply.body["quota"]["port"]
    left: int = quota["limit"] - quota["used"] - quota["reserved"]
    return left if quota["limit"] >= 0 else None


async def list_floating_ips(project: Project) -> list[Resource]:
    """List the project's floating IPs."""
    filters = {"project_id": project.id}
    return await project.get_all_if_offered(Service.NETWORK, "/floatingips", "floatingips", filters)


async def list_subnets(project: Project) -> list[Resource]:
    """List the subnets that the project may use; seconds old."""
    return await project.recent.get("subnets", lambda: list_subnets_now(project))


async def list_subnets_now(project: Project) -> list[Resource]:
    """List the subnets afresh: an order must not be refused for one made a moment ago."""
    return await project.get_all(Service.NETWORK, "/subnets", "subnets", {})


async def list_routers(project: Project) -> list[Resource]:
    """List the project's routers; seconds old."""
    filters = {"project_id": project.id}
    return await project.recent.get(
        "routers",
        lambda: project.get_all_if_offered(Service.NETWORK, "/routers", "routers", filters),
    )


async def list_policies(project: Project) -> list[Resource]:
    """List the QoS policies that the project may use, with their rules; seconds old."""
    return await project.recent.get(
        "policies",
        lambda: project.get_all_if_offered(Service.NETWORK, "/qos/policies", "policies", {}),
    )
