"""One server of a softDown: found in the project that owns it, then stopped, started again or
deleted.

A later run of the message finds the project that was found first: a server that is half deleted has
no owner any more.
"""

from contextlib import suppress
from typing import Any

from handlers.context import ProjectContext, RequestContext
from handlers.effects.ledger import EffectId, EffectKind
from handlers.openstack.nova import ERROR, Server, set_metadata
from handlers.openstack.projects import TenantIs
from handlers.orders.delete_server import (
    ServerDeletion,
    carry_out_deletion,
    deletion_steps,
    kept_resources,
    plan_deletion,
    request_ids,
)
from handlers.orders.instances import find_remaining, idle_server
from handlers.orders.limits import Demand, check_quotas, items_with
from handlers.orders.order_markers import has_order, with_order
from handlers.orders.power import switch
from handlers.orders.progress import OrderProgress
from handlers.orders.snapshot import take_snapshot
from handlers.orders.soft_down.marker import ITEM, STOPPED, is_marked, mark, unmark
from handlers.orders.step import Deed, failed
from handlers.orders.steps import change_metadata, server_now
from handlers.servers.guard import judge_state, unknown_server
from handlers.servers.power import effect_name
from messages.codes import Code
from messages.commands import Power
from messages.errors import OutcomeUnknown, Refused
from messages.order_results import InstanceOutcome
from messages.orders import Operate, SoftDownInstance
from messages.updates import OrderStatus

#: What a server is then, and what it may be before: Nova stops one in ERROR, too.
_STATES = {
    Power.STOP: ("SHUTOFF", frozenset({"ACTIVE", ERROR})),
    Power.START: ("ACTIVE", frozenset({"SHUTOFF"})),
}
_TOLD = {Power.STOP: OrderStatus.STOPPING, Power.START: OrderStatus.STARTING}
#: The status of a server that is gone.
_GONE = "DELETED"


