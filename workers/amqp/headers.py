"""Headers, which publishers fill as they like: what a request may carry, and what is kept when it
is published again, so that the broker takes it and every client can read it.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from messages.errors import wrong
from messages.secrets import MASK, could_hold_secret, mask

#: Headers of a message that comes back from a retry queue.
ROUTING_KEY_HEADER = "x-ecs-routing-key"
FIRST_SEEN_HEADER = "x-ecs-first-seen"
ATTEMPTS_HEADER = "x-ecs-attempts"
DEADLINE_HEADER = "x-ecs-deadline"
#: Carries the resume token, by which a request is known again without its JWT.
RESUME_TOKEN_HEADER = "x-ecs-pass"  # noqa: S105 - the name of a header
#: Of a message that was renewed (`workers/amqp/renewal.py`): how it came.
RENEWAL_HEADER = "x-ecs-renewal"
#: The retry exchange chooses the queue of a delay by this header. Headers that begin with `x-`
#: take no part in matching.
RETRY_HEADER = "ecs-retry-delay"
#: What is written on a dead letter, beside `x-ecs-attempts`.
ERROR_CODE_HEADER = "x-ecs-error-code"
ERROR_HEADER = "x-ecs-error"
#: The word for the cause (`data.reason` of the result), where there is one.
REASON_HEADER = "x-ecs-reason"
ORIGIN_HEADER = "x-ecs-origin-queue"
FAILED_AT_HEADER = "x-ecs-failed-at"
#: `PROVEN` where it was proven who sent a dead letter; anything else where it was not, or nobody
#: had looked yet.
IDENTITY_HEADER, PROVEN, UNPROVEN = "x-ecs-identity", "proven", "not proven"
#: The project in which that was proven: the message acts there alone when it is replayed.
PROJECT_HEADER = "x-ecs-project"
#: Of a message that an operator replays: the batch, the replay's id in the journal, and the number
#: of its replays with this one. They stay on it when it is dead-lettered again.
REPLAY_HEADER, REPLAY_ID_HEADER = "x-ecs-replay", "x-ecs-replay-id"
REPLAYS_HEADER = "x-ecs-replays"

#: Bytes of all headers; the broker ends a connection whose headers do not fit into one frame of 128
#: KiB.
MAX_HEADERS = 32 * 1024
#: Tables and arrays inside each other.
MAX_DEPTH = 8
#: Bytes of a short string: a property, the name of a header.
MAX_SHORT = 255
#: Tells how many headers were left out, for their size.
LEFT_OUT_HEADER = "x-ecs-headers-left-out"
#: The broker's own history of the message, which it makes anew.
HISTORY = ("x-death", "x-first-death", "x-last-death", "x-delivery-count", "x-acquired-count")
#: The broker takes CC and BCC for further routing keys: a publisher could have our copy put into
#: others' queues. A resume token is good for one way back. Nobody else says how a message came.
NOT_KEPT = ("CC", "BCC", RESUME_TOKEN_HEADER, RENEWAL_HEADER)
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_MAX_TRACESTATE = 512


def short_text(raw: bytes) -> str:
    """Return a short string that is no UTF-8 as one that is, with escapes."""
    return raw.decode("utf-8", "backslashreplace").encode()[:MAX_SHORT].decode("utf-8", "ignore")


def check(headers: Mapping[Any, Any]) -> None:
    """Raise `Refused` where the headers are more than a request may carry."""
    if _weigh(headers, 0) > MAX_HEADERS:
        raise wrong("headers", f"the headers are larger than {MAX_HEADERS} bytes")


def kept(headers: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the headers that are published again: masked, and no more than a request may carry;
    `x-ecs-headers-left-out` counts the rest.
    """
    found: dict[str, Any] = {}
    room, left_out = MAX_HEADERS, 0
    for name, value in _plain(headers, 0).items():
        if name.startswith(HISTORY) or name in NOT_KEPT:
            continue
        one = {name: value}
        size = _weigh(one, -1)
        masked = mask(one) if size <= room else {}
        size = max(size, _weigh(masked, -1))
        if size > room:
            left_out += 1
        else:
            room -= size
            found |= masked
    return found | ({LEFT_OUT_HEADER: left_out} if left_out else {})


def _weigh(value: Any, depth: int) -> int:
    """Return about how many bytes a value is on the wire; the recursion is bounded by the depth
    that it checks.
    """
    if isinstance(value, (str, bytes)):
        return 5 + (len(value.encode()) if isinstance(value, str) else len(value))
    if not isinstance(value, (Mapping, list)):
        return 9
    if depth >= MAX_DEPTH:
        raise wrong("headers", f"the headers are nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        return 5 + sum(
            _weigh(name, depth + 1) + _weigh(inner, depth + 1) for name, inner in value.items()
        )
    return 5 + sum(_weigh(inner, depth + 1) for inner in value)


def _plain(value: Any, depth: int) -> Any:
    """Return a header's value as any client can read it; pika writes no floats."""
    if isinstance(value, (Mapping, list)):
        if depth >= MAX_DEPTH:
            return "nested too deep"
        if isinstance(value, Mapping):
            return {_name(name): _plain(inner, depth + 1) for name, inner in value.items()}
        return [_plain(inner, depth + 1) for inner in value]
    if isinstance(value, bytes):
        return MASK if could_hold_secret(value) else value
    writable = (
        value is None
        or isinstance(value, (str, datetime))
        or (isinstance(value, int) and _fits(value))
    )
    return value if writable else str(value)


def _fits(number: int) -> bool:
    return -(2**63) <= number < 2**63


def _name(name: str | bytes) -> str:
    return short_text(name) if isinstance(name, bytes) else name


def trace(headers: Mapping[Any, Any]) -> dict[str, str]:
    """Return the W3C trace context, where it is one."""
    parent, state = headers.get("traceparent"), headers.get("tracestate")
    if not isinstance(parent, str) or not _TRACEPARENT.fullmatch(parent):
        return {}
    found = {"traceparent": parent}
    if (
        isinstance(state, str)
        and len(state) <= _MAX_TRACESTATE
        and state.isascii()
        and state.isprintable()
        and mask(state) == state
    ):
        found["tracestate"] = state
    return found
