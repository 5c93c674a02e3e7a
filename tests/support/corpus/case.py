"""Holds what is sent, and what becomes of it.

A wrong command is answered to its `reply_to`; without one it is answered on `ecs.results`, if its
operation can be read, and parked. A wrong order is answered on `ecs.results`, and to its `reply_to`
too, and parked.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from sandbox.documents import REGION, change_configure

ID = "616fb98f-46ca-475e-917e-2563e5a8cd19"
IMAGE = "da099db5-e180-49c0-a74d-54bbc18fafd4"
COMMANDS, ORDERS = "ecs.commands", "ecs.orders"
PARAMETER, NO_SERVER, NO_SERVERS, NO_IMAGE = "101.001002", "101.001033", "101.001013", "101.003033"
OK = 200


class Fate(Enum):
    """Holds what becomes of a message, beside that the worker goes on."""

    WRONG = "refused: answered, or parked, or both"
    RIGHT = "carried out"
    IGNORED = "asks for nothing"
    NOBODYS = "right in form, of a tenant that there is not"
    UNROUTABLE = "no queue takes it"


@dataclass(frozen=True, slots=True)
class Case:
    """A message. `subject` is the xxx of the code's message, `operation` what can be read of what
    it asks for.

    `properties` may be `amqp.RawProperties`' own. `may_reply`: a result may go to the `reply_to` of
    its sender.
    """

    name: str
    body: bytes
    subject: str | None = None
    fate: Fate = Fate.WRONG
    code: str | int = PARAMETER
    exchange: str = COMMANDS
    routing_key: str = "server.show"
    operation: str | None = "server.show"
    properties: Mapping[str, Any] = field(default_factory=dict)
    may_reply: bool = True

    @property
    def is_order(self) -> bool:
        """Tell whether it is taken for an order."""
        return self.exchange == ORDERS


def js(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def show(**fields: Any) -> dict[str, Any]:
    return {"operation": "server.show", "tenant_id": "tenant-a", "server_id": ID, **fields}


def command(operation: str, **fields: Any) -> dict[str, Any]:
    return {"operation": operation, "tenant_id": "tenant-a", **fields}


def action(body: Any, **fields: Any) -> dict[str, Any]:
    return command("server.action", server_id=ID, body=body, **fields)


def ids(number: int) -> list[dict[str, str]]:
    return [{"id": f"{one:08x}{ID[8:]}"} for one in range(number)]


def order(**fields: Any) -> dict[str, Any]:
    """The document's order, of a server that there is not, with some of its fields changed."""
    found: dict[str, Any] = json.loads(change_configure(ID, IMAGE))
    return {"tenant_id": "tenant-a", **found, **fields}


def product(**fields: Any) -> dict[str, Any]:
    return order(productList=[{**order()["productList"][0], **fields}])


def items(*listed: Any) -> dict[str, Any]:
    return product(itemList=list(listed))


def soft_down(**fields: Any) -> dict[str, Any]:
    entry = {
        "subFlowId": "s",
        "operateType": "stopServer",
        "productLineCode": "ECS",
        "instanceId": ID,
    }
    return {
        "region": REGION,
        "flowId": "flow-1",
        "tenant_id": "tenant-a",
        "instanceList": [entry],
        **fields,
    }


def command_case(
    name: str, message: Mapping[str, Any], subject: str | None = None, code: str | int = PARAMETER
) -> Case:
    """A command that comes by the routing key that it names; without a subject it is right."""
    fate = Fate.WRONG if subject is not None else Fate.RIGHT
    operation = str(message["operation"])
    return Case(name, js(message), subject, fate, code, routing_key=operation, operation=operation)


def order_case(
    name: str, message: Any, subject: str | None = None, code: str | int = PARAMETER, **more: Any
) -> Case:
    fate = more.pop("fate", Fate.WRONG if subject is not None else Fate.RIGHT)
    kind = more.pop("kind", "changeConfigure")
    body = message if isinstance(message, bytes) else js(message)
    options = {"exchange": ORDERS, "routing_key": "order.x", "operation": f"order.{kind}"} | more
    return Case(name, body, subject, fate, code, **options)
