"""One server of a softDown: found in the project that owns it, then stopped, started or deleted.

A later run of the message uses the project that was found first: a server that is half deleted has
no owner any more.
"""

from contextlib import suppress
from dataclasses import replace

from pydantic import TypeAdapter

from handlers.context import ProjectContext, RequestContext
from handlers.effects.ledger import EffectId, EffectKind
from handlers.openstack.keystone import TenantIs
from handlers.openstack.nova import ERROR, Server, set_metadata
from handlers.orders.billing import has_order, with_order
from handlers.orders.delete_server import (
    ServerDeletion,
    deletion_steps,
    kept_resources,
    plan_deletion,
)
from handlers.orders.limits import Demand, check_quotas, items_with
from handlers.orders.progress import OrderProgress
from handlers.orders.saga import do_steps
from handlers.orders.snapshot import find_remaining, idle_server, take_snapshot
from handlers.orders.soft_down.marker import ITEM, is_marked, mark_step, unmark_step
from handlers.orders.step import Ready, Step, failed, metadata_step, power_step
from handlers.servers.guard import state_refusal, unknown_server
from handlers.servers.targets import power_effect
from messages.codes import Code
from messages.commands import Power
from messages.errors import OutcomeUnknown, Refused
from messages.orders import Operate, SoftDownInstance
from messages.results import InstanceOutcome

#: The status that an action leads to, and those from which it does: Nova stops a server in ERROR,
#: too.
_STATES = {
    Power.STOP: ("SHUTOFF", frozenset({"ACTIVE", ERROR})),
    Power.START: ("ACTIVE", frozenset({"SHUTOFF"})),
}
_STORED = TypeAdapter(ServerDeletion)


