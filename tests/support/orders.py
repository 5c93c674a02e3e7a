"""Orders as a billing system sends them, and what becomes of them."""

import json
import uuid
from typing import Any

from sandbox.documents import REGION, change_configure, new_order_id
from sandbox.requester import Heard, Requester


def paid(
    order_type: str, *server_ids: str, tenant: str | None = "tenant-a", **fields: Any
) -> dict[str, Any]:
    """A paid order on servers that there are, without items; with the document's quirks, and fields
    of one's own.
    """
    order: dict[str, Any] = json.loads(change_configure("", ""))
    (product,) = order["productList"]
    order |= {
        "orderType": f"{order_type} ",
        "orderId": new_order_id(),
        **({"tenant_id": tenant} if tenant else {}),
    }
    order["productList"] = [{**product, "instanceId": one, "itemList": []} for one in server_ids]
    return order | fields


def soft_down(
    *instances: tuple[str, str], tenant: str | None = None, **fields: Any
) -> dict[str, Any]:
    """A softDown message: instance and operateType of each."""
    listed = [
        {
            "subFlowId": f"sub-{number}",
            "operateType": operate,
            "productLineCode": "ECS",
            "productTypeCode": "ECS_std",
            "instanceId": instance,
        }
        for number, (instance, operate) in enumerate(instances)
    ]
    message = {"region": REGION, "flowId": uuid.uuid4().hex, "instanceList": listed}
    return message | ({"tenant_id": tenant} if tenant else {}) | fields


def publish(requester: Requester, order: dict[str, Any], **options: Any) -> str:
    """Send it; the message id."""
    kind = "softDown" if "instanceList" in order else order["orderType"].strip()
    return requester.order(json.dumps(order), f"order.{kind}", **options)


def ended(requester: Requester, message_id: str, seconds: float = 240.0) -> tuple[Heard, list[str]]:
    """An order's result, and the statuses that it went through."""
    result = requester.order_result_of(message_id, seconds)
    requester.last_update_of("order", message_id, seconds)
    told = [one.body for one in requester.updates_of(message_id) if one.body["resource"] == "order"]
    progress = [one["progress"] for one in told]
    assert progress == sorted(progress)
    assert [one["final"] for one in told] == [False] * (len(told) - 1) + [True]
    return result, [one["status"] for one in told]


def carried_out(
    requester: Requester, order: dict[str, Any], **options: Any
) -> tuple[Heard, list[str]]:
    """Send it, and wait for its end."""
    return ended(requester, publish(requester, order, **options))


def planned(requester: Requester, order: dict[str, Any]) -> dict[str, Any]:
    """Return what `order.plan` says of an order."""
    result = requester.result_of(requester.command("order.plan", order=order))
    assert result.body["code"] == 200, result.body
    found: dict[str, Any] = result.body["data"]
    return found


def product_of(result: Heard, number: int = 0) -> dict[str, Any]:
    """Return what the result says of one product."""
    found: dict[str, Any] = result.body["data"]["productSetList"][0]["productList"][number]
    return found


def reported(result: Heard) -> tuple[Any, str, bool]:
    """Code, status and whether anything was left changed."""
    (product_set,) = result.body["data"]["productSetList"]
    return result.body["code"], product_set["productSetStatus"], product_set["resourceChanged"]
