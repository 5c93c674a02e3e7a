"""Checks of what the cloud would refuse later: flavors, quotas, room for metadata, volumes' states.

Every kind of order makes them while it plans, before anything is touched; so do `order.plan` and
`ecs-worker plan`, which run the same planning. What a cloud does not tell is left for the cloud to
refuse.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from handlers.context import ProjectContext
from handlers.effects.concurrency import wait_for_all
from handlers.openstack.cinder import Volume, VolumeQuota, get_quota
from handlers.openstack.errors import NotFound
from handlers.openstack.neutron import ports_left
from handlers.openstack.nova import Flavor, Server, get_limits
from handlers.orders.step import failed
from messages.errors import Transient, wrong
from messages.orders import ItemKind, OrderItem, of_kind
from messages.record import record

_MIB_IN_GIB = 1024


def ordered_flavor(items: Sequence[OrderItem], flavors: Sequence[Flavor]) -> Flavor | None:
    """Find the flavor that the flavor item names; None where there is no such item.

    Raises `Refused` naming an item that names no flavor, or a second one.
    """
    by_word = {flavor.name: flavor for flavor in flavors} | {
        flavor.id: flavor for flavor in flavors
    }
    named = of_kind(items, ItemKind.OTHER)
    for item in named:
        if item.value not in by_word:
            raise wrong(item.code, "there is no such flavor")
    if len(named) > 1:
        raise wrong(named[1].code, "the product names two flavors")
    return by_word[named[0].value] if named else None


def check_size(items: Sequence[OrderItem], flavor: Flavor) -> None:
    """Raise `Refused` where the CPU or memory item names another size than the flavor has."""
    for item in of_kind(items, ItemKind.CPU):
        if item.number() != flavor.vcpus:
            raise wrong(item.code, "the flavor has another number of CPUs")
    for item in of_kind(items, ItemKind.MEMORY):
        if item.number() * _MIB_IN_GIB != flavor.ram:
            raise wrong(item.code, "the flavor has another size of memory")


@record
class DiskDemand:
    """A volume that is to become larger, in GiB; `before` is 0 for a new one."""

    volume_type: str | None
    before: int
    after: int


@record
class Demand:
    """The resources that an order takes beyond what there is; `ram` in MiB.

    `metadata` are the numbers of items that its servers will have, by id; None is a server to be
    created.
    """

    servers: int = 0
    cores: int = 0
    ram: int = 0
    ports: int = 0
    disks: tuple[DiskDemand, ...] = ()
    metadata: tuple[tuple[str | None, int], ...] = ()


def items_with(server: Server, added: Iterable[str]) -> tuple[str | None, int]:
    """Count the items of a server that is given these, for `Demand.metadata`; equal names are one."""
    return server.id, len({*server.metadata, *added})


async def check_quotas(
    demand: Demand, context: ProjectContext, instance_id: str | None = None
) -> None:
    """Raise `Refused` (`quota`) where the project has no room for it; asks each service once."""
    with context.checks.of("quota", instance_id):
        await wait_for_all(
            [
                _check_compute(demand, context),
                _check_ports(demand, context),
                _check_disks(demand.disks, context),
            ]
        )


async def _check_compute(demand: Demand, context: ProjectContext) -> None:
    if not (demand.servers > 0 or demand.cores > 0 or demand.ram > 0 or demand.metadata):
        return
    limits = await context.retrying(lambda: get_limits(context.project))
    _check_within(demand.servers, limits.instances_left, "servers")
    _check_within(demand.cores, limits.cores_left, "cores")
    _check_within(demand.ram, limits.ram_left, "ram")
    # Nova counts all items: a server over the limit takes not even a replacement.
    most = limits.metadata_items
    for server_id, items in demand.metadata:
        if most is not None and items > most:
            name = server_id or "each server"
            raise failed("quota", f"{name} would have {items} metadata items, {most} are allowed")


async def _check_ports(demand: Demand, context: ProjectContext) -> None:
    if demand.ports > 0:
        left = await context.retrying(lambda: ports_left(context.project))
        _check_within(demand.ports, left, "ports")


async def _check_disks(disks: Sequence[DiskDemand], context: ProjectContext) -> None:
    if not disks:
        return
    quota: VolumeQuota = await context.retrying(lambda: get_quota(context.project))
    largest, most = max(disk.after for disk in disks), quota.largest
    if most is not None and largest > most:
        raise failed(
            "quota",
            f"a volume of {largest} gigabytes ordered, {most} are allowed (per_volume_gigabytes)",
        )
    # Cinder has quotas for all volumes, and for those of each type.
    taken: Counter[str] = Counter()
    for disk in disks:
        for suffix in ("", f"_{disk.volume_type}"):
            taken[f"volumes{suffix}"] += disk.before == 0
            taken[f"gigabytes{suffix}"] += disk.after - disk.before
    for name, more in taken.items():
        if more > 0:
            _check_within(more, quota.left(name), name)


def _check_within(more: int, left: int | None, what: str) -> None:
    """Raise `Refused` where more is ordered than is left; None: no limit is known."""
    if left is not None and more > max(left, 0):
        raise failed("quota", f"{more} more {what} ordered, {left} left")


async def wait_until_usable(volumes: Iterable[Volume], context: ProjectContext) -> bool:
    """Wait until each volume can be grown, and its server resized; True where one was busy.

    A state that passes by itself is waited for as a busy server is: `Transient` `busy` where it
    lasts longer than this delivery. One that does not pass is `Refused` with reason `volume_state`.
    """
    listed = list(volumes)
    for volume in listed:
        _check_state(volume)
    until = context.busy_until
    busy = [volume for volume in listed if volume.busy]
    for volume in busy:  # one after the other: they share the deadline
        with context.watchers.volumes.follow(volume.id) as poller, context.waits.on(poller):
            found = volume
            while found.busy:
                try:
                    found = await poller.next(until)
                except TimeoutError:
                    raise busy_with(found) from None
                except NotFound:
                    raise failed("volume_state", f"volume {volume.id} is gone") from None
        _check_state(found)
    return bool(busy)


def busy_with(volume: Volume) -> Transient:
    """Return the error of a step that must wait for what is under way with a volume."""
    move = f" ({volume.migration_status})" if volume.migration_status else ""
    return Transient("busy", detail=f"volume {volume.id} is {volume.status}{move}")


def _check_state(volume: Volume) -> None:
    if not (volume.usable or volume.busy):
        raise failed("volume_state", f"volume {volume.id} is {volume.status}")
