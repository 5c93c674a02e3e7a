"""A server as the API document shows it. Pure: from OpenStack's own words to the document's;
unknown is null.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import field
from datetime import UTC, tzinfo
from typing import Any

from handlers.openstack.cinder import Volume
from handlers.openstack.glance import Image
from handlers.openstack.neutron import Resource
from handlers.openstack.nova import Server
from handlers.servers.disks import image_of, system_and_data
from handlers.servers.fee_data import shown
from messages import views
from messages.record import record
from messages.updates import server_words

#: Items of a server's metadata that are shown.
_FEE_ITEMS = ("charge_type", "purchase_time", "start_fee_time", "next_fee_time")
#: `bandwidth=10`, `chargemode: Bandwidth`, `iptype=5 _bgp`: in a tag or in the description of a
#: floating IP. A value may hold blanks: it ends at a comma, a semicolon, a line's end, or where the
#: next name and its sign begin.
_NOTE = re.compile(
    r"\b(bandwidth|chargemode|iptype)\s*[=:：]\s*([^\s,;，；].*?)(?=\s*(?:[,;，；\r\n]|\s[\w.-]+\s*[=:：]|$))",
    re.IGNORECASE | re.MULTILINE,
)
#: A number of Mbit/s, with its unit or words behind it.
_MEGABITS = re.compile(r"([0-9]{1,9})(?:\s|M|$)", re.IGNORECASE)
_KILO = 1000
#: What owns the port by which a router joins a subnet: a plain router, a distributed, a highly
#: available one.
_JOINTS = frozenset(
    {
        "network:router_interface",
        "network:router_interface_distributed",
        "network:ha_router_replicated_interface",
    }
)


@record
class ViewSources:
    """The sources of a server's view besides the server itself; the mappings are by id."""

    region: str
    volumes: Mapping[str, Volume]
    images: Mapping[str, Image]
    subnets: Mapping[str, Resource]
    routers: Mapping[str, Resource]
    #: Of servers and of routers.
    ports: Iterable[Resource]
    floating_ips: Iterable[Resource]
    policies: Mapping[str, Resource]
    #: Names by the ids that a tenant sees.
    hosts: Mapping[str, str]
    #: Ids of images by those of the snapshots that they consist of.
    images_of_snapshots: Mapping[str, str] = field(default_factory=dict)
    #: The billing time zone, in which the times of fee data are shown.
    zone: tzinfo = UTC


def server_view(server: Server, sources: ViewSources) -> views.Server:
    """Return the server as the API document has it, in table and examples together."""
    return views.Server(**_fields(server, sources))


def server_details(server: Server, sources: ViewSources) -> views.ServerDetails:
    """Return the view of a single server, with its owner in the console."""
    return views.ServerDetails(
        keycloak_user_id=server.metadata.get("keycloak_user_id"),
        keycloak_user_name=server.metadata.get("keycloak_user_name"),
        **_fields(server, sources),
    )


def _fields(server: Server, sources: ViewSources) -> dict[str, Any]:
    body = server.body
    attached = [sources.volumes[one] for one in server.volume_ids if one in sources.volumes]
    system, data = system_and_data(server, attached)
    ports = _ports_in_order(server, sources)
    vpc = _vpc(ports, sources)
    fees = {name: shown(server.metadata.get(name), sources.zone) for name in _FEE_ITEMS}
    return {
        "region_id": sources.region,
        "region_id_too": sources.region,
        "availability_zone": body.get("OS-EXT-AZ:availability_zone") or None,
        "name": body.get("name"),
        "id": server.id,
        "status": server.status.lower(),
        "translation": server_words(server.status, server.task_state),
        "task_state": server.task_state,
        "image": _image(image_of(server, system, sources.images_of_snapshots), system, sources),
        "root_volume": _root(server, system),
        "data_volumes": [
            views.DataVolume(volume_type=one.volume_type, id=one.id, name=one.name, size=one.size)
            for one in data
        ],
        "flavor": {name: body["flavor"].get(name) for name in views.Flavor.model_fields},
        "security_groups": [
            views.SecurityGroup(name=name)
            for name in dict.fromkeys(one["name"] for one in body.get("security_groups") or ())
        ],
        "vpc_id": vpc.get("id"),
        "vpc_name": vpc.get("name"),
        "nics": [nic for port in ports for nic in _nics(port, sources)],
        "eip": _eip({port["id"] for port in ports}, sources),
        "key_name": body.get("key_name"),
        "fee_data": fees,
        "created": body.get("created"),
        "host_id": body.get("hostId") or None,
        "host": sources.hosts.get(body.get("hostId") or ""),
    }


def inner_addresses(server: Server) -> list[str]:
    """Its IP addresses in its own networks, as Nova knows them; floating ones are not among them."""
    networks = server.body.get("addresses") or {}
    return [
        one["addr"]
        for network in networks.values()
        for one in network
        if one.get("OS-EXT-IPS:type") != "floating"
    ]


