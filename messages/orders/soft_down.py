"""softDown: what becomes of servers that are no longer paid for. Told by its `instanceList`; nobody
pays for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from messages.errors import wrong
from messages.fields import name_in_routing_key, objects, optional_word, uuid_of, word
from messages.orders.order import PRODUCT_LINE, Heading, Order, OrderType
from messages.orders.products import MAX_PRODUCTS, check_different


class Operate(StrEnum):
    """What is done with an instance."""

    STOP = "stopServer"
    RESUME = "resumeServer"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class SoftDownInstance:
    """One server. `ordered` is the entry as it came."""

    instance_id: str
    operate: Operate
    sub_flow_id: str | None
    ordered: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OrderSoftDown(Order):
    """Stop, start again or delete these servers, each for itself."""

    instances: tuple[SoftDownInstance, ...]

    @property
    def instance_ids(self) -> tuple[str, ...]:
        """The servers that it names, in its order."""
        return tuple(one.instance_id for one in self.instances)


def parse_soft_down(message: Mapping[str, Any]) -> OrderSoftDown:
    """The order, or `Refused` naming the field that is wrong."""
    listed = objects(message.get("instanceList"), "instanceList", 1, MAX_PRODUCTS)
    instances = tuple(_instance(one) for one in listed)
    check_different([one.instance_id for one in instances])
    heading = Heading(
        order_type=OrderType.SOFT_DOWN,
        name=name_in_routing_key(message.get("flowId"), "flowId"),
        flow_id=None,
        user_id=None,
        tenant=optional_word(message.get("tenant_id"), "tenant_id"),
        bill_type=None,
        ordered=message,
    )
    return OrderSoftDown(heading, instances)


def _instance(entry: Mapping[str, Any]) -> SoftDownInstance:
    if word(entry.get("productLineCode"), "productLineCode") != PRODUCT_LINE:
        raise wrong("productLineCode")
    return SoftDownInstance(
        instance_id=uuid_of(optional_word(entry.get("instanceId"), "instanceId"), "instanceId"),
        operate=_operate(entry),
        sub_flow_id=optional_word(entry.get("subFlowId"), "subFlowId"),
        ordered=entry,
    )


def _operate(entry: Mapping[str, Any]) -> Operate:
    try:
        return Operate(word(entry.get("operateType"), "operateType"))
    except ValueError:
        raise wrong("operateType", "there is no such operation") from None
