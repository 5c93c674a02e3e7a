"""renew: the date until which a server is paid for moves on; what softDown had stopped is started
again.
"""

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime

from pydantic import TypeAdapter

from handlers.context import ProjectContext
from handlers.effects.concurrency import wait_for_all
from handlers.effects.ledger import EffectKind
from handlers.openstack import nova
from handlers.openstack.nova import ERROR, METADATA_STATES, Server
from handlers.openstack.sessions import Reply
from handlers.orders.billing import NEXT_FEE_TIME, fee_time, local_time, written
from handlers.orders.instances import idle_server
from handlers.orders.limits import Demand, check_quotas, items_with
from handlers.orders.order_markers import has_order, with_order, without_order
from handlers.orders.power import switch
from handlers.orders.saga import Outcomes, Saga, all_done, all_undone, carry_out
from handlers.orders.snapshot import Snapshot, take_snapshot, unchanged_outcomes
from handlers.orders.soft_down.marker import STOPPED, is_marked, mark, unmark
from handlers.orders.step import Deed
from handlers.orders.steps import change_metadata, declare
from handlers.servers.guard import find_server, state_refusal
from handlers.servers.targets import power_effect
from messages.commands import Power
from messages.errors import Transient, wrong
from messages.order_results import ProductOutcome
from messages.orders import InstanceProduct, OrderRenew, read_time
from messages.results import Result
from messages.updates import OrderStatus


@dataclass(frozen=True, slots=True)
class Renewal:
    """What becomes of one server: paid for until `until`, as fee data have it."""

    server_id: str
    until: str
    starts: bool
    unmarks: bool
    before: Snapshot
    #: The server bore the order's mark when it was planned: an earlier run has moved the date, of
    #: which the journal knows nothing. From where, nobody knows any more.
    found: bool = False

    @property
    def was_until(self) -> str | None:
        """Until when it was paid for; None where nothing says so."""
        until: str | None = self.before["feeData"][NEXT_FEE_TIME]
        return until

    @property
    def in_error(self) -> bool:
        """Whether Nova must be made to take metadata of it."""
        return bool(self.before["status"] == ERROR)


async def renew_servers(order: OrderRenew, context: ProjectContext) -> Result:
    """Carry the order out on all its servers, or leave all as they were; `Transient` where a later
    try may do it.
    """
    return await carry_out(Renewing(order, context))


@dataclass(frozen=True, slots=True)
class RenewalPlan:
    """The plan of an order. `now` is the billing time at which it was first made: the terms begin
    then, however long ago that is.
    """

    now: str
    renewals: list[Renewal]


_STORED = TypeAdapter(RenewalPlan)


