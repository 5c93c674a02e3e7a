"""renew: move on the date until which a server is paid for; start what softDown had stopped."""

import asyncio
from dataclasses import replace
from datetime import datetime

from pydantic import TypeAdapter

from handlers.context import ProjectContext
from handlers.effects.concurrency import wait_for_all
from handlers.effects.ledger import EffectId, EffectKind
from handlers.openstack import nova
from handlers.openstack.nova import ERROR, METADATA_STATES, VERIFY_RESIZE, Server
from handlers.openstack.sessions import Reply
from handlers.orders.billing import NEXT_FEE_TIME, fee_time, has_order, with_order, without_order
from handlers.orders.limits import Demand, check_quotas, items_with
from handlers.orders.saga import Outcomes, Saga, carry_out, do_step, do_steps, request_ids
from handlers.orders.snapshot import idle_server, take_snapshot, unchanged_outcomes
from handlers.orders.soft_down.marker import is_marked, mark_step, unmark_step
from handlers.orders.step import Ready, Step, metadata_step, power_step, server_now, state_step
from handlers.servers.fee_data import local_time, written
from handlers.servers.guard import find_server, state_refusal
from messages.commands import Power
from messages.errors import Transient, wrong
from messages.orders import InstanceProduct, OrderRenew, read_time
from messages.record import record
from messages.results import ProductOutcome, Result, ServerSnapshot


@record
class Renewal:
    """The renewal of one server, which is paid for until `until`, written as fee data are.

    Stored in the journal.
    """

    server_id: str
    until: str
    starts: bool
    unmarks: bool
    before: ServerSnapshot
    #: The order's name was on the server when it was planned: an earlier run, of which the journal
    #: knows nothing, has moved the date. From where, nobody knows any more.
    found: bool = False

    @property
    def was_until(self) -> str | None:
        """The date until which it was paid for; None where nothing says so."""
        until: str | None = self.before.fee_data.next_fee_time
        return until

    @property
    def in_error(self) -> bool:
        """True where Nova takes its metadata only after it was declared well."""
        return not self.found and self.before.status == ERROR


@record
class RenewalPlan:
    """The plan of an order, stored in the journal.

    `now` is the billing time at which it was first made: a term begins then, however long ago that
    is.
    """

    now: str
    renewals: tuple[Renewal, ...]


_STORED = TypeAdapter(RenewalPlan)
#: The names of the steps, in the sequence in which they are done for all servers.
_NAMES = ("reset", "renew", "error", "start", "unmark")


async def renew_servers(order: OrderRenew, context: ProjectContext) -> Result:
    """Carry the order out on all its servers, or leave all as they were; `Transient` where a later
    try may do it.
    """
    return await carry_out(RenewSaga(order, context))


