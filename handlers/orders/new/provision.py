"""Making the servers of a `new` order, and taking away again what was made.

Volumes are made before servers, by us and not by Nova: so they carry the order's mark from their
first moment, a disk that cannot be made fails the order before there is any server, and a server
whose call was lost and lands late finds its disk gone and comes to nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from handlers.context import PART, ProjectContext
from handlers.effects.ledger import EffectId, EffectKind
from handlers.effects.once import EffectName, effect_id
from handlers.openstack import cinder, neutron, nova
from handlers.openstack.cloud import Reply
from handlers.openstack.errors import CloudRefusal, Conflict, Forbidden, NotFound, QuotaExceeded
from handlers.openstack.nova import Server
from handlers.orders.billing import NEXT_FEE_TIME, START_FEE_TIME, local_time, written
from handlers.orders.delete_resources import (
    delete_port,
    delete_server,
    delete_volume,
    force_delete_server,
)
from handlers.orders.new.disks import Disk
from handlers.orders.new.made import Made
from handlers.orders.new.plan import Creation, NewServer, marks_of, metadata_of
from handlers.orders.progress import OrderProgress
from handlers.orders.saga import all_done, all_undone
from handlers.orders.step import failed
from handlers.orders.steps import follow_server, follow_volume, once, with_fault, write_fee_data
from messages.orders import OrderNew, disk_name, read_time

#: Things of one order that are made at once.
AT_ONCE = 8
_NO_HOST = "No valid host"
#: A volume that was found may be with its server already.
_USABLE = frozenset({"available", "reserved", "attaching", "in-use"})


def create_effect(number: int | str) -> EffectId:
    """The journal's name for making a server."""
    return EffectId(EffectKind.CREATE, str(number))


def id_of(effect: EffectName) -> EffectId:
    """The name under which the id of what an effect made is remembered."""
    return effect_id(effect).id_of_made


