"""The result of an order (contract 5): one set, in it a product for each server."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from messages.codes import Code
from messages.errors import Refused
from messages.orders import Order
from messages.results import Result
from messages.secrets import mask


class InstanceStatus(StrEnum):
    """The billing system's words for a server's state."""

    ACTIVE = "ACTIVE"
    STOP = "STOP"
    ERROR = "ERROR"


_INSTANCE_STATUS = {
    "ACTIVE": InstanceStatus.ACTIVE,
    "SHUTOFF": InstanceStatus.STOP,
    "STOPPED": InstanceStatus.STOP,
    "ERROR": InstanceStatus.ERROR,
}


def instance_status(status: str | None) -> InstanceStatus | None:
    """A server's status in the billing system's words; None where there is no instance.

    A server that runs in any state between (VERIFY_RESIZE, REBOOT, PAUSED ...) exists and is in use: ACTIVE.
    """
    return None if status is None else _INSTANCE_STATUS.get(status.upper(), InstanceStatus.ACTIVE)


@dataclass(frozen=True, slots=True)
class ProductOutcome:
    """What became of one server: Nova's status (None: there is none) and whether something of it was left changed."""

    status: str | None
    changed: bool


def order_result(order: Order, outcomes: Iterable[ProductOutcome], failure: Refused | None, now: datetime) -> Result:
    """The order's result envelope; `now` is in the billing time zone."""
    ended = list(outcomes)
    products = [
        _product(product.ordered, product.instance_id, outcome.status, now)
        for product, outcome in zip(order.products, ended, strict=True)
    ]
    changed = any(outcome.changed for outcome in ended)
    return _result(order.ordered, order.order_type, products, changed, failure)


def unread_order_result(message: Mapping[str, Any], failure: Refused, now: datetime) -> Result:
    """The failing result of an order that could not be read: what can be echoed of it is."""
    listed = message.get("productList")
    products = [
        _product(product, product.get("instanceId"), None, now)
        for product in (listed if isinstance(listed, list) else [])
        if isinstance(product, dict)
    ]
    order_type = message.get("orderType")
    cleaned = order_type.strip() if isinstance(order_type, str) else None
    return _result(message, cleaned, products, False, failure)


def _result(
    message: Mapping[str, Any],
    order_type: str | None,
    products: list[dict[str, Any]],
    changed: bool,
    failure: Refused | None,
) -> Result:
    code = failure.code if failure else Code.OK
    data: dict[str, Any] = {name: message.get(name) for name in ("userId", "consoleOrderFlowId", "orderId")}
    if failure and failure.reason:
        data["reason"] = failure.reason
    data["productSetList"] = [
        {
            "productSetStatus": "fail" if failure else "success",
            "resourceChanged": changed,
            "billType": message.get("billType"),
            "orderType": order_type,
            "duration": message.get("duration"),
            "durationUnit": message.get("durationUnit"),
            "productList": products,
        }
    ]
    return Result.of(code, mask(data), failure.subject if failure else None)


def _product(ordered: Mapping[str, Any], instance_id: Any, status: str | None, now: datetime) -> dict[str, Any]:
    return {
        **ordered,
        "instanceId": instance_id,
        "instanceStatus": instance_status(status),
        "statusTime": now.strftime("%Y-%m-%d %H:%M:%S"),
    }