class RenewSaga(Saga[OrderRenew, RenewalPlan]):
    """The saga of one renew order."""

    def __init__(self, order: OrderRenew, context: ProjectContext) -> None:
        super().__init__(order, context, _STORED)
        #: The servers as this run has planned with them.
        self._planned: dict[str, Server] = {}

    # The plan.

    async def make_plan(self) -> RenewalPlan:
        context, now = self.context, self.context.policy.billing_now()
        servers = await wait_for_all(idle_server(one, context) for one in self.order.instance_ids)
        self._planned = {server.id: server for server in servers}
        due = [one for one in servers if not has_order(one, context)]
        await wait_for_all(_check_state(one, context) for one in due)
        items = [items_with(one, (NEXT_FEE_TIME, *with_order(one, context))) for one in due]
        await check_quotas(Demand(metadata=tuple(items)), context)
        befores = await asyncio.gather(*(take_snapshot(server, context) for server in servers))
        renewals = [self._renewal(*one, now) for one in zip(servers, befores, strict=True)]
        return RenewalPlan(written(now), tuple(renewals))

    def _renewal(self, server: Server, before: ServerSnapshot, now: datetime) -> Renewal:
        found = has_order(server, self.context)
        # A server that has not been paid for since the order was carried out was rightly stopped
        # again.
        zone = self.context.policy.billing_zone
        until = local_time(read_time(server.metadata.get(NEXT_FEE_TIME)), zone)
        is_paid = until is not None and until > now
        resumes = is_marked(server) and (not found or is_paid)
        return Renewal(
            server_id=server.id,
            until=server.metadata.get(NEXT_FEE_TIME, "") if found else self._until(server, now),
            starts=resumes and server.status == "SHUTOFF",
            unmarks=resumes and server.status != ERROR,
            before=before,
            found=found,
        )

    def _until(self, server: Server, now: datetime) -> str:
        with self.context.checks.of("feeData", server.id):
            paid = fee_time(server, NEXT_FEE_TIME, self.context.policy.billing_zone)
            # By the instant: two times of one zone are compared by what the clocks show, which
            # repeats itself.
            begin = max(paid or now, now, key=datetime.timestamp)
        with self.context.checks.of("duration", server.id):
            try:
                return written(self.order.term.after(begin))
            except (ValueError, OverflowError):
                raise wrong("duration", "no calendar goes that far") from None

    def _renewal_of(self, server_id: str) -> Renewal:
        return next(one for one in self.plan.renewals if one.server_id == server_id)

    # The steps. A server in ERROR is declared well for as long as its metadata are written.

    def steps(self) -> list[Step]:
        steps = [step for one in self.plan.renewals for step in self._steps_of(one)]
        return sorted(steps, key=lambda step: _NAMES.index(step.name))

    def _steps_of(self, renewal: Renewal) -> list[Step]:
        server_id, context, steps = renewal.server_id, self.context, list[Step]()
        reset = self._state_step(EffectKind.RESET, server_id, well=True)
        undo_reset = self._state_step(EffectKind.UNDO_RESET, server_id, well=False)
        error = self._state_step(EffectKind.ERROR, server_id, well=False)
        if renewal.in_error:
            steps += [replace(reset, undo=(undo_reset,)), error]
        if not renewal.found:
            steps.append(self._renew_step(renewal, error if renewal.in_error else None))
        if renewal.starts:
            start, stop = (
                power_step(power, EffectId(kind, server_id), context, self.progress)
                for power, kind in (
                    (Power.START, EffectKind.START),
                    (Power.STOP, EffectKind.UNDO_START),
                )
            )
            steps.append(replace(start, before="SHUTOFF", undo=(stop,)))
        if renewal.unmarks:
            mark = mark_step(server_id, context, EffectKind.UNDO_UNMARK)
            steps.append(replace(unmark_step(server_id, context), undo=(mark,)))
        return steps

    async def do(self) -> None:
        # A server in ERROR is ACTIVE only while its date is written, however long another one of
        # the order has to be waited for.
        in_error = {one.server_id for one in self.plan.renewals if one.in_error}
        dated = [one for one in self.steps() if one.name in ("reset", "renew", "error")]
        declared = [[step for step in dated if step.instance_id == one] for one in in_error]
        await wait_for_all(
            (do_steps(steps, self.context, self.progress) for steps in declared),
            passing_first=True,
        )
        await super().do()

    def _state_step(self, kind: EffectKind, server_id: str, *, well: bool) -> Step:
        return state_step(kind.value, EffectId(kind, server_id), self.context, well=well)

    def _renew_step(self, renewal: Renewal, error: Step | None) -> Step:
        """Move the date; `error` puts the server back into ERROR."""
        server_id, context = renewal.server_id, self.context

        async def marked() -> str | None:
            # What the planning has just read need not be asked for again.
            server = self._planned.pop(server_id, None)
            if server is None:
                return await step.landed(None)
            return "" if has_order(server, context) else None

        async def follow() -> None:
            # At once: another server of the order may have to be waited for.
            if error is not None:
                await do_step(error, context)

        step = metadata_step(
            "renew",
            EffectId(EffectKind.RENEW, server_id),
            context,
            write=lambda: self._move_date(server_id),
            written=lambda server: has_order(server, context),
        )
        return replace(
            step,
            before=renewal.was_until,
            after=renewal.until,
            marked=marked,
            follow=follow,
            undo=self._restore_steps(server_id),
        )

    async def _move_date(self, server_id: str) -> Reply:
        """Move the date from where it is now: another order may have moved it since this one was
        planned.
        """
        server = await nova.get_server(self.context.project, server_id)
        renewal, date = self._renewal_of(server_id), server.metadata.get(NEXT_FEE_TIME)
        if date != renewal.was_until:
            policy = self.context.policy
            now = local_time(read_time(self.plan.now), policy.billing_zone) or policy.billing_now()
            fee_data = renewal.before.fee_data.model_copy(update={"next_fee_time": date})
            before = renewal.before.model_copy(update={"fee_data": fee_data})
            moved = replace(renewal, until=self._until(server, now), before=before)
            listed = [moved if one is renewal else one for one in self.plan.renewals]
            self.plan = replace(self.plan, renewals=tuple(listed))
            await self.store_plan()
            renewal = moved
        items = {NEXT_FEE_TIME: renewal.until} | with_order(server, self.context)
        return await nova.set_metadata(self.context.project, server_id, items)

    def _restore_steps(self, server_id: str) -> tuple[Step, ...]:
        """Bring the date back to where it was, and then take the order's name away: the order was
        not carried out, and the name would say that it was.
        """
        context, project = self.context, self.context.project

        def was_until() -> str | None:
            return self._renewal_of(server_id).was_until

        async def is_renewed() -> Ready | None:
            return Ready() if has_order(await server_now(server_id, context), context) else None

        async def is_in_error() -> Ready | None:
            server = await server_now(server_id, context)
            is_wrong = server.status == ERROR and has_order(server, context)
            if not is_wrong or not context.cloud.has_admin:
                return None
            await context.cloud.admin()  # a log-in that fails must not leave an intent behind
            return Ready()

        async def restore() -> Reply:
            if (date := was_until()) is None:
                return await nova.remove_metadata(project, server_id, NEXT_FEE_TIME)
            return await nova.set_metadata(project, server_id, {NEXT_FEE_TIME: date})

        async def unname() -> Reply:
            item, others = without_order(await nova.get_server(project, server_id), context)
            if not others:
                return await nova.remove_metadata(project, server_id, item)
            return await nova.set_metadata(project, server_id, {item: others})

        well = self._state_step(EffectKind.UNDO_ERROR, server_id, well=True)
        restored = metadata_step(
            "restore",
            EffectId(EffectKind.UNDO_RENEW, server_id),
            context,
            write=restore,
            written=lambda server: server.metadata.get(NEXT_FEE_TIME) == was_until(),
        )
        unnamed = metadata_step(
            "unname",
            EffectId(EffectKind.UNDO_NAME, server_id),
            context,
            write=unname,
            written=lambda server: not has_order(server, context),
        )
        return (
            replace(well, prepare=is_in_error),
            replace(restored, prepare=is_renewed),
            replace(unnamed, prepare=is_renewed),
        )

    # The outcomes.

    async def outcomes(self) -> Outcomes:
        ended = await asyncio.gather(*map(self._outcome, self.order.products))
        for product, outcome in zip(self.order.products, ended, strict=True):
            server_id = product.instance_id
            started = self.context.effects.begun(EffectId(EffectKind.START, server_id))
            # An earlier run may have published the start of a server that was found renewed.
            if started or self._renewal_of(server_id).found:
                await self.progress.end_server(server_id, outcome.status)
        return [ended]

    async def _outcome(self, product: InstanceProduct) -> ProductOutcome:
        """Look up what has changed: it is not concluded from what was done."""
        server_id, context = product.instance_id, self.context
        renewal = self._renewal_of(server_id)
        server = await find_server(context, server_id)
        outcome = ProductOutcome(
            product.ordered,
            server_id,
            None,
            changed=True,
            before=None if renewal.found else renewal.before,
            request_ids=request_ids(self._steps_of(renewal), context),
        )
        if server is None:
            return outcome
        moved = server.metadata.get(NEXT_FEE_TIME) != renewal.was_until
        return replace(
            outcome,
            status=server.status,
            changed=renewal.found or moved or server.status != renewal.before.status,
            after=await take_snapshot(server, context),
        )

    async def untouched(self) -> Outcomes:
        return await unchanged_outcomes(self.order.products, self.context)


async def _check_state(server: Server, context: ProjectContext) -> None:
    """Raise `Refused` where the date cannot be moved, `Transient` where it can be later."""
    with context.checks.of("state", server.id):
        if server.status == VERIFY_RESIZE:
            raise Transient("busy", detail="the server is in the middle of a resize")
        states = METADATA_STATES | {ERROR} if context.cloud.has_admin else METADATA_STATES
        if refused := state_refusal(server, states):
            raise refused
