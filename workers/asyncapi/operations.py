"""What the worker does with the channels: what it receives and how it replies, what it sends."""

from typing import Any

from messages.commands import Operation
from workers.asyncapi import channels as on
from workers.asyncapi import messages as named

#: Where a reply goes, unless the requester gave no queue of his: then to the results.
_ADDRESS = {"location": "$message.header#/reply_to", "description": "The `reply_to` property"}


def operations() -> dict[str, Any]:
    """All of them."""
    found = {one.value: _command(one) for one in Operation}
    found["orders"] = {
        "action": "receive",
        "channel": on.reference(on.ORDERS),
        "summary": "Paid orders, and servers that nobody pays for any more",
        "messages": [on.reference(on.ORDERS, one) for one in on.MESSAGES[on.ORDERS]],
        "reply": {
            "channel": on.reference(on.ORDER_RESULTS),
            "messages": [on.reference(on.ORDER_RESULTS, named.ORDER_RESULT)],
        },
    }
    found["results"] = _sent(on.RESULTS, "Results of orders, and of commands without `reply_to`")
    found["status"] = _sent(
        on.STATUS, "Updates, in order for each resource; just one of them is final, the last"
    )
    found["park"] = _sent(on.DEAD, "What could not be handled")
    return found


def _command(operation: Operation) -> dict[str, Any]:
    return {
        "action": "receive",
        "channel": on.reference(on.COMMANDS),
        "messages": [on.reference(on.COMMANDS, named.request_of(operation))],
        "reply": {
            "address": _ADDRESS,
            "channel": on.reference(on.REPLY),
            "messages": [on.reference(on.REPLY, named.result_of(operation))],
        },
    }


def _sent(channel: str, summary: str) -> dict[str, Any]:
    return {
        "action": "send",
        "channel": on.reference(channel),
        "summary": summary,
        "messages": [on.reference(channel, one) for one in on.MESSAGES[channel]],
    }
