"""Puts the document together."""

from importlib.metadata import version
from typing import Any

from messages.schemas import components
from workers.amqp.names import Names
from workers.asyncapi.channels import channels
from workers.asyncapi.messages import messages
from workers.asyncapi.operations import operations

_ABOUT = """\
Server actions, image operations and paid orders, carried out on OpenStack. Written as the worker sees it: it receives
commands and orders, and sends results and status updates. `message_id` is the idempotency key of a command, `orderId`
that of an order, `flowId` that of a softDown: a repeat is answered with the same result and has no effect."""


def document(names: Names) -> dict[str, Any]:
    """The document of a namespace, ready to be written as JSON or YAML."""
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "ecs-worker", "version": version("ecs-worker"), "description": _ABOUT},
        "defaultContentType": "application/json",
        "channels": channels(names),
        "operations": operations(),
        "components": {"messages": messages(), "schemas": components()},
    }
