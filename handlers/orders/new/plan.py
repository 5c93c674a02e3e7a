"""Plan a `new` order, checked wholly before anything is created."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from handlers.context import MARK, PART, ProjectContext
from handlers.openstack import cinder, neutron, nova
from handlers.openstack.errors import NotFound
from handlers.openstack.nova import Flavor
from handlers.orders.billing import NEXT_FEE_TIME, START_FEE_TIME
from handlers.orders.limits import Demand, DiskDemand, check_quotas, check_size, ordered_flavor
from handlers.orders.new.disks import Disk, Offers, plan_disks
from handlers.servers.fee_data import local_time, written
from messages.errors import wrong
from messages.orders import NewProduct, OrderNew
from messages.record import record

#: The items of metadata that say for how long a server is paid for.
FEE_TIMES = (START_FEE_TIME, NEXT_FEE_TIME)


@record
class NewServer:
    """A server to be created, the `number`th of the order (from 1), of the set and the product with
    these indices.
    """

    number: int
    set_index: int
    product_index: int
    name: str
    flavor_id: str
    zone: str | None
    disks: tuple[Disk, ...]


@record
class CreationPlan:
    """The servers to be created, as the plan is stored in the journal.

    With a subnet each server gets a port that the order creates, otherwise Nova creates one.
    """

    servers: tuple[NewServer, ...]
    network_id: str
    subnet_id: str | None
    security_groups: tuple[str, ...]
    purchase_time: str
    user_name: str | None
    #: An earlier run, of which the journal knows nothing, has created all of it.
    is_made: bool = False
    #: Reason and detail: an earlier run has created a part, and the rest can no longer be created.
    refusal: tuple[str, str | None] | None = None


@record
class _Template:
    """The flavor, zone and disks of each server of a product."""

    flavor: Flavor
    zone: str | None
    disks: tuple[Disk, ...]


async def plan_creation(
    order: OrderNew, context: ProjectContext, *, is_begun: bool = False
) -> CreationPlan:
    """Plan the order; `Refused` where it cannot be carried out.

    `is_begun`: a part of it is there, and has taken its part of the quota.
    """
    with context.checks.of("secrets"):
        if order.secrets.withheld is not None:
            raise wrong(
                order.secrets.withheld, "it was masked on the way", reason="secret_withheld"
            )
    templates = await _templates(order, context)
    network_id, groups, _ = await asyncio.gather(
        _network(order, context), _groups(order, context), _check_key(order, context)
    )
    creation = CreationPlan(
        servers=_servers(order, templates),
        network_id=network_id,
        subnet_id=order.customization.subnet_id,
        security_groups=groups,
        purchase_time=_paid_at(order, context),
        user_name=order.user_name,
    )
    if not is_begun:
        items = [*metadata_of(creation.servers[0], order, creation, context), *FEE_TIMES]
        await check_quotas(_demand(order, templates, items), context)
    return creation


def metadata_of(
    server: NewServer, order: OrderNew, creation: CreationPlan, context: ProjectContext
) -> dict[str, str]:
    """The metadata with which a server is created; `FEE_TIMES` follow once all are there."""
    known = {
        "charge_type": order.bill_type,
        "purchase_time": creation.purchase_time,
        "keycloak_user_id": order.user_id,
        "keycloak_user_name": creation.user_name,
    }
    marks = marks_of(str(server.number), order, context)
    return marks | {name: value for name, value in known.items() if value}


def marks_of(part: str, order: OrderNew, context: ProjectContext) -> dict[str, str]:
    """The metadata by which one part of what the order creates is found again."""
    return {"order_id": order.name, MARK: context.mark, PART: part}


def outline_creation(order: OrderNew, context: ProjectContext, **known: Any) -> CreationPlan:
    """A plan of the servers by number and name alone, with these other fields of `CreationPlan`.

    It is enough to report on them, and to delete them.
    """
    templates = [_Template(Flavor("", "", 0, 0, 0), None, ())] * len(order.products)
    return CreationPlan(
        servers=_servers(order, templates),
        network_id="",
        subnet_id=order.customization.subnet_id,
        security_groups=(),
        purchase_time=_paid_at(order, context),
        user_name=order.user_name,
        **known,
    )


def _paid_at(order: OrderNew, context: ProjectContext) -> str:
    """The time of payment by the billing system; now, where it gives none that can be read."""
    policy = context.policy
    return written(local_time(order.status_time, policy.billing_zone) or policy.billing_now())


def _servers(order: OrderNew, templates: Sequence[_Template]) -> tuple[NewServer, ...]:
    places = [
        (set_index, product_index)
        for set_index in range(order.sets)
        for product_index, product in enumerate(order.products)
        for _ in range(product.count)
    ]
    return tuple(
        NewServer(
            number,
            set_index,
            product_index,
            order.server_name(number),
            templates[product_index].flavor.id,
            templates[product_index].zone,
            templates[product_index].disks,
        )
        for number, (set_index, product_index) in enumerate(places, start=1)
    )


# Flavors, zones and disks.


async def _templates(order: OrderNew, context: ProjectContext) -> list[_Template]:
    project, zones, volume_zones = context.project, set[str](), dict[str, bool]()
    flavors, types = await asyncio.gather(
        context.retrying(lambda: nova.list_flavors(project)),
        context.retrying(lambda: cinder.list_types(project)),
    )
    if any(_zone(product, order) is not None for product in order.products):
        zones, volume_zones = await asyncio.gather(
            context.retrying(lambda: nova.list_zones(project)),
            context.retrying(lambda: cinder.list_zones(project)),
        )
    offers = Offers(flavors, zones, frozenset(types), volume_zones)
    return [await _template(product, order, offers, context) for product in order.products]


def _zone(product: NewProduct, order: OrderNew) -> str | None:
    return product.zone or order.customization.zone


async def _template(
    product: NewProduct, order: OrderNew, offers: Offers, context: ProjectContext
) -> _Template:
    with context.checks.of("flavor"):
        flavor = ordered_flavor(product.items, offers.flavors)
        if flavor is None:
            raise wrong("itemList", "the product names no flavor")
        check_size(product.items, flavor)
    zone = _zone(product, order)
    with context.checks.of("availableZone"):
        if zone is not None and zone not in offers.zones:
            raise wrong("availableZone", "there is no such zone, or it is not available")
    disks = await plan_disks(product, flavor, zone, offers, context)
    return _Template(flavor, zone, disks)


# Network.


async def _network(order: OrderNew, context: ProjectContext) -> str:
    """The network that is named, by itself or by its subnet, else the tenant's only one."""
    with context.checks.of("network"):
        chosen, project = order.customization, context.project
        networks = await context.retrying(lambda: neutron.list_networks(project))
        usable = {one["id"]: one for one in networks}
        if chosen.subnet_id is not None:
            subnets = await context.retrying(lambda: neutron.list_subnets_now(project))
            found = next((one for one in subnets if one["id"] == chosen.subnet_id), None)
            if found is None or found["network_id"] not in usable:
                raise wrong("subnetId", "there is no such subnet")
            if chosen.network_id not in (None, found["network_id"]):
                raise wrong("subnetId", "the subnet is in another network")
            return str(found["network_id"])
        if chosen.network_id is None and len(usable) != 1:
            raise wrong("networkId", f"the tenant has {len(usable)} networks, and none is named")
        network = usable.get(chosen.network_id or next(iter(usable)))
        if network is None:
            raise wrong("networkId", "there is no such network")
        if not network["subnets"]:
            raise wrong("networkId", "the network has no subnet")
        return str(network["id"])


