"""The plan of a changeConfigure order, checked wholly before anything is touched."""

import asyncio
from dataclasses import replace
from datetime import datetime

from handlers.context import ProjectContext
from handlers.effects.concurrency import wait_for_all
from handlers.openstack.cinder import Volume
from handlers.openstack.glance import list_images_of_snapshots
from handlers.openstack.nova import (
    AT_REST,
    VERIFY_RESIZE,
    Flavor,
    FlavorContent,
    Server,
    list_actions,
    list_flavors,
)
from handlers.orders.billing import ORDER_ID, STATUS_TIME, fee_time, has_order, with_order
from handlers.orders.limits import (
    Demand,
    DiskDemand,
    check_quotas,
    check_size,
    items_with,
    ordered_flavor,
    wait_until_usable,
)
from handlers.orders.snapshot import find_volumes, idle_server, snapshot_of
from handlers.orders.step import failed
from handlers.servers.disks import image_of, system_and_data
from handlers.servers.fee_data import local_time, written
from handlers.servers.guard import CHARGE_TYPE, state_refusal
from messages.codes import Code
from messages.errors import Refused, wrong
from messages.orders import ChangedProduct, ItemKind, OrderChangeConfigure, OrderItem, of_kind
from messages.record import record
from messages.results import ServerSnapshot

#: The reason of an order after which a newer one was carried out on the server.
SUPERSEDED = "superseded"
#: Actions of Nova's log that end in VERIFY_RESIZE.
_MOVES = frozenset({"resize", "migrate"})
#: Length of `2026-11-23T10:00:00`: Nova writes the same second in two ways.
_SECOND = 19


@record
class Growth:
    """A volume to be grown; sizes in GiB."""

    volume_id: str
    before: int
    after: int
    status: str
    volume_type: str | None = None


@record
class Change:
    """The change of one server. `flavor_id` is None where the flavor stays.

    Stored in the journal. Of a plan that an earlier version has made only the flavors' names are
    known.
    """

    server_id: str
    status: str
    updated: str
    flavor_before: FlavorContent | str
    flavor_id: str | None
    flavor_after: FlavorContent | str
    before: ServerSnapshot
    growths: tuple[Growth, ...]
    #: The order's name is on the server: an earlier run, of which the journal knows nothing, has
    #: done it all.
    found: bool = False
    #: OpenStack's request id of the resize to this flavor that an earlier run has begun; it waits
    #: to be confirmed.
    found_resize: str | None = None

    @property
    def resizes(self) -> bool:
        """True where the flavor changes."""
        return self.flavor_id is not None

    @property
    def is_before_known(self) -> bool:
        """True where the server was as it was before the order when this was planned."""
        return not self.found and self.found_resize is None


def has_flavor(server: Server, flavor: FlavorContent | str) -> bool:
    """Compare a server's flavor by its content: an equal name may be another flavor's, made anew."""
    return flavor in (server.flavor, server.flavor_name)


async def plan_changes(order: OrderChangeConfigure, context: ProjectContext) -> list[Change]:
    """Plan a change for each product, in the order's sequence, or raise `Refused`."""
    noted = len(context.checks.listed)
    drafts = await _drafts(order, context)
    while any(draft.waited for draft in drafts):
        # Servers and disks may have changed meanwhile: all is looked at anew, and noted once.
        del context.checks.listed[noted:]
        drafts = await _drafts(order, context)
    due = [draft for draft in drafts if not draft.change.found]
    items = fee_items(order, context)
    # All together; what one gives back is not there yet when another is resized.
    demand = Demand(
        cores=sum(max(0, draft.flavor.vcpus - draft.server.vcpus) for draft in due),
        ram=sum(max(0, draft.flavor.ram - draft.server.ram) for draft in due),
        disks=tuple(
            DiskDemand(growth.volume_type, growth.before, growth.after)
            for draft in due
            for growth in draft.change.growths
        ),
        metadata=tuple(
            items_with(draft.server, [*items, *with_order(draft.server, context)]) for draft in due
        ),
    )
    await check_quotas(demand, context)
    return [draft.change for draft in drafts]