class Maker:
    """The steps of one order."""

    def __init__(  # noqa: PLR0917 - all that it works with
        self,
        order: OrderNew,
        creation: Creation,
        context: ProjectContext,
        progress: OrderProgress,
        made: Made,
        is_first: bool,
    ) -> None:
        """`is_first`: nothing that bears the order's mark was there a moment ago."""
        self._order = order
        self._creation = creation
        self._context = context
        self._progress = progress
        self._made = made
        self._is_first = is_first
        self._calls = asyncio.Semaphore(AT_ONCE)

    # Made.

    async def make_all(self) -> None:
        """All servers, ACTIVE and paid for. Raises where one cannot be made."""
        if self._creation.refusal is not None:
            raise failed(*self._creation.refusal)
        servers = self._creation.servers
        if self._creation.is_made or await self._has_dates():
            servers = await self._adopt_all()
        else:
            self._check_secrets()
            disks = [(one, index) for one in servers for index in range(len(one.disks))]
            await all_done(self._make_volume(*disk) for disk in disks)
            await all_done(self._make_server(one) for one in servers)
        fees = await self._context.effects.remember("fees", self._fees)
        await all_done(self._note_fees(one, fees) for one in servers)

    async def _adopt_all(self) -> tuple[NewServer, ...]:
        """Take the servers that there are for those that the order has made."""
        effects, adopted = self._context.effects, []
        found = {
            one.metadata.get(PART): one for one in await self._context.retrying(self._made.servers)
        }
        for server in self._creation.servers:
            effect, there = create_effect(server.number), found.get(str(server.number))
            if there is None:  # unsubscribed since
                continue
            if not effects.done(effect):
                await effects.adopt(effect)
            await self._note_id(there)
            adopted.append(server)
        return tuple(adopted)

    async def _has_dates(self, server_id: str | None = None) -> bool:
        """Tell whether a server, this one or any, has its fee dates: then all have been there."""
        if self._is_first:
            return False
        servers = await self._context.retrying(self._made.servers)
        wanted = [one for one in servers if server_id in (None, one.id)]
        return any(NEXT_FEE_TIME in one.metadata for one in wanted)

    def server_id(self, server: NewServer) -> str | None:
        """The id of a server that was made; None where none was, as far as is known."""
        found: str | None = self._context.effects.remembered(id_of(create_effect(server.number)))
        return found

    def request_ids(self, server: NewServer) -> list[str]:
        """OpenStack's ids of the calls by which it was made, and taken away again."""
        made: list[EffectName] = [
            f"volume:{_part(server, index)}" for index in range(len(server.disks))
        ]
        made += [f"port:{server.number}", create_effect(server.number)]
        ids = [self._context.effects.remembered(id_of(effect)) for effect in made]
        effects = [
            *made,
            f"metadata:{self.server_id(server)}",
            *(f"delete:{one}" for one in reversed(ids)),
        ]
        return [
            found for one in effects if (found := self._context.effects.request_id(one)) is not None
        ]

    def _check_secrets(self) -> None:
        withheld = self._order.secrets.withheld
        missing = [
            one
            for one in self._creation.servers
            if not self._context.effects.done(create_effect(one.number))
        ]
        if withheld is not None and missing:
            raise failed("secret_withheld", f"{withheld} was masked on the way")

    async def _make_volume(self, server: NewServer, index: int) -> None:
        effect, disk = f"volume:{_part(server, index)}", server.disks[index]
        volume_id = await self._make(
            effect,
            "volume",
            lambda: self._create_volume(server, index, disk),
            lambda: self._find_volume(server, index),
        )
        if self._context.effects.begun(create_effect(server.number)):
            return  # it has been available, and now belongs to its server
        volume = await follow_volume(
            volume_id,
            effect,
            self._context,
            lambda one: one.status not in ("creating", "downloading"),
        )
        if volume.status not in _USABLE:
            raise failed("volume_failed", f"volume {volume_id} is {volume.status}")

    async def _create_volume(self, server: NewServer, index: int, disk: Disk) -> Reply:
        return await cinder.create_volume(
            self._context.project,
            name=disk_name(server.name, index),
            size=disk.size,
            volume_type=disk.volume_type,
            image_id=disk.image_id,
            zone=disk.zone,
            metadata=marks_of(_part(server, index), self._order, self._context),
        )

    async def _make_port(self, server: NewServer) -> str | None:
        """A port of ours, for only so a subnet can be chosen; None where Nova makes one."""
        subnet_id = self._creation.subnet_id
        if subnet_id is None:
            return None
        return await self._make(
            f"port:{server.number}",
            "port",
            lambda: neutron.create_port(
                self._context.project,
                network_id=self._creation.network_id,
                subnet_id=subnet_id,
                name=server.name,
                description=self._made.port_mark,
                security_groups=self._creation.security_groups,
            ),
            lambda: self._find_port(server),
        )

    async def _make_server(self, server: NewServer) -> None:
        port_id = await self._make_port(server)
        effect = create_effect(server.number)
        server_id = await self._make(
            effect,
            "server",
            lambda: self._create_server(server, port_id),
            lambda: self._find_server(server),
        )
        made = await follow_server(
            server_id,
            effect,
            self._context,
            self._progress,
            lambda one: one.status != "BUILD" and not one.busy,
        )
        if made.status != "ACTIVE":
            made = await with_fault(made, self._context)
            reason = "no_host" if _NO_HOST in (made.fault or "") else "create_failed"
            raise failed(reason, f"server {server_id} is {made.status}: {made.fault}")

    async def _create_server(self, server: NewServer, port_id: str | None) -> Reply:
        disks = [
            self._known_id(f"volume:{_part(server, index)}") for index in range(len(server.disks))
        ]
        body = {
            "name": server.name,
            "flavorRef": server.flavor_id,
            "metadata": metadata_of(server, self._order, self._creation, self._context),
            "networks": [
                {"port": port_id} if port_id is not None else {"uuid": self._creation.network_id}
            ],
            "block_device_mapping_v2": [
                {
                    "boot_index": -1 if index else 0,
                    "uuid": disk,
                    "source_type": "volume",
                    "destination_type": "volume",
                    "delete_on_termination": True,
                }
                for index, disk in enumerate(disks)
            ],
            **self._chosen(server, port_id),
        }
        try:
            return await nova.create_server(self._context.project, body)
        except CloudRefusal as error:
            raise self._without_secrets(error) from None

    def _chosen(self, server: NewServer, port_id: str | None) -> dict[str, Any]:
        """What the customer may have chosen."""
        chosen, secrets = self._order.customization, self._order.secrets
        groups = [{"name": one} for one in self._creation.security_groups]
        fields: dict[str, Any] = {
            "availability_zone": server.zone,
            "key_name": chosen.key_name,
            "tags": list(chosen.tags),
            "security_groups": groups if port_id is None else [],
            "adminPass": secrets.admin_pass and secrets.admin_pass.get_secret_value(),
            "user_data": secrets.user_data and secrets.user_data.get_secret_value(),
        }
        return {name: value for name, value in fields.items() if value}

    def _without_secrets(self, error: CloudRefusal) -> CloudRefusal:
        """Nova repeats what it refuses to take; its words go to the log and the journal."""
        if not self._order.secrets.any or isinstance(
            error, (QuotaExceeded, Conflict, Forbidden, NotFound)
        ):
            return error
        return type(error)(
            error.status, "(not repeated, for it may hold a secret)", error.request_id
        )

    async def _fees(self) -> dict[str, str]:
        """The term begins when all servers are there; a server that has its dates already says when
        that was.
        """
        zone, begin = self._context.policy.billing_zone, self._context.policy.billing_now()
        if not self._is_first:
            servers = await self._context.retrying(self._made.servers)
            begun = [
                local_time(read_time(one.metadata.get(START_FEE_TIME)), zone) for one in servers
            ]
            begin = min([begin, *(one for one in begun if one is not None)])
        return {
            START_FEE_TIME: written(begin),
            NEXT_FEE_TIME: written(self._order.term.after(begin)),
        }

    async def _note_fees(self, server: NewServer, fees: Mapping[str, str]) -> None:
        server_id = self._known_id(create_effect(server.number))

        async def marked() -> str | None:
            # A renewal may have moved them since.
            return "" if await self._has_dates(server_id) else None

        async with self._calls:
            await write_fee_data(server_id, dict(fees), self._context, marked=marked)

    async def _make(
        self,
        effect: EffectName,
        kind: str,
        create: Callable[[], Awaitable[Reply]],
        find: Callable[[], Awaitable[str | None]],
    ) -> str:
        """Make something once; its id. It is found by its mark where the answer, or the journal,
        was lost.
        """
        known: str | None = self._context.effects.remembered(id_of(effect))
        if known is not None:
            return known
        made: list[str] = []

        async def do() -> Reply:
            async with self._calls:
                reply = await create()
            made.append(reply.body[kind]["id"])
            return reply

        async def landed(_: object) -> str | None:
            found = await find()
            return "" if found is not None else None

        async def marked() -> str | None:
            return await landed(None)

        # Of ports the planning does not know: one that was left behind has no volume that tells of
        # it.
        looks = kind == "port" or not self._is_first
        await once(self._context, effect, do, landed, None, marked=marked if looks else None)

        async def its_id() -> str:
            found = made[0] if made else await self._context.retrying(find)
            if found is None:
                raise failed("not_found", f"{effect} was done, and what it made is gone")
            return found

        found: str = await self._context.effects.remember(id_of(effect), its_id)
        return found

    def _known_id(self, effect: EffectName) -> str:
        found: str = self._context.effects.remembered(id_of(effect))
        return found

    # Found again.

    async def _find_volume(self, server: NewServer, index: int) -> str | None:
        wanted = _part(server, index)
        return next(
            (one.id for one in await self._made.volumes() if one.metadata.get(PART) == wanted), None
        )

    async def _find_port(self, server: NewServer) -> str | None:
        return next(
            (one["id"] for one in await self._made.ports() if one["name"] == server.name), None
        )

    async def _find_server(self, server: NewServer) -> str | None:
        wanted = str(server.number)
        return next(
            (one.id for one in await self._made.servers() if one.metadata.get(PART) == wanted), None
        )

    # Taken away.

    async def remove_all(self) -> None:
        """Take away what there is of it; what cannot be taken away, `left` tells."""
        await self._remove_what_there_is()
        if any(self._in_doubt(one) for one in self._creation.servers):
            # It may have landed meanwhile, and then is in ERROR: its disks were gone before.
            await self._remove_what_there_is()

    def _in_doubt(self, server: NewServer) -> bool:
        effect = create_effect(server.number)
        return self._context.effects.begun(effect) and not self._context.effects.done(effect)

    async def _remove_what_there_is(self) -> None:
        context = self._context
        self._made.look_afresh()
        servers = await context.retrying(self._made.servers)
        for one in servers:
            await self._note_id(one)
        held: set[str] = set()
        await all_undone([self._remove_server(one, held) for one in servers], context)
        self._made.look_afresh()
        # What a server that stays holds fast cannot go, and need not be waited for.
        held |= {
            one
            for server in await context.retrying(self._made.servers)
            for one in server.volume_ids
        }
        disks = [one for one in await context.retrying(self._made.volumes) if one.id not in held]
        ports = await context.retrying(self._made.ports)
        await all_undone(
            [
                *(delete_volume(one.id, "failure", context) for one in disks),
                *(delete_port(one["id"], context) for one in ports),
            ],
            context,
        )

    async def _remove_server(self, server: Server, held: set[str]) -> None:
        """Delete a server, also where the cloud would keep it for a while; adds the disks that it
        keeps to `held`.
        """
        if await delete_server(server.id, self._context, self._progress):
            return
        if not await force_delete_server(server.id, self._context, self._progress):
            held.update(server.volume_ids)

    async def _note_id(self, server: Server) -> None:
        """A server that is found only now has a progress of its own, which must be ended."""

        async def its_id() -> str:
            return server.id

        await self._context.effects.remember(
            id_of(create_effect(str(server.metadata.get(PART)))), its_id
        )


def _part(server: NewServer, index: int) -> str:
    """Which disk of which server."""
    return f"{server.number}.{index}"
