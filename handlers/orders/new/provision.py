"""Steps that create the servers of a `new` order, and their compensation.

Volumes are created before servers, by us and not by Nova: so they carry the order's mark from their
first moment, a disk that cannot be created fails the order before there is any server, and a server
whose call was lost and lands late finds its disk gone and comes to nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import field, replace
from typing import Any

from handlers.context import PART, ProjectContext
from handlers.effects.ledger import EffectId, EffectKind
from handlers.openstack import cinder, neutron, nova
from handlers.openstack.errors import CloudRefusal, Conflict, Forbidden, NotFound, QuotaExceeded
from handlers.openstack.nova import Server
from handlers.openstack.sessions import Reply
from handlers.orders.billing import NEXT_FEE_TIME, START_FEE_TIME
from handlers.orders.delete_resources import Deletions
from handlers.orders.new.plan import CreationPlan, NewServer, marks_of, metadata_of
from handlers.orders.new.resources import OrderResources
from handlers.orders.progress import OrderProgress
from handlers.orders.saga import all_undone, do_steps
from handlers.orders.step import (
    Step,
    failed,
    follow_server,
    follow_volume,
    metadata_step,
    with_fault,
)
from handlers.servers.fee_data import local_time, written
from messages.orders import OrderNew, disk_name, read_time
from messages.record import record

#: Creations of one order that are called at the same time.
AT_ONCE = 8
_NO_HOST = "No valid host"
#: A volume that was found may be with its server already.
_USABLE = frozenset({"available", "reserved", "attaching", "in-use"})
#: The object in OpenStack's answer that has the id of what was created.
_CREATED: dict[EffectKind | str, str] = {
    EffectKind.VOLUME: "volume",
    EffectKind.PORT: "port",
    EffectKind.CREATE: "server",
}


def create_effect(number: int | str) -> EffectId:
    """The effect that creates the server with this number."""
    return EffectId(EffectKind.CREATE, str(number))


@record
class Provisioner:
    """Creates the servers of one order, and removes what was created."""

    order: OrderNew
    plan: CreationPlan
    context: ProjectContext
    progress: OrderProgress
    resources: OrderResources
    _calls: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(AT_ONCE), init=False
    )

    async def create_all(self) -> None:
        """Create all servers, ACTIVE and with fee data. Raises where one cannot be created."""
        if self.plan.refusal is not None:
            raise failed(*self.plan.refusal)
        if self.plan.is_made or await self._has_dates():
            servers = await self._adopt_all()
        else:
            servers, withheld = self.plan.servers, self.order.secrets.withheld
            done = self.context.effects.done
            if withheld is not None and not all(done(create_effect(one.number)) for one in servers):
                raise failed("secret_withheld", f"{withheld} was masked on the way")
            steps = [step for server in servers for step in self.steps(server)]
            await do_steps(steps, self.context, self.progress)
        fees = await self.context.effects.remember(EffectId(EffectKind.FEES), self._fees)
        ids = [self._known_id(create_effect(server.number)) for server in servers]
        await do_steps([self._fee_step(one, fees) for one in ids], self.context, self.progress)

    async def _adopt_all(self) -> tuple[NewServer, ...]:
        """Record the servers that there are as created by the order; returns those."""
        effects = self.context.effects
        listed = await self.context.retrying(self.resources.servers)
        found = {one.metadata.get(PART): one for one in listed}
        # One that is missing has been unsubscribed since.
        there = tuple(one for one in self.plan.servers if str(one.number) in found)
        for server in there:
            effect = create_effect(server.number)
            if not effects.done(effect):
                await effects.adopt(effect)
            await self._remember_id(found[str(server.number)])
        return there

    async def _has_dates(self, server_id: str | None = None) -> bool:
        """Tell whether a server, this one or any, has its fee dates: then all have been there."""
        if self.resources.none_before:
            return False
        servers = await self.context.retrying(self.resources.servers)
        wanted = [one for one in servers if server_id in (None, one.id)]
        return any(NEXT_FEE_TIME in one.metadata for one in wanted)

    def server_id(self, server: NewServer) -> str | None:
        """The id of a server that was created; None where none was, as far as is known."""
        found: str | None = self._known_id(create_effect(server.number))
        return found

    def request_ids(self, server: NewServer) -> list[str]:
        """OpenStack's ids of the calls by which a server was created, and removed again."""
        effects, created = self.context.effects, [step.effect for step in self.steps(server)]
        ids = [self._known_id(one) for one in created]
        listed = [
            *created,
            EffectId(EffectKind.METADATA, str(self.server_id(server))),
            *(EffectId(EffectKind.DELETE, one) for one in reversed(ids) if one is not None),
        ]
        return [found for one in listed if (found := effects.request_id(one)) is not None]

    def _known_id(self, effect: EffectId) -> Any:
        """The id of what an effect has created, as it was remembered."""
        return self.context.effects.remembered(effect.id_of_made)

    # Steps.

    def steps(self, server: NewServer) -> list[Step]:
        """The steps that create one server with its disks, and a port where a subnet is chosen:
        Nova, which creates all other ports, takes no subnet.
        """
        disks = [self._volume_step(server, index) for index in range(len(server.disks))]
        port = [self._port_step(server)] if self.plan.subnet_id is not None else []
        return [*disks, *port, self._server_step(server)]

    def _volume_step(self, server: NewServer, index: int) -> Step:
        disk, part, context = server.disks[index], _part(server, index), self.context
        effect = EffectId(EffectKind.VOLUME, part)

        async def until_usable(volume_id: str) -> None:
            if context.effects.begun(create_effect(server.number)):
                return  # it has been available, and now belongs to its server
            passing = ("creating", "downloading")
            volume = await follow_volume(
                volume_id, effect, context, lambda one: one.status not in passing
            )
            if volume.status not in _USABLE:
                raise failed("volume_failed", f"volume {volume_id} is {volume.status}")

        step = self._create_step(
            "createVolume",
            effect,
            lambda: cinder.create_volume(
                context.project,
                name=disk_name(server.name, index),
                size=disk.size,
                volume_type=disk.volume_type,
                image_id=disk.image_id,
                zone=disk.zone,
                metadata=marks_of(part, self.order, context),
            ),
            lambda: self.resources.find_volume(part),
            until_usable,
        )
        after = {"size": disk.size, "type": disk.volume_type, "image": disk.image_id}
        return replace(step, after=after)

    def _port_step(self, server: NewServer) -> Step:
        step = self._create_step(
            "createPort",
            EffectId(EffectKind.PORT, str(server.number)),
            lambda: neutron.create_port(
                self.context.project,
                network_id=self.plan.network_id,
                subnet_id=str(self.plan.subnet_id),
                name=server.name,
                description=self.resources.port_mark,
                security_groups=self.plan.security_groups,
            ),
            lambda: self.resources.find_port(server.name),
        )
        return replace(step, after={"subnet": self.plan.subnet_id})

    def _server_step(self, server: NewServer) -> Step:
        effect, context = create_effect(server.number), self.context

        async def until_active(server_id: str) -> None:
            found = await follow_server(
                server_id,
                effect,
                context,
                self.progress,
                lambda one: one.status != "BUILD" and not one.busy,
            )
            if found.status != "ACTIVE":
                found = await with_fault(found, context)
                reason = "no_host" if _NO_HOST in (found.fault or "") else "create_failed"
                raise failed(reason, f"server {server_id} is {found.status}: {found.fault}")

        step = self._create_step(
            "create",
            effect,
            lambda: self._create_server(server),
            lambda: self.resources.find_server(effect.target),
            until_active,
        )
        after = {
            "name": server.name,
            "flavor": server.flavor_id,
            "zone": server.zone,
            "network": self.plan.network_id,
        }
        return replace(step, after=after)

    def _create_step(
        self,
        name: str,
        effect: EffectId,
        create: Callable[[], Awaitable[Reply]],
        find: Callable[[], Awaitable[str | None]],
        until_ready: Callable[[str], Awaitable[None]] | None = None,
    ) -> Step:
        """Build a step that creates something once, remembers its id and waits until it is ready.

        It is found by its mark where the answer, or the journal, was lost.
        """
        created: list[str] = []

        async def act() -> Reply:
            async with self._calls:
                reply = await create()
            created.append(reply.body[_CREATED[effect.kind]]["id"])
            return reply

        async def landed(_: object = None) -> str | None:
            return "" if await find() is not None else None

        async def its_id() -> str:
            found = created[0] if created else await self.context.retrying(find)
            if found is None:
                raise failed("not_found", f"{effect} was done, and what it made is gone")
            return found

        async def follow() -> None:
            found: str = await self.context.effects.remember(effect.id_of_made, its_id)
            if until_ready is not None:
                await until_ready(found)

        # Of ports the planning does not know: one that was left behind has no volume that tells of
        # it.
        looks = effect.kind is EffectKind.PORT or not self.resources.none_before
        marked = landed if looks else None
        return Step(name=name, effect=effect, act=act, landed=landed, marked=marked, follow=follow)

    async def _create_server(self, server: NewServer) -> Reply:
        port_id = None
        if self.plan.subnet_id is not None:
            port_id = self._known_id(EffectId(EffectKind.PORT, str(server.number)))
        disks = [
            self._known_id(EffectId(EffectKind.VOLUME, _part(server, index)))
            for index in range(len(server.disks))
        ]
        network = {"port": port_id} if port_id is not None else {"uuid": self.plan.network_id}
        body = {
            "name": server.name,
            "flavorRef": server.flavor_id,
            "metadata": metadata_of(server, self.order, self.plan, self.context),
            "networks": [network],
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
            **self._customization(server, port_id),
        }
        try:
            return await nova.create_server(self.context.project, body)
        except CloudRefusal as error:
            told = (QuotaExceeded, Conflict, Forbidden, NotFound)
            if not self.order.secrets.any or isinstance(error, told):
                raise
            # Nova's words repeat what it refuses to take, and go to the log and the journal.
            text = "(not repeated, for it may hold a secret)"
            raise type(error)(error.status, text, error.request_id) from None

    def _customization(self, server: NewServer, port_id: str | None) -> dict[str, Any]:
        """The fields of the body that the customer may have chosen."""
        chosen, secrets = self.order.customization, self.order.secrets
        groups = [{"name": one} for one in self.plan.security_groups]
        fields: dict[str, Any] = {
            "availability_zone": server.zone,
            "key_name": chosen.key_name,
            "tags": list(chosen.tags),
            "security_groups": groups if port_id is None else [],
            "adminPass": secrets.admin_pass and secrets.admin_pass.get_secret_value(),
            "user_data": secrets.user_data and secrets.user_data.get_secret_value(),
        }
        return {name: value for name, value in fields.items() if value}

    async def _fees(self) -> dict[str, str]:
        """The fee dates. The term begins when all servers are there; a server that has its dates
        already says when that was.
        """
        zone, begin = self.context.policy.billing_zone, self.context.policy.billing_now()
        if not self.resources.none_before:
            servers = await self.context.retrying(self.resources.servers)
            begun = [
                local_time(read_time(one.metadata.get(START_FEE_TIME)), zone) for one in servers
            ]
            begin = min([begin, *(one for one in begun if one is not None)])
        return {
            START_FEE_TIME: written(begin),
            NEXT_FEE_TIME: written(self.order.term.after(begin)),
        }

    def _fee_step(self, server_id: str, fees: Mapping[str, str]) -> Step:
        """Write the fee dates on a server that has none."""

        async def write() -> Reply:
            async with self._calls:
                return await nova.set_metadata(self.context.project, server_id, fees)

        async def marked() -> str | None:
            # A renewal may have moved them since.
            return "" if await self._has_dates(server_id) else None

        effect = EffectId(EffectKind.METADATA, server_id)
        step = metadata_step(
            "feeData",
            effect,
            self.context,
            write=write,
            written=lambda server: fees.items() <= server.metadata.items(),
        )
        return replace(step, after=fees, marked=marked, printed=False)

    # Compensation.

    async def remove_all(self) -> None:
        """Delete what the cloud shows to have been created; what cannot be deleted is told by the
        order's outcomes.
        """
        await self._remove_what_there_is()
        effects, created = (
            self.context.effects,
            [create_effect(one.number) for one in self.plan.servers],
        )
        if any(effects.begun(one) and not effects.done(one) for one in created):
            # It may have landed meanwhile, and then is in ERROR: its disks were gone before.
            await self._remove_what_there_is()

    async def _remove_what_there_is(self) -> None:
        context, resources = self.context, self.resources
        deletions = Deletions(context, self.progress)
        resources.forget()
        servers = await context.retrying(resources.servers)
        for one in servers:
            await self._remember_id(one)
        await self._undo(
            [deletions.server(one.id), deletions.kept_server(one.id)] for one in servers
        )
        resources.forget()
        # What a server that stays holds fast cannot go, and need not be waited for.
        staying = [
            *(one for one in servers if one.id in deletions.kept),
            *await context.retrying(resources.servers),
        ]
        held = {volume_id for server in staying for volume_id in server.volume_ids}
        disks = [one for one in await context.retrying(resources.volumes) if one.id not in held]
        ports = await context.retrying(resources.ports)
        since = EffectId(EffectKind.FAILURE)
        await self._undo(
            [
                *([deletions.volume(one.id, since)] for one in disks),
                *([deletions.port(one["id"])] for one in ports),
            ]
        )

    async def _undo(self, lists: Iterable[list[Step]]) -> None:
        running = [do_steps(steps, self.context, self.progress) for steps in lists]
        await all_undone(running, self.context)

    async def _remember_id(self, server: Server) -> None:
        """Remember the id of a server that is found only now: it needs a final update, too."""

        async def its_id() -> str:
            return server.id

        effect = create_effect(str(server.metadata.get(PART)))
        await self.context.effects.remember(effect.id_of_made, its_id)


def _part(server: NewServer, index: int) -> str:
    """The mark of one disk of one server."""
    return f"{server.number}.{index}"