# Of several orders for a server the newest counts: one that comes late must not undo it.


def fee_items(order: OrderChangeConfigure, context: ProjectContext) -> dict[str, str]:
    """Return the items of metadata that each server of the order is given."""
    bill_type, time = order.bill_type, _paid_at(order, context)
    items = {ORDER_ID: order.name}
    if bill_type is not None:
        items[CHARGE_TYPE] = bill_type
    if time is not None:
        items[STATUS_TIME] = written(time)
    return items


def refuse_superseded(order: OrderChangeConfigure, server: Server, context: ProjectContext) -> None:
    """Raise `Refused` where an order of a later statusTime has been carried out on the server; an
    order without a statusTime has none later.
    """
    own, last = _paid_at(order, context), fee_time(server, STATUS_TIME, context.policy.billing_zone)
    if own is not None and last is not None and own < last:
        raise failed(
            SUPERSEDED,
            f"an order of {last} has been carried out on {server.id}, this one is of {own}",
        )


def _paid_at(order: OrderChangeConfigure, context: ProjectContext) -> datetime | None:
    """Return the statusTime by the billing system's clock. One in the future counts as now: it
    would shut out whatever comes.
    """
    now = context.policy.billing_now().replace(microsecond=0)
    paid = local_time(order.status_time, context.policy.billing_zone)
    return min(paid, now) if paid is not None else None


# Drafts: a change of each server, with what the quota is compared with.


@record
class _Draft:
    change: Change
    server: Server
    flavor: Flavor
    #: True where a disk had to be waited for.
    waited: bool = False


async def _drafts(order: OrderChangeConfigure, context: ProjectContext) -> list[_Draft]:
    servers = await wait_for_all(_server_at_rest(one, order, context) for one in order.instance_ids)
    flavors, volumes = await asyncio.gather(
        context.retrying(lambda: list_flavors(context.project)),
        asyncio.gather(*(find_volumes(server.volume_ids, context) for server in servers)),
    )
    return await wait_for_all(
        _draft(product, server, attached, flavors, context)
        for product, server, attached in zip(order.products, servers, volumes, strict=True)
    )


async def _server_at_rest(
    server_id: str, order: OrderChangeConfigure, context: ProjectContext
) -> Server:
    server = await idle_server(server_id, context)
    if has_order(server, context):
        return server  # whatever it is by now: nothing is done with it
    with context.checks.of("newest", server_id):
        refuse_superseded(order, server, context)
    with context.checks.of("state", server_id):
        if refused := state_refusal(server, AT_REST | {VERIFY_RESIZE}):
            raise refused
    return server


async def _draft(
    product: ChangedProduct,
    server: Server,
    volumes: list[Volume],
    flavors: list[Flavor],
    context: ProjectContext,
) -> _Draft:
    current = Flavor("", server.flavor_name, server.vcpus, server.ram, server.disk)
    unchanged = Change(
        server_id=server.id,
        status=server.status,
        updated=server.updated,
        flavor_before=server.flavor,
        flavor_id=None,
        flavor_after=server.flavor,
        before=snapshot_of(server, volumes),
        growths=(),
    )
    if has_order(server, context):
        return _Draft(replace(unchanged, found=True), server, current)
    system, data = system_and_data(server, volumes)
    with context.checks.of("flavor", server.id):
        ordered = ordered_flavor(product.items, flavors)
        flavor = ordered or current
        check_size(product.items, flavor)
    found_resize = None
    if server.status == VERIFY_RESIZE:
        with context.checks.of("state", server.id):
            found_resize = await _resize_found(server, ordered, context)
    with context.checks.of("image", server.id):
        await _check_image(product, server, system, context)
    with context.checks.of("disks", server.id):
        growths = (*_system_growth(product, system, flavor), *_data_growths(product, data))
    resizes = ordered is not None and (ordered.content != server.flavor or found_resize is not None)
    waited = False
    # A disk of a resize that was begun before is looked at by the step that grows it.
    if found_resize is None:
        # A resize moves the attachments of all volumes; Cinder refuses that while one is in such a
        # state.
        grown = {growth.volume_id for growth in growths}
        used = [one for one in volumes if resizes or one.id in grown]
        with context.checks.of("volumeState", server.id):
            waited = await wait_until_usable(used, context)
    change = replace(
        unchanged,
        flavor_id=flavor.id if resizes else None,
        flavor_after=flavor.content,
        growths=growths,
        found_resize=found_resize,
    )
    return _Draft(change, server, flavor, waited)


