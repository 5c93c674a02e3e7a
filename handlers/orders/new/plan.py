"""What a `new` order would make, found out wholly before anything is made."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from handlers.context import MARK, PART, ProjectContext
from handlers.openstack import cinder, neutron, nova
from handlers.openstack.errors import NotFound
from handlers.openstack.neutron import Thing
from handlers.openstack.nova import Flavor
from handlers.orders.billing import NEXT_FEE_TIME, START_FEE_TIME, local_time, written
from handlers.orders.items import check_size, ordered_flavor
from handlers.orders.limits import Demand, DiskDemand, check_quotas
from handlers.orders.new.disks import Disk, DiskOffers, plan_disks
from messages.errors import wrong
from messages.orders import NewProduct, OrderNew

#: The items of metadata that say for how long a server is paid for.
FEE_TIMES = (START_FEE_TIME, NEXT_FEE_TIME)


@dataclass(frozen=True, slots=True)
class NewServer:
    """A server to be made, the `number`th of the order (from 1), of the set and the product with
    these indices.
    """

    number: int
    set_index: int
    product_index: int
    name: str
    flavor_id: str
    zone: str | None
    disks: tuple[Disk, ...]


@dataclass(frozen=True, slots=True)
class CreationPlan:
    """All that is to be made. With a subnet each server gets a port of ours, otherwise Nova makes
    one.
    """

    servers: tuple[NewServer, ...]
    network_id: str
    subnet_id: str | None
    security_groups: tuple[str, ...]
    purchase_time: str
    user_name: str | None
    #: An earlier run, of which the journal knows nothing, has made it all.
    is_made: bool = False
    #: Reason and detail: an earlier run has made a part, and the rest cannot be made any more.
    refusal: tuple[str, str | None] | None = None

    def to_json(self) -> dict[str, Any]:
        """The record for the journal."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "CreationPlan":
        """What the journal kept."""
        servers = tuple(
            NewServer(**{**server, "disks": tuple(Disk(**disk) for disk in server["disks"])})
            for server in record["servers"]
        )
        groups, refusal = tuple(record["security_groups"]), record.get("refusal")
        known = {
            "servers": servers,
            "security_groups": groups,
            "refusal": refusal and tuple(refusal),
        }
        return cls(**record | known)


@dataclass(frozen=True, slots=True)
class _Model:
    """What each server of a product is made of."""

    flavor: Flavor
    zone: str | None
    disks: tuple[Disk, ...]


async def plan_creation(
    order: OrderNew, context: ProjectContext, *, is_begun: bool = False
) -> CreationPlan:
    """What is to be made, or `Refused`; `is_begun`: a part of it is there, and has taken its part
    of the quota.
    """
    with context.checks.of("secrets"):
        if order.secrets.withheld is not None:
            raise wrong(
                order.secrets.withheld, "it was masked on the way", reason="secret_withheld"
            )
    models = await _models(order, context)
    network_id, subnet_id, groups, _ = await asyncio.gather(
        _network(order, context),
        _subnet(order, context),
        _groups(order, context),
        _check_key(order, context),
    )
    servers = tuple(_servers(order, models))
    creation = CreationPlan(
        servers, network_id, subnet_id, groups, _paid_at(order, context), order.user_name
    )
    if not is_begun:
        items = [*metadata_of(servers[0], order, creation, context), *FEE_TIMES]
        await check_quotas(_demand(order, models, items), context)
    return creation


def metadata_of(
    server: NewServer, order: OrderNew, creation: CreationPlan, context: ProjectContext
) -> dict[str, str]:
    """The items of metadata that a server is made with; `FEE_TIMES` follow once all are there."""
    heading = order.heading
    known = {
        "charge_type": heading.bill_type,
        "purchase_time": creation.purchase_time,
        "keycloak_user_id": heading.user_id,
        "keycloak_user_name": creation.user_name,
    }
    marks = marks_of(str(server.number), order, context)
    return marks | {name: value for name, value in known.items() if value}


def marks_of(part: str, order: OrderNew, context: ProjectContext) -> dict[str, str]:
    """The items of metadata by which a part of what the order makes is found again."""
    return {"order_id": order.name, MARK: context.mark, PART: part}


def outline_creation(order: OrderNew, context: ProjectContext, **known: Any) -> CreationPlan:
    """The servers of the order by number and name alone; `known` is what else is known of their
    making.

    It is enough to tell what became of them, and to take them away.
    """
    models = [_Model(Flavor("", "", 0, 0, 0), None, ())] * len(order.products)
    servers = tuple(_servers(order, models))
    subnet_id = order.customization.subnet_id
    return CreationPlan(
        servers, "", subnet_id, (), _paid_at(order, context), order.user_name, **known
    )


def _paid_at(order: OrderNew, context: ProjectContext) -> str:
    """When the billing system says that it was paid; now, where it says nothing that could be read."""
    policy = context.policy
    return written(
        local_time(order.heading.status_time, policy.billing_zone) or policy.billing_now()
    )


def _servers(order: OrderNew, models: Sequence[_Model]) -> Iterator[NewServer]:
    number = 0
    for set_index in range(order.sets):
        for product_index, (product, model) in enumerate(zip(order.products, models, strict=True)):
            for _ in range(product.count):
                number += 1
                name = order.server_name(number)
                yield NewServer(
                    number, set_index, product_index, name, model.flavor.id, model.zone, model.disks
                )


