"""new: servers with their disks, all or none."""

from functools import cached_property
from typing import Any

from pydantic import TypeAdapter

from handlers.context import PART, ProjectContext
from handlers.effects.ledger import EffectId, EffectKind, Ledger
from handlers.openstack.errors import CloudRefusal
from handlers.orders.new.made import Left, Made
from handlers.orders.new.plan import (
    Creation,
    NewServer,
    creation_deeds,
    outline_creation,
    plan_creation,
)
from handlers.orders.new.provision import Maker, create_effect
from handlers.orders.saga import Outcomes, Saga, carry_out, final_failure
from handlers.orders.snapshot import snapshot_of
from handlers.orders.step import Deed, failed
from messages.errors import Refused
from messages.order_results import ProductOutcome
from messages.orders import OrderNew
from messages.results import Result
from messages.updates import OrderStatus


async def create_servers(order: OrderNew, context: ProjectContext) -> Result:
    """Make all the servers of the order, or none; `Transient` where a later try may do it."""
    return await carry_out(Creating(order, context))


def has_secrets(work: Any) -> bool:
    """Whether a request carries what must be kept nowhere, and cannot be carried out without."""
    return isinstance(work, OrderNew) and work.secrets.any


def needs_secrets(work: Any, ledger: Ledger) -> bool:
    """Whether a request still has something to do for which it needs its secrets: a server to be
    made.
    """
    if (
        not isinstance(work, OrderNew)
        or not has_secrets(work)
        or ledger.effect(EffectId(EffectKind.FAILURE)) is not None
    ):
        return False
    made = (ledger.effect(create_effect(number)) for number in range(1, work.count + 1))
    return not all(effect is not None and effect.done for effect in made)


_STORED = TypeAdapter(Creation)


class Creating(Saga[OrderNew, Creation]):
    """The order's plan, steps and undoing."""

    def __init__(self, order: OrderNew, context: ProjectContext) -> None:
        super().__init__(order, context, _STORED)
        self._made = Made(context, has_ports=order.customization.subnet_id is not None)
        self._is_first = False

    async def make_plan(self) -> Creation:
        earlier = await self._made.earlier()
        self._is_first = earlier is None
        if earlier is None:
            return await plan_creation(self.order, self.context)
        return await self._plan_rest(earlier)

    async def _plan_rest(self, earlier: Left) -> Creation:
        """Plan what is still to be made where an earlier run has made a part, or all.

        Where the rest cannot be made, what there is must be taken away: that is no refusal, but
        a plan that fails.
        """
        order, context = self.order, self.context
        if earlier.is_complete(order):
            return outline_creation(order, context, is_made=True)
        if earlier.is_old():
            # Disks that were kept when their servers went, as likely as not: the customer's own.
            raise failed(
                "outcome_unknown", "a part of what the order makes has been there for days"
            )
        try:
            return await plan_creation(order, context, is_begun=True)
        except (Refused, CloudRefusal) as error:
            refusal = final_failure(error, context)
            return outline_creation(
                order, context, refusal=(refusal.reason or "refused", refusal.detail)
            )

    @cached_property
    def _maker(self) -> Maker:
        return Maker(self.order, self.plan, self.context, self.progress, self._made, self._is_first)

    async def do(self) -> None:
        await self.progress.publish(OrderStatus.CREATING)
        await self._maker.make_all()

    def printed(self) -> list[Deed]:
        creation = self.plan
        if creation.is_made:
            return []
        return [deed for server in creation.servers for deed in creation_deeds(server, creation)]

    async def undo(self) -> None:
        if self.plan.is_made:
            return  # the customer's own by now
        await self.progress.publish(OrderStatus.REVERTING)
        await self._maker.remove_all()

    async def outcomes(self) -> Outcomes:
        """Whether anything was made, or left, is looked up, not reckoned."""
        left = await self._made.left()
        outcomes = [self._outcome(server, left) for server in self.plan.servers]
        if self.order.count == 1:
            self.progress.name_instance(outcomes[0].instance_id)
        for server, outcome in zip(self.plan.servers, outcomes, strict=True):
            if (server_id := self._maker.server_id(server)) is not None:
                await self.progress.end_server(server_id, outcome.status)
        return self._in_sets(outcomes)

    def _outcome(self, server: NewServer, left: Left) -> ProductOutcome:
        undone = self.context.effects.remembered("failure") is not None
        mine, server_id = _left_of(server, left), self._maker.server_id(server)
        found = next((one for one in left.servers if one.id in mine.get("servers", ())), None)
        disks = [one for one in left.volumes if one.id in mine.get("volumes", ())]
        gone = "DELETED" if server_id is not None else None
        return ProductOutcome(
            self.order.products[server.product_index].ordered,
            server_id,
            found.status if found is not None else gone,
            changed=bool(mine) or not undone,
            after=snapshot_of(found, disks) if found is not None else None,
            request_ids=self._maker.request_ids(server),
            more={"left": mine} if mine and undone else {},
        )

    def _in_sets(self, outcomes: list[ProductOutcome]) -> Outcomes:
        sets: list[list[ProductOutcome]] = [[] for _ in range(self.order.sets)]
        for server, outcome in zip(self.plan.servers, outcomes, strict=True):
            sets[server.set_index].append(outcome)
        return sets

    async def untouched(self) -> Outcomes:
        one_set = [
            ProductOutcome(product.ordered, None, None, changed=False)
            for product in self.order.products
            for _ in range(product.count)
        ]
        return [one_set] * self.order.sets


def _left_of(server: NewServer, left: Left) -> dict[str, list[str]]:
    """The ids of what there is of one server, by kind; no kind of which there is nothing."""
    found = {
        "servers": [one.id for one in left.servers if one.metadata.get(PART) == str(server.number)],
        "volumes": [
            one.id
            for one in left.volumes
            if one.metadata.get(PART, "").startswith(f"{server.number}.")
        ],
        "ports": [one["id"] for one in left.ports if one["name"] == server.name],
    }
    return {kind: ids for kind, ids in found.items() if ids}
