"""`new` orders, and the cloud's own records of what they made."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sandbox.documents import REGION
from tests.support.orders import paid
from tests.support.tenant import COMPUTE, VOLUME, Tenant

#: 1 CPU, 1 GiB; 2 GiB of system disk, 1 GiB of data.
ITEMS = (
    ("std_1C1G", "S1.small.1"),
    ("CPU", "1"),
    ("memory", "1"),
    ("sys_EBS_SATA", "2"),
    ("data_EBS_SSD", "1"),
)


def new(
    tenant: Tenant,
    *items: tuple[str, str],
    sets: int = 1,
    count: int = 1,
    chosen: dict[str, Any] | None = None,
    image: str | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """An order for so many servers with these items besides the image."""
    listed = [{"code": code, "value": value, "name": code} for code, value in items or ITEMS]
    named = {"code": "image_Linux", "value": image or tenant.image, "name": "Linux"}
    product = {
        "region": REGION,
        "availableZone": "",
        "productLineCode": "ECS",
        "productTypeCode": "ECS_std",
        "instanceCount": str(count),
        "itemList": [*listed, named],
    }
    order = paid(
        "new", setCount=str(sets), consoleCustomization=chosen or {}, duration="1", durationUnit="M"
    )
    return order | {"productList": [product]} | fields


@dataclass(frozen=True, slots=True)
class Records:
    """The ids of all that a tenant has."""

    servers: frozenset[str]
    volumes: frozenset[str]
    ports: frozenset[str]
    floating_ips: frozenset[str]

    def __sub__(self, before: "Records") -> "Records":
        """Return what has come since."""
        return Records(
            self.servers - before.servers,
            self.volumes - before.volumes,
            self.ports - before.ports,
            self.floating_ips - before.floating_ips,
        )


NOTHING = Records(frozenset(), frozenset(), frozenset(), frozenset())


def records(tenant: Tenant) -> Records:
    """Return what there is, as Nova, Cinder and Neutron list it."""
    connection = tenant.connection
    servers = connection.compute.get("/servers/detail", microversion=COMPUTE).json()["servers"]
    volumes = connection.block_storage.get("/volumes/detail", microversion=VOLUME).json()["volumes"]
    ports = connection.network.get(f"/ports?project_id={tenant.project_id}").json()["ports"]
    floating_ips = connection.network.get(f"/floatingips?project_id={tenant.project_id}").json()[
        "floatingips"
    ]
    return Records(
        frozenset(one["id"] for one in servers if one["status"] != "DELETED"),
        *(frozenset(one["id"] for one in found) for found in (volumes, ports, floating_ips)),
    )


def volume(tenant: Tenant, volume_id: str) -> dict[str, Any]:
    """A volume as Cinder shows it."""
    answer = tenant.connection.block_storage.get(f"/volumes/{volume_id}", microversion=VOLUME)
    found: dict[str, Any] = answer.json()["volume"]
    return found


def ports_of(tenant: Tenant, server_id: str) -> list[dict[str, Any]]:
    """A server's ports as Neutron shows them."""
    found: list[dict[str, Any]] = tenant.connection.network.get(
        f"/ports?device_id={server_id}"
    ).json()["ports"]
    return found


def delete_all(tenant: Tenant, made: Records) -> None:
    """Take away what an order made."""
    for server_id in made.servers:
        tenant.adopt(server_id)


def used(tenant: Tenant, service: str, name: str) -> int:
    """Return what the tenant has of a quota of Nova's or Cinder's, or of Neutron's ports."""
    if service == "network":
        assert name == "port"
        return len(tenant.ports())
    if service == "compute":
        limits = tenant.connection.compute.get("/limits", microversion=COMPUTE).json()["limits"][
            "absolute"
        ]
        known = {
            "instances": "totalInstancesUsed",
            "cores": "totalCoresUsed",
            "ram": "totalRAMUsed",
        }
        return int(limits[known[name]])
    path = f"/os-quota-sets/{tenant.project_id}?usage=True"
    shown = tenant.connection.block_storage.get(path, microversion=VOLUME).json()["quota_set"][name]
    return int(shown["in_use"]) + int(shown["reserved"])


@contextmanager
def quota(tenant: Tenant, admin: Tenant, service: str, **most: int) -> Iterator[None]:
    """The tenant may have no more than this of Nova's, Cinder's or Neutron's; afterwards as much as
    before.
    """
    path, version = (
        f"/os-quota-sets/{tenant.project_id}",
        {"compute": COMPUTE, "block_storage": VOLUME}.get(service),
    )
    usual = {"instances": 2000, "cores": 20000, "ram": 40_000_000, "metadata_items": 128}

    def put(values: dict[str, Any]) -> None:
        if service == "network":
            answer = admin.connection.network.put(
                f"/quotas/{tenant.project_id}", json={"quota": values}
            )
        else:
            # `force`: also where more than that is used.
            body = {"quota_set": values | ({"force": True} if service == "compute" else {})}
            answer = getattr(admin.connection, service).put(path, json=body, microversion=version)
        assert answer.status_code == 200, answer.text

    try:
        put(most)
        yield
    finally:
        put({name: usual.get(name, -1) for name in most})


Change = Callable[[dict[str, Any]], Any]
