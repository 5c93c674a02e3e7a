"""The result of an order (contract 5): a product set for each set, in it a product for each server.

That of a softDown is the message itself, with what became of each of its instances.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from messages.codes import Code
from messages.errors import Refused
from messages.fields import MAX_NAME
from messages.orders import MAX_PRODUCTS, TIME_FORM, Order, OrderSoftDown
from messages.results import Result
from messages.secrets import mask
from messages.wire import fits

#: What is given back of an order, of its products and of a softDown's instances where all of it
#: would be too much.
_ORDERS_WORDS = (
    "userId",
    "consoleOrderFlowId",
    "orderId",
    "billType",
    "duration",
    "durationUnit",
    "flowId",
    "region",
    "availableZone",
    "productLineCode",
    "productTypeCode",
    "instanceCount",
    "subFlowId",
    "operateType",
    "instanceId",
)


class InstanceStatus(StrEnum):
    """The billing system's words for a server's state."""

    ACTIVE = "ACTIVE"
    STOP = "STOP"
    ERROR = "ERROR"
    PENDING_CREATE = "PENDING_CREATE"
    DELETE = "DELETE"


_INSTANCE_STATUS = {
    "ACTIVE": InstanceStatus.ACTIVE,
    "SHUTOFF": InstanceStatus.STOP,
    "STOPPED": InstanceStatus.STOP,
    "ERROR": InstanceStatus.ERROR,
    "BUILD": InstanceStatus.PENDING_CREATE,
    "DELETED": InstanceStatus.DELETE,
    "SOFT_DELETED": InstanceStatus.DELETE,
}


def instance_status(status: str | None) -> InstanceStatus | None:
    """A server's status in the billing system's words; None where there is no instance.

    A server that runs in any state between (VERIFY_RESIZE, REBOOT, PAUSED ...) exists and is in
    use: ACTIVE.
    """
    return None if status is None else _INSTANCE_STATUS.get(status.upper(), InstanceStatus.ACTIVE)


@dataclass(frozen=True, slots=True)
class ProductOutcome:
    """What became of one server.

    `ordered` is the product that it belongs to, `status` Nova's (None: there is none), `changed`
    whether something of the customer's was left changed; `before` and `after` show the server
    (None: there was or is none), `request_ids` are OpenStack's of the calls that changed it, and
    `more` is what else is told of it.
    """

    ordered: Mapping[str, Any]
    instance_id: str | None
    status: str | None
    changed: bool
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    request_ids: Sequence[str] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


def order_result(
    order: Order, sets: Sequence[Sequence[ProductOutcome]], failure: Refused | None, now: datetime
) -> Result:
    """The order's result envelope; `now` is in the billing time zone."""
    return _result(order.ordered, order.order_type, sets, failure, now)


@dataclass(frozen=True, slots=True)
class InstanceOutcome:
    """What became of one instance of a softDown: Nova's status (None: there is none), and why it
    failed.

    The rest is as in `ProductOutcome`.
    """

    status: str | None
    failure: Refused | None = None
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    request_ids: Sequence[str] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


def soft_down_result(
    order: OrderSoftDown, outcomes: Sequence[InstanceOutcome], now: datetime
) -> Result:
    """The result of a softDown: each instance has its own; the code is that of the first that
    failed.
    """
    failure = next((one.failure for one in outcomes if one.failure is not None), None)
    return _soft_down_result(
        order.ordered,
        [
            (instance.ordered, outcome)
            for instance, outcome in zip(order.instances, outcomes, strict=True)
        ],
        failure,
        now,
    )


def unread_order_result(
    message: Mapping[str, Any], failure: Refused, now: datetime, *, changed: bool = False
) -> Result:
    """The failing result of an order that could not be read, or ended unforeseen: what can be
    echoed of it is.
    """
    if "instanceList" in message:
        instances = [
            (one, InstanceOutcome(None, failure)) for one in _objects(message, "instanceList")
        ]
        return _soft_down_result(message, instances, failure, now)
    outcomes = [
        ProductOutcome(product, product.get("instanceId"), None, changed=changed)
        for product in _objects(message, "productList")
    ]
    order_type = message.get("orderType")
    return _result(
        message,
        order_type.strip() if isinstance(order_type, str) else None,
        [outcomes],
        failure,
        now,
    )


