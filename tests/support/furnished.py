"""A server that has everything a view can show: volumes, two networks, a floating IP, a key pair,
fee data.
"""

from dataclasses import dataclass
from typing import Any

from tests.support.tenant import COMPUTE, Tenant

FEES = {
    "charge_type": "monthly",
    "purchase_time": "1",
    "start_fee_time": "2026-11-01 08:00:00",
    "next_fee_time": "2026-12-01 08:00:00",
    "keycloak_user_id": "f679eb23-f74d-477a-a31f-a656d71604ed",
    "keycloak_user_name": "gaoss",
}


@dataclass(frozen=True, slots=True)
class Furnished:
    """Holds what was made."""

    server_id: str
    first: dict[str, Any]
    second: dict[str, Any]
    router: dict[str, Any]
    floating_ip: dict[str, Any]


def furnish(tenant: Tenant, name: str = "furnished") -> Furnished:
    """Make such a server; what it takes is deleted with the tenant's other things."""
    networks = {one["name"]: one for one in _get(tenant, "networks")}
    first = next(
        one
        for one in _get(tenant, "subnets")
        if one["network_id"] == networks["tenant-a-net"]["id"]
    )
    second = _second_subnet(tenant)
    key = {"keypair": {"name": "sshkey-123", "type": "ssh", "public_key": _KEY}}
    made = tenant.connection.compute.post("/os-keypairs", json=key, microversion=COMPUTE)
    assert made.status_code == 201, made.text
    tenant.later("compute", "/os-keypairs/sshkey-123")
    server_id = tenant.make_server(
        name=name,
        disk=10,
        data=(("SSD", 1), ("SATA", 2)),
        metadata=FEES,
        key_name="sshkey-123",
        networks=[{"uuid": first["network_id"]}, {"uuid": second["network_id"]}],
    )
    port = next(
        one
        for one in _get(tenant, f"ports?device_id={server_id}")
        if one["network_id"] == first["network_id"]
    )
    floating_ip = _post(
        tenant,
        "floatingip",
        floating_network_id=networks["public"]["id"],
        port_id=port["id"],
        description="iptype=5 _bgp bandwidth=10 chargemode=Bandwidth",
    )
    tenant.later("network", f"/floatingips/{floating_ip['id']}")
    (router,) = _get(tenant, "routers")
    return Furnished(server_id, first, second, router, floating_ip)


def _second_subnet(tenant: Tenant) -> dict[str, Any]:
    network = _post(tenant, "network", name="second-net")
    tenant.later("network", f"/networks/{network['id']}")
    return _post(
        tenant,
        "subnet",
        network_id=network["id"],
        name="second-subnet",
        ip_version=4,
        cidr="10.99.0.0/24",
    )


def _get(tenant: Tenant, path: str) -> list[dict[str, Any]]:
    answer = tenant.connection.network.get(f"/{path}")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()[path.partition("?")[0]]
    return found


def _post(tenant: Tenant, kind: str, **fields: Any) -> dict[str, Any]:
    answer = tenant.connection.network.post(f"/{kind}s", json={kind: fields})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()[kind]
    return made


# of nobody
_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKr0Vb3ZbMZYd4Vq6nYQJQ3uW8jv0n5mJw0o3m3mZl8s test"