def mac_addresses(server: Server) -> list[str]:
    """Its ports' MAC addresses in their order, as Nova knows them; one for each IP address."""
    networks = (server.body.get("addresses") or {}).values()
    found = [one.get("OS-EXT-IPS-MAC:mac_addr") for network in networks for one in network]
    return [one for one in found if one is not None]


def image_words_of(properties: Mapping[str, Any]) -> dict[str, str | None]:
    """`system` and `systemType` of an image: its own properties, else those of OpenStack."""
    return {
        "system": properties.get("system") or properties.get("os_distro"),
        "systemType": properties.get("systemType") or properties.get("os_type"),
    }


def _image(
    image_id: str | None, system: Volume | None, sources: ViewSources
) -> views.ServerImage | None:
    """The image's view; None where none is known. A deleted image is known by the volume."""
    if image_id is None:
        return None
    image = sources.images.get(image_id)
    remembered: Mapping[str, Any] = system.image if system is not None else {}
    properties = image.body if image is not None else remembered
    words = image_words_of(properties)
    return views.ServerImage(
        id=image_id,
        name=image.name if image is not None else remembered.get("image_name"),
        system=words["system"],
        system_type=words["systemType"],
        tags=list(image.body["tags"]) if image is not None else None,
    )


def _root(server: Server, system: Volume | None) -> views.RootVolume:
    if system is not None:
        return views.RootVolume(volume_type=system.volume_type, size=system.size)
    size = server.disk if server.image_id is not None else None
    return views.RootVolume(volume_type=None, size=size)


def _ports_in_order(server: Server, sources: ViewSources) -> list[Resource]:
    """The ports in the server's order: Nova lists the addresses so. Neutron's times are too coarse."""
    macs = mac_addresses(server)
    places = {mac: place for place, mac in reversed(list(enumerate(macs)))}
    ports = [port for port in sources.ports if port["device_id"] == server.id]
    return sorted(
        ports,
        key=lambda one: (
            places.get(one["mac_address"], len(macs)),
            one.get("created_at") or "",
            one["id"],
        ),
    )


def _vpc(ports: Iterable[Resource], sources: ViewSources) -> Resource:
    """The router that joins the first subnet."""
    first = next((one["subnet_id"] for port in ports for one in port["fixed_ips"]), None)
    for port in sources.ports:
        joins = port["device_id"] in sources.routers and port["device_owner"] in _JOINTS
        if joins and any(one["subnet_id"] == first for one in port["fixed_ips"]):
            return sources.routers[port["device_id"]]
    return {}


def _nics(port: Resource, sources: ViewSources) -> list[views.Nic]:
    """One for each address of a port; one without an address for a port that has none."""
    return [
        views.Nic(
            subnet_id=address.get("subnet_id"),
            subnet_name=subnet.get("name"),
            subnet_cidr=subnet.get("cidr"),
            network_id=port["network_id"],
            mac_address=port["mac_address"],
            fixed_ip=address.get("ip_address"),
            port_id=port["id"],
        )
        for address in port["fixed_ips"] or [{}]
        for subnet in [sources.subnets.get(address.get("subnet_id", ""), {})]
    ]


def _eip(port_ids: set[str], sources: ViewSources) -> views.Eip | None:
    found = [one for one in sources.floating_ips if one.get("port_id") in port_ids]
    if not found:
        return None
    one = min(found, key=lambda each: (each.get("created_at") or "", each["id"]))
    notes = _notes(one)
    limit = _limit(sources.policies.get(policy_of(one) or "", {}))
    noted = _MEGABITS.match(notes.get("bandwidth", ""))
    return views.Eip(
        id=one["id"],
        ip_type=notes.get("iptype"),
        bandwidth=limit or (int(noted[1]) if noted else None),
        charge_mode=notes.get("chargemode"),
        address=one["floating_ip_address"],
    )


def policy_of(floating_ip: Resource) -> str | None:
    """The id of the QoS policy that it is under: its own, else that of its network."""
    return floating_ip.get("qos_policy_id") or floating_ip.get("qos_network_policy_id")


def _notes(floating_ip: Resource) -> dict[str, str]:
    """Notes in the tags and the description; a tag takes precedence."""
    texts = [floating_ip.get("description") or "", *(floating_ip.get("tags") or ())]
    return {name.lower(): value for text in texts for name, value in _NOTE.findall(text)}


def _limit(policy: Resource) -> int | None:
    """Mbit/s of a policy: its bandwidth rule, that of outgoing traffic where there are two."""
    rules = [rule for rule in policy.get("rules") or () if rule.get("max_kbps")]
    rules.sort(key=lambda rule: rule.get("direction") != "egress")
    return int(rules[0]["max_kbps"]) // _KILO if rules else None
