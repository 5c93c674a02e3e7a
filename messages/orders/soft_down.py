"""softDown: stop, start again or delete servers that are no longer paid for."""

from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from messages.fields import (
    ListOf,
    OptionalWord,
    RoutedName,
    Taken,
    TrimmedUuid,
    Unread,
    WrongValue,
    keyword,
    word,
)
from messages.orders.order import (
    MAX_PRODUCTS,
    Order,
    OrderType,
    Product,
    check_different,
    with_ordered,
)


class Operate(StrEnum):
    """The operations on an instance."""

    STOP = "stopServer"
    RESUME = "resumeServer"
    DELETE = "delete"


def _operate(value: Any) -> Operate:
    name = word(value)
    if name not in set(Operate):
        raise WrongValue("there is no such operation")
    return Operate(name)


class SoftDownInstance(Product):
    """One server, and what is done with it. `ordered` is the entry as it came."""

    instance_id: TrimmedUuid = Field(alias="instanceId", description="a server's id")
    operate: Annotated[Operate, Taken(_operate, keyword(*Operate))] = Field(alias="operateType")
    sub_flow_id: OptionalWord = Field(None, alias="subFlowId")


_SOFT_DOWN = Taken(lambda _: OrderType.SOFT_DOWN, {})


class OrderSoftDown(Order):
    """Stop, start again or delete servers, each for itself. Nobody pays for it."""

    naming_order: ClassVar[tuple[str, ...]] = ("instanceList", "flowId", "tenant_id")

    order_type: SkipJsonSchema[Annotated[OrderType, _SOFT_DOWN]] = OrderType.SOFT_DOWN
    instances: Annotated[tuple[SoftDownInstance, ...], ListOf(1, MAX_PRODUCTS, with_ordered)] = (
        Field(alias="instanceList")
    )
    name: RoutedName = Field(
        alias="flowId", description="at most 240 bytes; the name that the order is known by"
    )
    # A softDown has none of them.
    flow_id: SkipJsonSchema[Unread] = None
    user_id: SkipJsonSchema[Unread] = None
    bill_type: SkipJsonSchema[Unread] = None
    status_time: SkipJsonSchema[Unread] = None

    @model_validator(mode="after")
    def _different(self) -> "OrderSoftDown":
        check_different(self.instance_ids)
        return self

    @property
    def instance_ids(self) -> tuple[str, ...]:
        """The servers that it names, in its order."""
        return tuple(one.instance_id for one in self.instances)