# What the products are made of.


@dataclass(frozen=True, slots=True)
class _Offers:
    """What the cloud offers the project."""

    flavors: list[Flavor]
    zones: set[str]
    disks: DiskOffers


async def _models(order: OrderNew, context: ProjectContext) -> list[_Model]:
    is_zone_named = any(_zone(product, order) is not None for product in order.products)
    flavors, types, (zones, disk_zones) = await asyncio.gather(
        context.retrying(lambda: nova.list_flavors(context.project)),
        context.retrying(lambda: cinder.list_types(context.project)),
        _zones(is_zone_named, context),
    )
    offers = _Offers(flavors, zones, DiskOffers(frozenset(types), disk_zones))
    return [await _model(product, order, offers, context) for product in order.products]


async def _zones(is_zone_named: bool, context: ProjectContext) -> tuple[set[str], dict[str, bool]]:
    """Nova's zones that are available, and Cinder's; both are asked only where it matters."""
    if not is_zone_named:
        return set(), {}
    return await asyncio.gather(
        context.retrying(lambda: nova.list_zones(context.project)),
        context.retrying(lambda: cinder.list_zones(context.project)),
    )


def _zone(product: NewProduct, order: OrderNew) -> str | None:
    return product.zone or order.customization.zone


async def _model(
    product: NewProduct, order: OrderNew, offers: _Offers, context: ProjectContext
) -> _Model:
    with context.checks.of("flavor"):
        flavor = ordered_flavor(product.items, offers.flavors)
        if flavor is None:
            raise wrong("itemList", "the product names no flavor")
        check_size(product.items, flavor)
    zone = _zone(product, order)
    with context.checks.of("availableZone"):
        if zone is not None and zone not in offers.zones:
            raise wrong("availableZone", "there is no such zone, or it is not available")
    disks = await plan_disks(product, flavor, zone, offers.disks, context)
    return _Model(flavor, zone, disks)


# Where they are put.


async def _network(order: OrderNew, context: ProjectContext) -> str:
    with context.checks.of("network"):
        return await _chosen_network(order, context)


async def _chosen_network(order: OrderNew, context: ProjectContext) -> str:
    """The network that is named, by itself or by its subnet, else the tenant's only one."""
    usable = {
        one["id"]: one
        for one in await context.retrying(lambda: neutron.list_networks(context.project))
    }
    chosen = order.customization
    if chosen.subnet_id is not None:
        subnet = await _find_subnet(chosen.subnet_id, context)
        if subnet is None or subnet["network_id"] not in usable:
            raise wrong("subnetId", "there is no such subnet")
        if chosen.network_id not in (None, subnet["network_id"]):
            raise wrong("subnetId", "the subnet is in another network")
        return str(subnet["network_id"])
    if chosen.network_id is None and len(usable) != 1:
        raise wrong("networkId", f"the tenant has {len(usable)} networks, and none is named")
    network = usable.get(chosen.network_id or next(iter(usable)))
    if network is None:
        raise wrong("networkId", "there is no such network")
    if not network["subnets"]:
        raise wrong("networkId", "the network has no subnet")
    return str(network["id"])


async def _subnet(order: OrderNew, context: ProjectContext) -> str | None:
    chosen = order.customization.subnet_id
    if chosen is None:
        return None
    subnet = await _find_subnet(chosen, context)
    return str(subnet["id"]) if subnet is not None else None


async def _find_subnet(subnet_id: str, context: ProjectContext) -> Thing | None:
    found = await context.retrying(lambda: neutron.list_subnets_now(context.project))
    return next((one for one in found if one["id"] == subnet_id), None)


async def _groups(order: OrderNew, context: ProjectContext) -> tuple[str, ...]:
    """The ids of the security groups, which are named by id or by name."""
    if not order.customization.security_groups:
        return ()
    with context.checks.of("securityGroups"):
        listed = await context.retrying(lambda: neutron.list_security_groups(context.project))
        return tuple(
            dict.fromkeys(_group(one, listed) for one in order.customization.security_groups)
        )


def _group(named: str, listed: Sequence[Thing]) -> str:
    found = [one for one in listed if one["id"] == named] or [
        one for one in listed if one["name"] == named
    ]
    if len(found) != 1:
        raise wrong("securityGroups", f"the tenant has {len(found)} security groups {named}")
    return str(found[0]["id"])


async def _check_key(order: OrderNew, context: ProjectContext) -> None:
    name = order.customization.key_name
    if name is None:
        return
    with context.checks.of("keyName"):
        try:
            await context.retrying(lambda: nova.get_key_pair(context.project, name))
        except NotFound:
            raise wrong("keyName", "the service account has no such key pair") from None


# Whether there is room.


def _demand(order: OrderNew, models: Sequence[_Model], items: Iterable[str]) -> Demand:
    counted = [
        (product.count * order.sets, model)
        for product, model in zip(order.products, models, strict=True)
    ]
    return Demand(
        servers=order.count,
        cores=sum(count * model.flavor.vcpus for count, model in counted),
        ram=sum(count * model.flavor.ram for count, model in counted),
        ports=order.count,
        disks=tuple(
            DiskDemand(disk.volume_type, 0, disk.size)
            for count, model in counted
            for disk in model.disks
            for _ in range(count)
        ),
        metadata=((None, len(set(items))),),
    )
