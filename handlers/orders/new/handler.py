"""new: create servers with their disks, all or none."""

from functools import cached_property
from typing import Any

from pydantic import TypeAdapter

from handlers.context import PART, ProjectContext
from handlers.effects.ledger import EffectId, EffectKind, Ledger
from handlers.openstack.errors import CloudRefusal
from handlers.orders.new.plan import CreationPlan, NewServer, outline_creation, plan_creation
from handlers.orders.new.provision import Provisioner, create_effect
from handlers.orders.new.resources import OrderResources, Resources
from handlers.orders.saga import Outcomes, Saga, carry_out, final_failure
from handlers.orders.snapshot import snapshot_of
from handlers.orders.step import Step, failed
from messages.errors import Refused
from messages.orders import OrderNew
from messages.results import ProductOutcome, Result
from messages.updates import OrderStatus

_STORED = TypeAdapter(CreationPlan)
_FAILURE = EffectId(EffectKind.FAILURE)


async def create_servers(order: OrderNew, context: ProjectContext) -> Result:
    """Create all the servers of the order, or none. Raises `Transient` where a retry may do it."""
    return await carry_out(NewSaga(order, context))


def has_secrets(work: Any) -> bool:
    """Tell whether a request carries secrets, which are stored nowhere, and cannot be carried out
    without.
    """
    return isinstance(work, OrderNew) and work.secrets.any


def needs_secrets(work: Any, ledger: Ledger) -> bool:
    """Tell whether a request has still to create a server, for which it needs its secrets."""
    if not isinstance(work, OrderNew) or not work.secrets.any or ledger.effect(_FAILURE):
        return False
    created = (ledger.effect(create_effect(number)) for number in range(1, work.count + 1))
    return not all(effect is not None and effect.done for effect in created)


class NewSaga(Saga[OrderNew, CreationPlan]):
    """The saga of one `new` order."""

    def __init__(self, order: OrderNew, context: ProjectContext) -> None:
        super().__init__(order, context, _STORED)
        has_ports = order.customization.subnet_id is not None
        self._resources = OrderResources(context, has_ports=has_ports)

    @cached_property
    def _provisioner(self) -> Provisioner:
        return Provisioner(self.order, self.plan, self.context, self.progress, self._resources)

    async def make_plan(self) -> CreationPlan:
        """Plan what is to be created, or the rest where an earlier run has created a part, or all.

        Where the rest cannot be created, what there is must be deleted: that is no refusal, but a
        plan that fails.
        """
        order, context = self.order, self.context
        earlier = await self._resources.find_earlier()
        if earlier is None:
            return await plan_creation(order, context)
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

    def steps(self) -> list[Step]:
        if self.plan.is_made or self.plan.refusal is not None:
            return []
        return [step for one in self.plan.servers for step in self._provisioner.steps(one)]

    async def do(self) -> None:
        await self.progress.publish(OrderStatus.CREATING)
        await self._provisioner.create_all()

    async def undo(self) -> None:
        """Delete everything that bears the order's mark.

        The steps alone do not say what that is: a call whose answer was lost may have landed.
        """
        if self.plan.is_made:
            return  # the customer's own by now
        await self.progress.publish(OrderStatus.REVERTING)
        await self._provisioner.remove_all()

    async def outcomes(self) -> Outcomes:
        left = await self._resources.find_all()
        servers = self.plan.servers
        outcomes = [self._outcome(server, left) for server in servers]
        if self.order.count == 1:
            self.progress.name_instance(outcomes[0].instance_id)
        sets: list[list[ProductOutcome]] = [[] for _ in range(self.order.sets)]
        for server, outcome in zip(servers, outcomes, strict=True):
            if outcome.instance_id is not None:
                await self.progress.end_server(outcome.instance_id, outcome.status)
            sets[server.set_index].append(outcome)
        return sets

    def _outcome(self, server: NewServer, left: Resources) -> ProductOutcome:
        undone = self.context.effects.remembered(_FAILURE) is not None
        ids, server_id = _ids_of(server, left), self._provisioner.server_id(server)
        found = next((one for one in left.servers if one.id in ids.get("servers", ())), None)
        disks = [one for one in left.volumes if one.id in ids.get("volumes", ())]
        gone = "DELETED" if server_id is not None else None
        return ProductOutcome(
            self.order.products[server.product_index].ordered,
            server_id,
            found.status if found is not None else gone,
            changed=bool(ids) or not undone,
            after=snapshot_of(found, disks) if found is not None else None,
            request_ids=self._provisioner.request_ids(server),
            more={"left": ids} if ids and undone else {},
        )

    async def untouched(self) -> Outcomes:
        one_set = [
            ProductOutcome(product.ordered, None, None, changed=False)
            for product in self.order.products
            for _ in range(product.count)
        ]
        return [one_set] * self.order.sets


def _ids_of(server: NewServer, left: Resources) -> dict[str, list[str]]:
    """The ids of what there is of one server, by kind; no kind of which there is nothing."""
    number = str(server.number)
    parts = [(one.id, one.metadata.get(PART, "")) for one in left.volumes]
    found = {
        "servers": [one.id for one in left.servers if one.metadata.get(PART) == number],
        "volumes": [volume_id for volume_id, part in parts if part.startswith(f"{number}.")],
        "ports": [one["id"] for one in left.ports if one["name"] == server.name],
    }
    return {kind: ids for kind, ids in found.items() if ids}