async def _resize_found(server: Server, ordered: Flavor | None, context: ProjectContext) -> str:
    """Return OpenStack's request id of the resize that an earlier run has begun; raises `Refused`
    where it is somebody else's.
    """
    found = None
    if ordered is not None and ordered.content == server.flavor:
        found = await context.retrying(lambda: find_own_resize(server.id, context))
    if found is None:
        raise Refused(Code.SERVER_STATE)
    return found


async def find_own_resize(server_id: str, context: ProjectContext, since: str = "") -> str | None:
    """Look in Nova's action log for the newest move of a server since a time of Nova's clock.

    Returns its request id where it is a resize by the service account's user, else None: only the
    worker can have begun that one, and whoever moved the server later has it in hand.
    """
    project = context.project
    moves = (one for one in await list_actions(project, server_id) if one.action in _MOVES)
    newest = next(moves, None)
    if newest is None or newest.start_time[:_SECOND] < since[:_SECOND]:
        return None
    is_own = (newest.action, newest.user_id) == ("resize", await project.user_id())
    return newest.request_id if is_own else None


async def _check_image(
    product: ChangedProduct, server: Server, system: Volume | None, context: ProjectContext
) -> None:
    items = of_kind(product.items, ItemKind.IMAGE)
    known = await _known_images(server, system, context) if items else set()
    for item in items:
        if known and item.value.lower() not in known:
            raise wrong(item.code, "the server was made from another image")


async def _known_images(server: Server, system: Volume | None, context: ProjectContext) -> set[str]:
    """Return the ids of the images that the server may be said to be made from; none where that
    cannot be told.

    A disk that was made from a snapshot is the image's that consists of it. Where there is none
    (any more), the image that Cinder names for it is only where its line began.
    """
    if system is None or system.snapshot_id is None or server.image_id is not None:
        image_id = image_of(server, system, {})
        return {image_id} if image_id is not None else set()
    listed = await context.retrying(lambda: list_images_of_snapshots(context.project))
    return {one.id for one in listed if one.boot_snapshot_id == system.snapshot_id}


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
    chosen: dict[str, list[Growth]] = {}
    for item in of_kind(product.items, ItemKind.DATA_DISK):
        if item.volume_id is not None:
            meant = [volume for volume in volumes if volume.id == item.volume_id]
        else:
            meant = [volume for volume in volumes if volume.volume_type == item.volume_type]
        if len(meant) != 1:
            raise wrong(item.code, f"the server has {len(meant)} such data disks")
        (volume,) = meant
        if volume.id in chosen:
            raise wrong(item.code, "the product names the disk twice")
        chosen[volume.id] = _growth(item, volume)
    return [growth for growths in chosen.values() for growth in growths]


def _growth(item: OrderItem, volume: Volume) -> list[Growth]:
    if volume.volume_type != item.volume_type:
        raise wrong(item.code, "the disk is of another volume type")
    size = item.number()
    if size < volume.size:
        raise wrong(item.code, "a disk cannot be made smaller")
    if size == volume.size:
        return []
    return [Growth(volume.id, volume.size, size, volume.status, volume.volume_type)]
