"""What every order has in common."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from messages.errors import wrong
from messages.fields import name_in_routing_key, optional_word, stored_word, word

PRODUCT_LINE = "ECS"
#: How the billing system writes a time, of its own time zone.
TIME_FORM = "%Y-%m-%d %H:%M:%S"


class OrderType(StrEnum):
    """The kinds of orders; `softDown` is told by its `instanceList`, all others by their
    `orderType`.
    """

    CHANGE_CONFIGURE = "changeConfigure"
    NEW = "new"
    RENEW = "renew"
    UNSUBSCRIBE = "unsubscribe"
    SOFT_DOWN = "softDown"


@dataclass(frozen=True, slots=True)
class Heading:
    """Whose order it is. `name` is what it is known by: its orderId, a softDown's flowId.

    `status_time` is None where it is missing or cannot be read; without a zone it is of the billing
    time zone. `ordered` is the message as it came, without secrets.
    """

    order_type: OrderType
    name: str
    flow_id: str | None
    user_id: str | None
    tenant: str | None
    bill_type: str | None
    ordered: Mapping[str, Any]
    status_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """An order that is right in form."""

    heading: Heading

    @property
    def order_type(self) -> OrderType:
        """Its kind."""
        return self.heading.order_type

    @property
    def name(self) -> str:
        """What it is known by: its orderId, a softDown's flowId."""
        return self.heading.name

    @property
    def ordered(self) -> Mapping[str, Any]:
        """The message as it came, without secrets."""
        return self.heading.ordered

    @property
    def instance_ids(self) -> tuple[str, ...]:
        """The servers that it names, in its order."""
        return ()


def read_heading(order_type: OrderType, message: Mapping[str, Any]) -> Heading:
    """The heading of a paid order."""
    if word(message.get("orderRoute"), "orderRoute") != PRODUCT_LINE:
        raise wrong("orderRoute")
    return Heading(
        order_type=order_type,
        name=name_in_routing_key(message.get("orderId"), "orderId"),
        flow_id=optional_word(message.get("consoleOrderFlowId"), "consoleOrderFlowId"),
        user_id=optional_word(message.get("userId"), "userId"),
        tenant=optional_word(message.get("tenant_id"), "tenant_id"),
        bill_type=stored_word(message.get("billType"), "billType"),
        ordered=message,
        status_time=read_time(message.get("statusTime")),
    )


def read_time(value: Any) -> datetime | None:
    """Read a date with a time of day as people and programs write it, in whole seconds; None where
    it is none.

    `2026-11-23 10:00:00`; also with a fraction (dropped), with `T`, without seconds, and with a
    zone (`Z`, `+08:00`, `+0800`): only then has what is returned a zone. A date alone is none:
    nobody knows which end of the day is meant.
    """
    if not isinstance(value, str):
        return None
    text = " ".join(value.upper().split())
    with suppress(ValueError):
        return datetime.strptime(text, TIME_FORM)  # noqa: DTZ007 - of a zone that is known elsewhere
    # Digits without a separator (`20261123104500`, milliseconds) would be taken for another
    # century.
    date, _, time = text.replace("T", " ", 1).partition(" ")
    if ":" not in time:
        return None
    with suppress(ValueError):
        return datetime.fromisoformat(f"{date}T{time.replace(' ', '')}").replace(microsecond=0)
    return None