class Takedown:
    """What is done with one server. `tenant` is the project that the message names, or that may
    ask; None: any.
    """

    def __init__(
        self,
        instance: SoftDownInstance,
        tenant: str | None,
        errand: RequestContext,
        progress: OrderProgress,
    ) -> None:
        self.server_id = instance.instance_id
        self._operate = instance.operate
        self._tenant = tenant
        self._errand = errand
        self._effects = errand.effects
        self._progress = progress
        self._context: ProjectContext | None = None
        self._found = False

    @property
    def project_id(self) -> str | None:
        """The project that owns the server, where that is known."""
        owner: str | None = self._effects.remembered(f"project:{self.server_id}")
        return owner or self._tenant

    @property
    def touched(self) -> bool:
        """Whether anything may have been done to the server."""
        names = [
            *(effect_name(power, self.server_id) for power in _STATES),
            EffectId(EffectKind.DELETE, self.server_id),
        ]
        return self._found or any(self._effects.begun(name) for name in names)

    async def carry_out(self) -> None:
        """Do it; what is so already, and what is gone, is done."""
        context = await self._enter()
        if context is None:
            return
        if self._operate is Operate.DELETE:
            await self._delete(context)
        elif (server := await self._find(context)) is not None:
            self._found = self._is_found(server, context)
            if self._found:
                return
            await self._remember_before(server, context)
            await (self._stop if self._operate is Operate.STOP else self._resume)(server, context)

    async def deeds(self) -> list[Deed]:
        """What would be done."""
        context = await self._enter()
        if context is None:
            return []
        if self._operate is Operate.DELETE:
            return deletion_steps(await plan_deletion(self.server_id, context))
        server = await self._find(context)
        if server is None or self._is_found(server, context):
            return []
        if self._operate is Operate.STOP:
            if self._is_so(server, Power.STOP):
                return []
            await self._check_room(server, context)
            return [
                Deed("stop", server.id, server.status, "SHUTOFF"),
                Deed("mark", server.id, None, STOPPED),
            ]
        started = (
            []
            if self._is_so(server, Power.START)
            else [Deed("start", server.id, server.status, "ACTIVE")]
        )
        return [
            *started,
            *([Deed("unmark", server.id, STOPPED, None)] if is_marked(server) else []),
        ]

    async def outcome(self, failure: Refused | None) -> InstanceOutcome:
        """What has become of the server, as the cloud shows it."""
        context = self._context
        server = await find_remaining(self.server_id, context) if context is not None else None
        deletion = self._recalled_deletion()
        gone = None if failure else _GONE
        left = (
            await kept_resources(deletion, context)
            if deletion is not None and context is not None and not server
            else {}
        )
        return InstanceOutcome(
            server.status if server is not None else gone,
            failure,
            before=self._effects.remembered(f"before:{self.server_id}"),
            after=await take_snapshot(server, context)
            if server is not None and context is not None
            else None,
            request_ids=request_ids(deletion, self._errand)
            if deletion is not None
            else self._effects.request_ids([self.server_id]),
            more=left,
        )

    # Where it is.

    async def _enter(self) -> ProjectContext | None:
        """The project of the server; None where the server is gone. `Refused` where it is not the
        tenant's.
        """
        with self._errand.checks.of("tenant", self.server_id):
            name = f"project:{self.server_id}"
            project_id: str | None = self._effects.remembered(name)
            if project_id is None:
                project_id = await self._owner()
                if project_id is None:
                    return None
                await self._effects.revise(name, project_id)
            self._context = await self._errand.in_project(project_id)
        return self._context

    async def _owner(self) -> str | None:
        cloud = self._errand.cloud
        if not cloud.has_admin:
            return self._tenant
        owner = await self._errand.retrying(lambda: cloud.owner_of(self.server_id))
        if owner is None:
            return None
        if self._tenant not in (None, owner):
            raise unknown_server(self.server_id, None)
        try:
            await cloud.find_project(owner, TenantIs.ID)
        except Refused:
            raise failed(
                "forbidden", f"the service account has no role in project {owner}"
            ) from None
        return owner

    async def _find(self, context: ProjectContext) -> Server | None:
        """The server at rest; None where it is gone."""
        if await find_remaining(self.server_id, context) is None:
            return None
        try:
            return await idle_server(self.server_id, context)
        except Refused as refused:
            if refused.code is Code.SERVER_UNKNOWN:  # it went meanwhile
                return None
            raise

    # What is done.

    def _is_found(self, server: Server, context: ProjectContext) -> bool:
        """Tell whether it was carried out though the journal does not know it: the server bears its
        name.

        What was done with the server since, by whoever has paid for it, must stay.
        """
        return not self.touched and has_order(server, context)

    async def _stop(self, server: Server, context: ProjectContext) -> None:
        if not self._effects.begun(effect_name(Power.STOP, server.id)) and not self._is_so(
            server, Power.STOP
        ):
            await self._check_room(server, context)
        await self._switch(server, Power.STOP, context)
        # One that its owner had switched off is not started for him by whoever pays.
        # One that bears the order's name was marked, and may have been paid for since.
        is_stopped = self._effects.begun(effect_name(Power.STOP, server.id))
        if is_stopped and not has_order(server, context):
            await mark(server.id, context, **with_order(server, context))

    async def _check_room(self, server: Server, context: ProjectContext) -> None:
        """`Refused` where the mark could not be left: a renewal would not start the server again."""
        added = (ITEM, *with_order(server, context))
        await check_quotas(Demand(metadata=(items_with(server, added),)), context, server.id)

    async def _resume(self, server: Server, context: ProjectContext) -> None:
        await self._switch(server, Power.START, context)
        if is_marked(server):
            await unmark(server.id, context)
        if self.touched:
            with suppress(
                Refused, OutcomeUnknown
            ):  # it runs; the mark is for the case that the journal is lost
                await self._note(server, context)

    async def _note(self, server: Server, context: ProjectContext) -> None:
        items = with_order(server, context)

        async def landed(_: object) -> str | None:
            return "" if has_order(await server_now(server.id, context), context) else None

        await change_metadata(
            server.id,
            f"note:{server.id}",
            lambda: set_metadata(context.project, server.id, items),
            landed,
            context,
        )

    async def _switch(self, server: Server, power: Power, context: ProjectContext) -> None:
        if not self._effects.begun(effect_name(power, server.id)) and self._is_so(server, power):
            return
        await self._progress.publish(_TOLD[power])
        await switch(server.id, power, context, self._progress)

    def _is_so(self, server: Server, power: Power) -> bool:
        """Whether it is stopped, or runs, already; `Refused` where it is in no state to be."""
        end, states = _STATES[power]
        with self._errand.checks.of("state", server.id):
            refused = judge_state(server, states)
            if server.status != end and refused:
                raise refused
        return server.status == end

    async def _delete(self, context: ProjectContext) -> None:
        deletion = self._recalled_deletion()
        if deletion is None or not self._is_deleting(deletion):
            deletion = await plan_deletion(self.server_id, context)
            await self._effects.revise(f"departure:{self.server_id}", deletion.to_json())
            await self._effects.revise(f"before:{self.server_id}", deletion.before)
        if not deletion.gone:
            await self._progress.publish(OrderStatus.DELETING)
        await carry_out_deletion(deletion, context, self._progress)

    def _recalled_deletion(self) -> ServerDeletion | None:
        record: dict[str, Any] | None = self._effects.remembered(f"departure:{self.server_id}")
        return ServerDeletion.from_json(record) if record is not None else None

    def _is_deleting(self, deletion: ServerDeletion) -> bool:
        """Whether it was begun: then there may be less of the server than there was."""
        first = [f"release:{one}" for one in deletion.floating_ips]
        return any(self._effects.begun(name) for name in (*first, f"delete:{self.server_id}"))

    async def _remember_before(self, server: Server, context: ProjectContext) -> None:
        """The server as it was before anything was done to it."""
        name = f"before:{server.id}"
        if not self.touched or self._effects.remembered(name) is None:
            await self._effects.revise(name, await take_snapshot(server, context))
