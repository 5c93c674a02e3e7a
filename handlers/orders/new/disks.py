"""Plan the disks of a new server: their sources, sizes and zones."""

from collections.abc import Mapping

from handlers.context import ProjectContext
from handlers.openstack import cinder
from handlers.openstack.errors import NotFound
from handlers.openstack.glance import Image, get_image
from handlers.openstack.nova import Flavor
from messages.errors import Transient, wrong
from messages.fields import read, uuid_of
from messages.orders import ItemKind, NewProduct, OrderItem, of_kind
from messages.record import record

_BYTES_IN_GIB = 1024**3


@record
class Disk:
    """A volume to be created; GiB. `image_id` is set for a system disk; `zone` is Cinder's."""

    size: int
    volume_type: str
    image_id: str | None
    zone: str | None = None


@record
class Offers:
    """The flavors, zones and volume types that the project may use.

    Zones are known where the order names one: `zones` are Nova's that are available, `volume_zones`
    Cinder's with their availability.
    """

    flavors: list[Flavor]
    zones: set[str]
    volume_types: frozenset[str]
    volume_zones: Mapping[str, bool]


@record
class _Source:
    """The image of a system disk, which needs at least so many bytes.

    `is_snapshot`: the image is a snapshot of a volume, and the disk is created in the zone of that.
    """

    image_id: str
    least: int
    is_snapshot: bool


async def plan_disks(
    product: NewProduct,
    flavor: Flavor,
    zone: str | None,
    offers: Offers,
    context: ProjectContext,
) -> tuple[Disk, ...]:
    """Plan the system disk and the data disks; `Refused` names the item. `zone` is Nova's."""
    with context.checks.of("availableZone"):
        if zone is not None and offers.volume_zones.get(zone) is False:
            raise wrong("availableZone", "no volume can be made in this zone now")
        # A zone that Cinder does not have is Nova's alone: Cinder chooses where the disks are.
        disks_zone = zone if zone in offers.volume_zones else None
    with context.checks.of("image"):
        image_item = _only(product, ItemKind.IMAGE)
        system_item = _only(product, ItemKind.SYSTEM_DISK)
        source = await _source(image_item, flavor, context)
    with context.checks.of("disks"):
        system_zone = None if source.is_snapshot else disks_zone
        system = _disk(system_item, offers, source.image_id, system_zone)
        if system.size * _BYTES_IN_GIB < source.least:
            raise wrong(system_item.code, "the image needs a larger disk")
        data = [
            _disk(item, offers, None, disks_zone)
            for item in of_kind(product.items, ItemKind.DATA_DISK)
        ]
    return (system, *data)


def _only(product: NewProduct, kind: ItemKind) -> OrderItem:
    found = of_kind(product.items, kind)
    if not found:
        raise wrong(kind.value, "the product names none")
    if len(found) > 1:
        raise wrong(found[1].code, "the product names two")
    return found[0]


def _disk(item: OrderItem, offers: Offers, image_id: str | None, zone: str | None) -> Disk:
    if item.volume_type is None or item.volume_type not in offers.volume_types:
        raise wrong(item.code, "there is no such volume type")
    size = item.number()
    if size < 1:
        raise wrong(item.code)
    return Disk(size, item.volume_type, image_id, zone)


async def _source(item: OrderItem, flavor: Flavor, context: ProjectContext) -> _Source:
    image = await _image(item, context)
    if image.status != "active":
        raise wrong(item.code, f"the image is {image.status}")
    if image.min_ram > flavor.ram:
        raise wrong(item.code, "the image needs more memory than the flavor has")
    if image.boot_snapshot_id is not None:
        # Its `min_disk` is the local disk of the flavor that the server had: it says nothing of a
        # volume.
        size = await _snapshot_size(item, image.boot_snapshot_id, context)
        return _Source(image.id, size * _BYTES_IN_GIB, is_snapshot=True)
    if image.has_mapping:
        # Cinder would make an empty disk of it.
        raise wrong(item.code, "the image names no snapshot to boot from")
    least = max(image.size, image.virtual_size, image.min_disk * _BYTES_IN_GIB)
    return _Source(image.id, least, is_snapshot=False)


async def _image(item: OrderItem, context: ProjectContext) -> Image:
    try:
        image_id = read(uuid_of, item.value, item.code)
        return await context.retrying(lambda: get_image(context.project, image_id))
    except NotFound:
        raise wrong(item.code, "there is no such image") from None


async def _snapshot_size(item: OrderItem, snapshot_id: str, context: ProjectContext) -> int:
    """The size in GiB of the snapshot that an image consists of."""
    try:
        snapshot = await context.retrying(lambda: cinder.get_snapshot(context.project, snapshot_id))
    except NotFound:
        raise wrong(item.code, "the snapshot that the image consists of is gone") from None
    if snapshot.status == "creating":
        raise Transient("busy", detail=f"snapshot {snapshot_id} is creating")
    if snapshot.status != "available":
        raise wrong(item.code, f"the snapshot that the image consists of is {snapshot.status}")
    return snapshot.size