class Renewing(Saga[OrderRenew, RenewalPlan]):
    """The order's plan, steps and undoing."""

    def __init__(self, order: OrderRenew, context: ProjectContext) -> None:
        super().__init__(order, context, _STORED)
        self._now = context.policy.billing_now()
        #: The servers as this run has planned with them.
        self._planned: dict[str, Server] = {}

    async def make_plan(self) -> RenewalPlan:
        context = self.context
        servers = await wait_for_all(idle_server(one, context) for one in self.order.instance_ids)
        self._planned = {server.id: server for server in servers}
        due = [one for one in servers if not has_order(one, context)]
        await wait_for_all(_judged(one, context) for one in due)
        items = [items_with(one, (NEXT_FEE_TIME, *with_order(one, context))) for one in due]
        await check_quotas(Demand(metadata=tuple(items)), context)
        pictures = await asyncio.gather(
            *(take_snapshot(server, self.context) for server in servers)
        )
        now = written(self._now)
        return RenewalPlan(
            now, [self._renewal(*pair) for pair in zip(servers, pictures, strict=True)]
        )

    def _renewal_of(self, server_id: str) -> Renewal:
        return next(one for one in self.plan.renewals if one.server_id == server_id)

    async def do(self) -> None:
        renewals, zone = self.plan.renewals, self.context.policy.billing_zone
        self._now = local_time(read_time(self.plan.now), zone) or self._now
        await all_done(self._move(one) for one in renewals)
        starting = [one for one in renewals if one.starts]
        if starting:
            await self.progress.publish(OrderStatus.STARTING)
            await all_done(
                switch(one.server_id, Power.START, self.context, self.progress) for one in starting
            )
        await all_done(unmark(one.server_id, self.context) for one in renewals if one.unmarks)

    def printed(self) -> list[Deed]:
        renewals = self.plan.renewals
        return [
            *(
                Deed("renew", one.server_id, one.was_until, one.until)
                for one in renewals
                if not one.found
            ),
            *(Deed("start", one.server_id, "SHUTOFF", "ACTIVE") for one in renewals if one.starts),
            *(Deed("unmark", one.server_id, STOPPED, None) for one in renewals if one.unmarks),
        ]

    async def undo(self) -> None:
        await self.progress.publish(OrderStatus.REVERTING)
        await all_undone([self._undo(one) for one in self.plan.renewals], self.context)

    async def outcomes(self) -> Outcomes:
        ended = await asyncio.gather(*map(self._outcome, self.order.products))
        for outcome in ended:
            server_id = str(outcome.instance_id)
            # An earlier run may have told of the start of a server that was found renewed.
            is_told = self._renewal_of(server_id).found
            if is_told or self.context.effects.begun(power_effect(Power.START, server_id)):
                await self.progress.end_server(server_id, outcome.status)
        return [ended]

    async def untouched(self) -> Outcomes:
        return await unchanged_outcomes(self.order.products, self.context)

    def _renewal(self, server: Server, picture: Snapshot) -> Renewal:
        found = has_order(server, self.context)
        # Who has not paid since the order was carried out was rightly stopped again.
        resumes = is_marked(server) and (not found or self._is_paid(server))
        return Renewal(
            server_id=server.id,
            until=server.metadata.get(NEXT_FEE_TIME, "") if found else self._until(server),
            starts=resumes and server.status == "SHUTOFF",
            unmarks=resumes and server.status != ERROR,
            before=picture,
            found=found,
        )

    def _is_paid(self, server: Server) -> bool:
        zone = self.context.policy.billing_zone
        until = local_time(read_time(server.metadata.get(NEXT_FEE_TIME)), zone)
        return until is not None and until > self._now

    def _until(self, server: Server) -> str:
        with self.context.checks.of("feeData", server.id):
            begin = _later(
                fee_time(server, NEXT_FEE_TIME, self.context.policy.billing_zone), self._now
            )
        with self.context.checks.of("duration", server.id):
            try:
                return written(self.order.term.after(begin))
            except (ValueError, OverflowError):
                raise wrong("duration", "no calendar goes that far") from None

    # The date.

    async def _move(self, renewal: Renewal) -> None:
        server_id = renewal.server_id

        async def landed(_: object) -> str | None:
            server = await nova.get_server(self.context.project, server_id)
            return "" if has_order(server, self.context) else None

        async def marked() -> str | None:
            # What the planning has just read need not be asked for again.
            planned = self._planned.pop(server_id, None)
            if planned is None:
                return await landed(None)
            return "" if has_order(planned, self.context) else None

        if renewal.in_error and not renewal.found:
            await declare(server_id, f"reset:{server_id}", self.context, well=True)
        await change_metadata(
            server_id,
            _effect(server_id),
            lambda: self._write(server_id),
            landed,
            self.context,
            marked=marked,
        )
        if renewal.in_error and not renewal.found:
            await declare(server_id, f"error:{server_id}", self.context, well=False)

    async def _write(self, server_id: str) -> Reply:
        """Move the date from where it is now: another order may have moved it since this one was
        planned.
        """
        server = await nova.get_server(self.context.project, server_id)
        known, date = self._renewal_of(server_id), server.metadata.get(NEXT_FEE_TIME)
        if date != known.was_until:
            before = {**known.before, "feeData": {**known.before["feeData"], NEXT_FEE_TIME: date}}
            moved = replace(known, until=self._until(server), before=before)
            listed = [moved if one is known else one for one in self.plan.renewals]
            self.plan = replace(self.plan, renewals=listed)
            await self.store_plan()
        items = {NEXT_FEE_TIME: self._renewal_of(server_id).until} | with_order(
            server, self.context
        )
        return await nova.set_metadata(self.context.project, server_id, items)

    # The way back.

    async def _undo(self, renewal: Renewal) -> None:
        server_id, context = renewal.server_id, self.context
        if context.effects.begun(power_effect(Power.START, server_id)):
            await switch(
                server_id, Power.STOP, context, self.progress, effect=f"undo-start:{server_id}"
            )
        if context.effects.begun(f"unmark:{server_id}"):
            await mark(server_id, context, EffectKind.UNDO_UNMARK)
        if context.effects.begun(_effect(server_id)) and not renewal.found:
            await self._restore(renewal)
        if renewal.in_error and context.effects.begun(f"reset:{server_id}"):
            await declare(server_id, f"undo-reset:{server_id}", context, well=False)

    async def _restore(self, renewal: Renewal) -> None:
        """Bring the date back where it was, and then take the order's mark away."""
        server_id, project = renewal.server_id, self.context.project
        server = await nova.get_server(project, server_id)
        if not has_order(server, self.context):
            return

        async def landed(_: object) -> str | None:
            found = await nova.get_server(project, server_id)
            return "" if found.metadata.get(NEXT_FEE_TIME) == renewal.was_until else None

        async def write() -> Reply:
            if renewal.was_until is None:
                return await nova.remove_metadata(project, server_id, NEXT_FEE_TIME)
            return await nova.set_metadata(project, server_id, {NEXT_FEE_TIME: renewal.was_until})

        if server.status == ERROR:
            await declare(server_id, f"undo-error:{server_id}", self.context, well=True)
        await change_metadata(server_id, f"undo-renew:{server_id}", write, landed, self.context)
        await self._unname(server)

    async def _unname(self, server: Server) -> None:
        """Take the mark away: the order was not carried out, and whoever finds the mark would say
        that it was.
        """

        async def landed(_: object) -> str | None:
            found = await nova.get_server(self.context.project, server.id)
            return None if has_order(found, self.context) else ""

        async def write() -> Reply:
            item, others = without_order(server, self.context)
            if not others:
                return await nova.remove_metadata(self.context.project, server.id, item)
            return await nova.set_metadata(self.context.project, server.id, {item: others})

        await change_metadata(server.id, f"undo-name:{server.id}", write, landed, self.context)

    async def _outcome(self, product: InstanceProduct) -> ProductOutcome:
        """Whether anything was left changed is looked up, not reckoned."""
        renewal = self._renewal_of(product.instance_id)
        server = await find_server(self.context, product.instance_id)
        outcome = ProductOutcome(
            product.ordered,
            product.instance_id,
            None,
            changed=True,
            before=None if renewal.found else renewal.before,
            request_ids=self.context.effects.request_ids([product.instance_id]),
        )
        if server is None:
            return outcome
        moved = server.metadata.get(NEXT_FEE_TIME) != renewal.was_until
        changed = renewal.found or moved or server.status != renewal.before["status"]
        return replace(
            outcome,
            status=server.status,
            changed=changed,
            after=await take_snapshot(server, self.context),
        )


async def _judged(server: Server, context: ProjectContext) -> None:
    """`Refused` where the date cannot be moved, `Transient` where it can be later."""
    with context.checks.of("state", server.id):
        if server.status == "VERIFY_RESIZE":
            raise Transient("busy", detail="the server is in the middle of a resize")
        if refused := state_refusal(
            server, METADATA_STATES | {ERROR} if context.cloud.has_admin else METADATA_STATES
        ):
            raise refused


def _later(one: datetime | None, other: datetime) -> datetime:
    # By the instant: two times of one zone are compared by what the clocks show, which repeats
    # itself.
    return max(one, other, key=datetime.timestamp) if one is not None else other


def _effect(server_id: str) -> str:
    return f"renew:{server_id}"
