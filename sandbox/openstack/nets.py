"""Neutron's data: networks and what hangs on them, each as the API shows it."""

import ipaddress
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import count
from typing import Any

Thing = dict[str, Any]


class Nets:
    """All networks, subnets, ports, routers and floating IPs, by id."""

    def __init__(self) -> None:
        self.networks: dict[str, Thing] = {}
        self.subnets: dict[str, Thing] = {}
        self.ports: dict[str, Thing] = {}
        self.routers: dict[str, Thing] = {}
        self.floating_ips: dict[str, Thing] = {}
        self.security_groups: dict[str, Thing] = {}
        self._addresses: dict[str, Iterator[ipaddress.IPv4Address]] = {}
        self._macs = count(1)

    def restore(self, things: Mapping[str, dict[str, Thing]]) -> None:
        """Have these things of each kind, and give no address away that one of them has."""
        for kind, found in things.items():
            kept: dict[str, Thing] = getattr(self, kind)
            kept.clear()
            kept.update(found)
        taken = {one["ip_address"] for port in self.ports.values() for one in port["fixed_ips"]}
        taken |= {one["floating_ip_address"] for one in self.floating_ips.values()}
        self._macs = count(len(self.ports) + 1)
        for subnet in self.subnets.values():
            hosts = ipaddress.IPv4Network(subnet["cidr"]).hosts()
            next(hosts)
            self._addresses[subnet["id"]] = (one for one in hosts if str(one) not in taken)

    def add_network(self, project_id: str, name: str, *, external: bool = False) -> Thing:
        """A network."""
        return _kept(
            self.networks,
            project_id,
            name=name,
            status="ACTIVE",
            subnets=[],
            shared=False,
            admin_state_up=True,
            **{"router:external": external},
        )

    def add_subnet(self, project_id: str, network_id: str, name: str, cidr: str) -> Thing:
        """A subnet of IPv4; its first address is the gateway's."""
        hosts = (host for host in ipaddress.IPv4Network(cidr).hosts())
        made = _kept(
            self.subnets,
            project_id,
            name=name,
            network_id=network_id,
            cidr=cidr,
            ip_version=4,
            gateway_ip=str(next(hosts)),
            enable_dhcp=True,
        )
        self._addresses[made["id"]] = hosts
        network = self.networks[network_id]
        network["subnets"].append(made["id"])
        made["router:external"] = network["router:external"]
        return made

    def add_port(
        self,
        project_id: str,
        network_id: str,
        device_id: str,
        owner: str,
        address: str | None = None,
        **fields: Any,
    ) -> Thing:
        """A port with an address of each subnet of the network, or of the one that is named."""
        wanted = fields.pop("fixed_ips", None)
        subnets = (
            [one["subnet_id"] for one in wanted] if wanted else self.networks[network_id]["subnets"]
        )
        fixed = [
            {"subnet_id": one, "ip_address": address or str(next(self._addresses[one]))}
            for one in subnets
        ]
        high, low = divmod(next(self._macs), 256)
        usual = {
            "name": "",
            "network_id": network_id,
            "device_id": device_id,
            "device_owner": owner,
            "status": "ACTIVE",
            "security_groups": [
                one["id"] for one in self.groups_of(project_id) if one["name"] == "default"
            ],
        }
        mac = f"fa:16:3e:00:{high:02x}:{low:02x}"
        return _kept(
            self.ports, project_id, **{**usual, **fields, "mac_address": mac, "fixed_ips": fixed}
        )

    def add_group(self, project_id: str, name: str) -> Thing:
        """A security group."""
        return _kept(
            self.security_groups, project_id, name=name, stateful=True, security_group_rules=[]
        )

    def groups_of(self, project_id: str) -> list[Thing]:
        """A project's security groups, among them its default one."""
        mine = [one for one in self.security_groups.values() if one["project_id"] == project_id]
        return mine or [self.add_group(project_id, "default")]

    def add_router(self, project_id: str, name: str, subnet: Thing) -> Thing:
        """A router that joins a subnet."""
        made = _kept(self.routers, project_id, name=name, status="ACTIVE", admin_state_up=True)
        self.add_port(
            project_id,
            subnet["network_id"],
            made["id"],
            "network:router_interface",
            address=subnet["gateway_ip"],
        )
        return made

    def add_floating_ip(
        self, project_id: str, network_id: str, port_id: str | None, description: str
    ) -> Thing:
        """A floating IP, of a port's first address where one is named."""
        (subnet_id,) = self.networks[network_id]["subnets"]
        port = self.ports.get(port_id or "")
        return _kept(
            self.floating_ips,
            project_id,
            floating_network_id=network_id,
            port_id=port_id,
            description=description,
            floating_ip_address=str(next(self._addresses[subnet_id])),
            status="ACTIVE",
            qos_policy_id=None,
            fixed_ip_address=port["fixed_ips"][0]["ip_address"] if port else None,
        )

    def remove(self, thing_id: str) -> None:
        """Take something away, and what cannot be without it."""
        for things in (
            self.networks,
            self.subnets,
            self.ports,
            self.routers,
            self.floating_ips,
            self.security_groups,
        ):
            things.pop(thing_id, None)
        for subnet in [one for one in self.subnets.values() if one["network_id"] == thing_id]:
            del self.subnets[subnet["id"]]
        for one in self.floating_ips.values():
            if one["port_id"] == thing_id:
                one["port_id"] = one["fixed_ip_address"] = None

    def addresses_of(self, device_id: str) -> dict[str, list[Thing]]:
        """A server's addresses by the names of its networks, as Nova lists them."""
        found: dict[str, list[Thing]] = {}
        for port in [one for one in self.ports.values() if one["device_id"] == device_id]:
            listed = found.setdefault(self.networks[port["network_id"]]["name"], [])
            mine = [one for one in self.floating_ips.values() if one["port_id"] == port["id"]]
            kinds = [("fixed", one["ip_address"]) for one in port["fixed_ips"]]
            kinds += [("floating", one["floating_ip_address"]) for one in mine]
            listed += [
                {
                    "version": 4,
                    "addr": address,
                    "OS-EXT-IPS:type": kind,
                    "OS-EXT-IPS-MAC:mac_addr": port["mac_address"],
                }
                for kind, address in kinds
            ]
        return found


def _kept(things: dict[str, Thing], project_id: str, **fields: Any) -> Thing:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    made = {
        "id": str(uuid.uuid4()),
        "project_id": project_id,
        "tenant_id": project_id,
        "description": "",
        "tags": [],
        "created_at": now,
        "updated_at": now,
        **fields,
    }
    things[made["id"]] = made
    return made