def _objects(message: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """As many as an order may have: an echo is not to be many times as large as what it answers."""
    listed = message.get(name)
    return (
        [one for one in listed[:MAX_PRODUCTS] if isinstance(one, dict)]
        if isinstance(listed, list)
        else []
    )


#: How an object of the message is given back.
_Echo = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def _whole(ordered: Mapping[str, Any]) -> Mapping[str, Any]:
    return ordered


def _in_short(ordered: Mapping[str, Any]) -> Mapping[str, Any]:
    """What an order is known by, where it is no longer than a word."""
    return {
        name: ordered[name]
        for name in _ORDERS_WORDS
        if name in ordered and _is_short(ordered[name])
    }


def _is_short(value: Any) -> bool:
    return len(value) <= MAX_NAME if isinstance(value, str) else not isinstance(value, (dict, list))


def _result(
    message: Mapping[str, Any],
    order_type: str | None,
    sets: Sequence[Sequence[ProductOutcome]],
    failure: Refused | None,
    now: datetime,
) -> Result:
    def data(echo: _Echo) -> dict[str, Any]:
        told = echo(message)
        return {
            **{name: told.get(name) for name in ("userId", "consoleOrderFlowId", "orderId")},
            **_reason(failure),
            "productSetList": [
                {
                    "productSetStatus": "fail" if failure else "success",
                    "resourceChanged": any(outcome.changed for outcome in outcomes),
                    "billType": told.get("billType"),
                    "orderType": order_type if _is_short(order_type) else None,
                    "duration": told.get("duration"),
                    "durationUnit": told.get("durationUnit"),
                    "productList": [_product(outcome, now, echo) for outcome in outcomes],
                }
                for outcomes in sets
            ],
        }

    return _envelope(data, failure)


def _product(outcome: ProductOutcome, now: datetime, echo: _Echo) -> dict[str, Any]:
    return {
        **echo(outcome.ordered),
        "instanceId": outcome.instance_id if _is_short(outcome.instance_id) else None,
        "instanceStatus": instance_status(outcome.status),
        "statusTime": _written(now),
        **_record(outcome),
        **outcome.more,
    }


def _record(outcome: ProductOutcome | InstanceOutcome) -> dict[str, Any]:
    """What settles a dispute."""
    return {
        "before": outcome.before,
        "after": outcome.after,
        "requestIds": list(outcome.request_ids),
    }


def _soft_down_result(
    message: Mapping[str, Any],
    instances: Sequence[tuple[Mapping[str, Any], InstanceOutcome]],
    failure: Refused | None,
    now: datetime,
) -> Result:
    def data(echo: _Echo) -> dict[str, Any]:
        return {
            **echo(message),
            "instanceList": [
                {
                    **echo(ordered),
                    "result": "fail" if outcome.failure else "success",
                    **_verdict(outcome.failure),
                    "instanceStatus": instance_status(outcome.status),
                    "statusTime": _written(now),
                    **_record(outcome),
                    **outcome.more,
                }
                for ordered, outcome in instances
            ],
            **_reason(failure),
        }

    return _envelope(data, failure)


def _reason(failure: Refused | None) -> dict[str, Any]:
    return {"reason": failure.reason} if failure and failure.reason else {}


def _verdict(failure: Refused | None) -> dict[str, Any]:
    """Code, message and reason of one of several."""
    result = Result.refusal(failure) if failure else Result.of(Code.OK)
    return {
        "code": result.code,
        "message": result.message,
        "reason": failure.word if failure else None,
    }


def _envelope(data: Callable[[_Echo], dict[str, Any]], failure: Refused | None) -> Result:
    """The data as ordered, or in short: a hundred servers may each give back a large product."""
    shown = mask(data(_whole))
    if not fits(shown):
        shown = mask(data(_in_short))
    return Result.of(
        failure.code if failure else Code.OK, shown, failure.subject if failure else None
    )


def _written(now: datetime) -> str:
    return now.strftime(TIME_FORM)
