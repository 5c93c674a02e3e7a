"""What a changeConfigure order would change, found out wholly before anything is touched."""

import asyncio
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from handlers.compute import AT_REST, Flavor, FlavorContent, Server, get_limits, list_flavors
from handlers.context import Context
from handlers.disks import image_of, system_and_data
from handlers.orders.instances import idle_server
from handlers.orders.newest import refuse_superseded
from handlers.orders.ordered import check_size, ordered_flavor, within
from handlers.orders.pictures import Picture, picture_of, volumes_of
from handlers.orders.undertaking import settled
from handlers.servers import judge_state
from handlers.volumes import Volume, gigabytes_left
from messages.errors import wrong
from messages.orders import ChangeConfigure, ChangedProduct, Item, ItemKind, of_kind


@dataclass(frozen=True, slots=True)
class Growth:
    """A volume to be grown; sizes in GiB."""

    volume_id: str
    before: int
    after: int
    status: str


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one server. `flavor_id` is None where the flavor stays.

    Of a plan that an earlier version has made only the flavors' names are known.
    """

    server_id: str
    status: str
    updated: str
    flavor_before: FlavorContent | str
    flavor_id: str | None
    flavor_after: FlavorContent | str
    before: Picture
    growths: tuple[Growth, ...]

    @property
    def resizes(self) -> bool:
        """Whether the flavor changes."""
        return self.flavor_id is not None

    @property
    def is_nothing(self) -> bool:
        """Whether the server is already as it was ordered."""
        return not self.resizes and not self.growths

    def to_json(self) -> dict[str, Any]:
        """The record for the journal."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Change":
        """The change that the journal kept."""
        flavors = {name: record[name] for name in ("flavor_before", "flavor_after")}
        known = {name: one if isinstance(one, str) else tuple(one) for name, one in flavors.items()}
        return cls(**{**record, **known, "growths": tuple(Growth(**growth) for growth in record["growths"])})


def has_flavor(server: Server, flavor: FlavorContent | str) -> bool:
    """Compare a server's flavor by its content: an equal name may be another flavor's, made anew."""
    return flavor in (server.flavor, server.flavor_name)


async def plan_changes(order: ChangeConfigure, context: Context) -> list[Change]:
    """A change for each product, in its order, or `Refused`."""
    servers = await settled(_server_at_rest(one, order, context) for one in order.instance_ids)
    flavors, volumes = await asyncio.gather(
        context.patiently(lambda: list_flavors(context.project)),
        asyncio.gather(*(volumes_of(server, context) for server in servers)),
    )
    drafts = await settled(
        _draft(product, server, attached, flavors, context)
        for product, server, attached in zip(order.products, servers, volumes, strict=True)
    )
    with context.checks.of("quota"):
        await _check_quota(drafts, context)
    return [draft.change for draft in drafts]


@dataclass(frozen=True, slots=True)
class _Draft:
    change: Change
    more_cores: int
    more_ram: int


async def _server_at_rest(server_id: str, order: ChangeConfigure, context: Context) -> Server:
    server = await idle_server(server_id, context)
    with context.checks.of("newest", server_id):
        refuse_superseded(order, server, context)
    with context.checks.of("state", server_id):
        if refused := judge_state(server, AT_REST):
            raise refused
    return server


async def _draft(
    product: ChangedProduct, server: Server, volumes: list[Volume], flavors: list[Flavor], context: Context
) -> _Draft:
    current = Flavor("", server.flavor_name, server.vcpus, server.ram, server.disk)
    system, data = system_and_data(server, volumes)
    with context.checks.of("flavor", server.id):
        ordered = ordered_flavor(product.items, flavors)
        flavor = ordered or current
        check_size(product.items, flavor)
    with context.checks.of("image", server.id):
        _check_image(product, image_of(server, system))
    with context.checks.of("disks", server.id):
        growths = [*_system_growth(product, system, flavor), *_data_growths(product, data)]
    change = Change(
        server_id=server.id,
        status=server.status,
        updated=server.updated,
        flavor_before=server.flavor,
        flavor_id=ordered.id if ordered and ordered.content != server.flavor else None,
        flavor_after=flavor.content,
        before=picture_of(server, volumes),
        growths=tuple(growths),
    )
    return _Draft(change, flavor.vcpus - server.vcpus, flavor.ram - server.ram)


def _check_image(product: ChangedProduct, image_id: str | None) -> None:
    for item in of_kind(product.items, ItemKind.IMAGE):
        if image_id is not None and item.value.lower() != image_id:
            raise wrong(item.code, "the server was made from another image")


def _system_growth(product: ChangedProduct, system: Volume | None, flavor: Flavor) -> list[Growth]:
    items = of_kind(product.items, ItemKind.SYSTEM_DISK)
    if len(items) > 1:
        raise wrong(items[1].code, "the product names two system disks")
    if not items:
        return []
    if system is not None:
        return _growth(items[0], system)
    if items[0].number() > flavor.disk:
        raise wrong(items[0].code, "the flavor's local disk is smaller")
    return []


def _data_growths(product: ChangedProduct, volumes: list[Volume]) -> list[Growth]:
    chosen: dict[str, Growth | None] = {}
    for item in of_kind(product.items, ItemKind.DATA_DISK):
        volume = _volume_meant(item, volumes)
        if volume.id in chosen:
            raise wrong(item.code, "the product names the disk twice")
        chosen[volume.id] = next(iter(_growth(item, volume)), None)
    return [growth for growth in chosen.values() if growth is not None]


def _volume_meant(item: Item, volumes: list[Volume]) -> Volume:
    if item.volume_id is not None:
        meant = [volume for volume in volumes if volume.id == item.volume_id]
    else:
        meant = [volume for volume in volumes if volume.volume_type == item.volume_type]
    if len(meant) != 1:
        raise wrong(item.code, f"the server has {len(meant)} such data disks")
    return meant[0]


def _growth(item: Item, volume: Volume) -> list[Growth]:
    if volume.volume_type != item.volume_type:
        raise wrong(item.code, "the disk is of another volume type")
    size = item.number()
    if size < volume.size:
        raise wrong(item.code, "a disk cannot be made smaller")
    return [Growth(volume.id, volume.size, size, volume.status)] if size > volume.size else []


async def _check_quota(drafts: Iterable[_Draft], context: Context) -> None:
    drafts = list(drafts)
    cores = sum(draft.more_cores for draft in drafts)
    ram = sum(draft.more_ram for draft in drafts)
    gigabytes = sum(growth.after - growth.before for draft in drafts for growth in draft.change.growths)
    if cores > 0 or ram > 0:
        limits = await context.patiently(lambda: get_limits(context.project))
        within(cores, limits.cores_left, "cores")
        within(ram, limits.ram_left, "ram")
    if gigabytes > 0:
        within(gigabytes, await context.patiently(lambda: gigabytes_left(context.project)), "gigabytes")