class ServerSoftDown:
    """The softDown of one server.

    `tenant` is the project that the message names, or that a preview is limited to; None: any.
    """

    def __init__(
        self,
        instance: SoftDownInstance,
        tenant: str | None,
        request: RequestContext,
        progress: OrderProgress,
    ) -> None:
        self.server_id = instance.instance_id
        self._operate = instance.operate
        self._tenant = tenant
        self._request = request
        self._effects = request.effects
        self._progress = progress
        self._context: ProjectContext | None = None
        self._found = False

    @property
    def project_id(self) -> str | None:
        """The project that owns the server, where that is known."""
        owner: str | None = self._effects.remembered(self._id(EffectKind.PROJECT))
        return owner or self._tenant

    @property
    def touched(self) -> bool:
        """True where anything may have been done to the server."""
        powers = (power_effect(power, self.server_id) for power in _STATES)
        names = [*powers, self._id(EffectKind.DELETE)]
        return self._found or any(self._effects.begun(name) for name in names)

    async def carry_out(self) -> None:
        """Do the steps; what is so already, and a server that is gone, is a success."""
        context = await self._enter()
        if context is None:
            return
        if self._operate is Operate.DELETE:
            deletion = await self._load_deletion(context)
            steps = deletion_steps(deletion, context, self._progress)
            await do_steps(steps, context, self._progress)
            return
        server = await self._find_undone(context)
        if server is None:
            return
        # As it was before anything was done to it.
        before = self._id(EffectKind.BEFORE)
        if not self.touched or self._effects.remembered(before) is None:
            snapshot = await take_snapshot(server, context)
            await self._effects.revise(before, snapshot.model_dump(mode="json"))
        await do_steps(await self._power_steps(server, context), context, self._progress)
        if self._operate is not Operate.STOP and self.touched:
            # It runs; its name is for the case that the journal is lost.
            with suppress(Refused, OutcomeUnknown):
                await do_steps([self._note_step(server, context)], context, self._progress)

    async def preview(self) -> list[Step]:
        """The steps that would be done; raises what `carry_out` would raise before them."""
        context = await self._enter()
        if context is None:
            return []
        if self._operate is Operate.DELETE:
            deletion = await plan_deletion(self.server_id, context)
            return deletion_steps(deletion, context, self._progress)
        server = await self._find_undone(context)
        return await self._power_steps(server, context) if server is not None else []

    async def outcome(self, failure: Refused | None) -> InstanceOutcome:
        """Look up what became of the server."""
        context, deletion, server = self._context, self._stored_deletion(), None
        if context is not None:
            server = await find_remaining(self.server_id, context)
        kept, ids = {}, [self.server_id]
        if deletion is not None:
            ids += [*deletion.floating_ips, *deletion.volumes, *deletion.own_ports]
            if context is not None and server is None:
                kept = await kept_resources(deletion, context)
        gone = None if failure else "DELETED"
        return InstanceOutcome(
            server.status if server is not None else gone,
            failure,
            before=self._effects.remembered(self._id(EffectKind.BEFORE)),
            after=await take_snapshot(server, context) if server and context else None,
            request_ids=self._effects.request_ids(ids),
            more=kept,
        )

    def _id(self, kind: EffectKind) -> EffectId:
        return EffectId(kind, self.server_id)

    # Find the server.

    async def _enter(self) -> ProjectContext | None:
        """Enter the server's project; None where the server is gone. Raises `Refused` where it is
        not the tenant's.
        """
        with self._request.checks.of("tenant", self.server_id):
            name = self._id(EffectKind.PROJECT)
            project_id: str | None = self._effects.remembered(name)
            if project_id is None:
                project_id = await self._owner()
                if project_id is None:
                    return None
                await self._effects.revise(name, project_id)
            self._context = await self._request.in_project(project_id)
        return self._context

    async def _owner(self) -> str | None:
        cloud = self._request.cloud
        if not cloud.has_admin:
            return self._tenant
        owner = await self._request.retrying(lambda: cloud.owner_of(self.server_id))
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

    async def _find_undone(self, context: ProjectContext) -> Server | None:
        """The server, idle; None where it is gone, or bears the order's name.

        Then the order was carried out though the journal does not know it, and what was done with
        the server since, by whoever has paid for it, must stay.
        """
        if await find_remaining(self.server_id, context) is None:
            return None
        try:
            server = await idle_server(self.server_id, context)
        except Refused as refused:
            if refused.code is Code.SERVER_UNKNOWN:  # it went meanwhile
                return None
            raise
        self._found = not self.touched and has_order(server, context)
        return server if not self._found else None

    # Stop and start.

    async def _power_steps(self, server: Server, context: ProjectContext) -> list[Step]:
        """The steps to stop or start the server, none where it is so already.

        Raises `Refused` where it is in no state for that, or the marker could not be left.
        """
        power = Power.STOP if self._operate is Operate.STOP else Power.START
        begun, steps = self._effects.begun(power_effect(power, server.id)), list[Step]()
        if begun or not self._is_so(server, power):
            step = power_step(power, power_effect(power, server.id), context, self._progress)
            steps.append(replace(step, before=server.status))
        if power is Power.START:
            return [*steps, *([unmark_step(server.id, context)] if is_marked(server) else [])]
        if steps and not begun:
            # Without the marker a renewal would not start the server again.
            added = (ITEM, *with_order(server, context))
            await check_quotas(Demand(metadata=(items_with(server, added),)), context, server.id)
        # A server that bears the order's name was marked, and may have been paid for since.
        if steps and not has_order(server, context):
            steps.append(self._mark_step(server, context))
        return steps

    def _mark_step(self, server: Server, context: ProjectContext) -> Step:
        async def prepare() -> Ready | None:
            # A server that its owner had stopped meanwhile is not started for him by a renewal.
            stopped = self._effects.begun(power_effect(Power.STOP, server.id))
            return Ready() if stopped else None

        step = mark_step(server.id, context, order=with_order(server, context))
        return replace(step, prepare=prepare)

    def _is_so(self, server: Server, power: Power) -> bool:
        """Tell whether it is stopped, or runs, already; `Refused` where it is in no state to be."""
        end, states = _STATES[power]
        with self._request.checks.of("state", server.id):
            refused = state_refusal(server, states)
            if server.status != end and refused:
                raise refused
        return server.status == end

    def _note_step(self, server: Server, context: ProjectContext) -> Step:
        """Write the order's name on a server that was started."""
        items = with_order(server, context)
        step = metadata_step(
            "note",
            self._id(EffectKind.NOTE),
            context,
            write=lambda: set_metadata(context.project, server.id, items),
            written=lambda found: has_order(found, context),
        )
        return replace(step, printed=False)

    # Delete.

    async def _load_deletion(self, context: ProjectContext) -> ServerDeletion:
        """The plan that an earlier run has begun, or a new one."""
        deletion = self._stored_deletion()
        if deletion is not None and self._is_begun(deletion):
            return deletion
        deletion = await plan_deletion(self.server_id, context)
        record = _STORED.dump_python(deletion, mode="json")
        await self._effects.revise(self._id(EffectKind.DEPARTURE), record)
        await self._effects.revise(self._id(EffectKind.BEFORE), record["before"])
        return deletion

    def _stored_deletion(self) -> ServerDeletion | None:
        record = self._effects.remembered(self._id(EffectKind.DEPARTURE))
        return _STORED.validate_python(record) if record is not None else None

    def _is_begun(self, deletion: ServerDeletion) -> bool:
        """Tell whether there may be less of the server than was planned with."""
        released = (EffectId(EffectKind.RELEASE, one) for one in deletion.floating_ips)
        return any(self._effects.begun(one) for one in (*released, self._id(EffectKind.DELETE)))