async def _groups(order: OrderNew, context: ProjectContext) -> tuple[str, ...]:
    """The ids of the security groups, which are named by id or by name."""
    if not order.customization.security_groups:
        return ()
    with context.checks.of("securityGroups"):
        listed = await context.retrying(lambda: neutron.list_security_groups(context.project))
        ids: list[str] = []
        for named in order.customization.security_groups:
            found = [one["id"] for one in listed if one["id"] == named]
            found = found or [one["id"] for one in listed if one["name"] == named]
            if len(found) != 1:
                text = f"the tenant has {len(found)} security groups {named}"
                raise wrong("securityGroups", text)
            ids.append(str(found[0]))
        return tuple(dict.fromkeys(ids))


async def _check_key(order: OrderNew, context: ProjectContext) -> None:
    name = order.customization.key_name
    if name is None:
        return
    with context.checks.of("keyName"):
        try:
            await context.retrying(lambda: nova.get_key_pair(context.project, name))
        except NotFound:
            raise wrong("keyName", "the service account has no such key pair") from None


# Quota.


def _demand(order: OrderNew, templates: Sequence[_Template], items: Iterable[str]) -> Demand:
    counted = [
        (product.count * order.sets, template)
        for product, template in zip(order.products, templates, strict=True)
    ]
    return Demand(
        servers=order.count,
        cores=sum(count * template.flavor.vcpus for count, template in counted),
        ram=sum(count * template.flavor.ram for count, template in counted),
        ports=order.count,
        disks=tuple(
            DiskDemand(disk.volume_type, 0, disk.size)
            for count, template in counted
            for disk in template.disks
            for _ in range(count)
        ),
        metadata=((None, len(set(items))),),
    )
