"""Renewal of a message that was given back too often: it is published to its own queue once more.

RabbitMQ 4 takes a message out of a quorum queue that was given back 20 times, unless a policy says
otherwise: out of an input queue into `ecs.undelivered`, and out of that it is dropped. The broker
counts anew what is published anew. A header says how the message came at first, so that it is read
as what it was, with its exchange, its routing key and its history.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from workers.amqp.envelope import Envelope
from workers.amqp.headers import RENEWAL_HEADER

#: Deliveries without an ack after which a message is renewed. Below RabbitMQ's 20 with room: a
#: worker that dies before the broker has confirmed costs one more.
RENEW_AFTER = 10
#: The broker's counts of deliveries without an ack.
DELIVERY_COUNTS = ("x-delivery-count", "x-acquired-count")


def times_returned(envelope: Envelope) -> int:
    """Return how many deliveries without an ack the broker has counted."""
    counts = (envelope.headers.get(name) for name in DELIVERY_COUNTS)
    return max((count for count in counts if isinstance(count, int)), default=0)


def is_worn(envelope: Envelope) -> bool:
    """Tell whether a message is to be renewed before anything else is done with it.

    Not without its body, nor where a property could not be read: it would be another message then.
    Such a message is refused at once.
    """
    return (
        envelope.redelivered
        and times_returned(envelope) > RENEW_AFTER
        and envelope.left_out is None
        and not envelope.unreadable
    )


def renewal_of(envelope: Envelope) -> dict[str, Any]:
    """Return the value of the renewal header: how the message came, how often it was renewed, and
    since when.
    """
    since = envelope.renewed_since
    came: dict[str, Any] = {
        "exchange": envelope.exchange,
        "routing-key": envelope.routing_key,
        "times": envelope.renewals + 1,
        "since": int(envelope.arrived if since is None else since),
    }
    deaths = envelope.headers.get("x-death")
    last = deaths[0] if isinstance(deaths, list) and deaths else None
    if isinstance(last, Mapping):
        keys = last.get("routing-keys")
        came["death"] = {
            **{name: str(last.get(name) or "") for name in ("queue", "reason", "exchange")},
            "routing-keys": [str(key) for key in keys[:1]] if isinstance(keys, list) else [],
        }
    return came


def restored(envelope: Envelope) -> Envelope:
    """Return a renewed message as it was delivered before it was renewed; any other as it is.

    Only what came by the default exchange is the worker's own: the header is kept from whatever
    comes by the publishers' exchanges.
    """
    came = envelope.headers.get(RENEWAL_HEADER) if envelope.exchange == "" else None
    if not isinstance(came, Mapping):
        return envelope
    exchange, key, times = (came.get(name) for name in ("exchange", "routing-key", "times"))
    if not (isinstance(exchange, str) and isinstance(key, str) and isinstance(times, int)):
        return envelope
    since = came.get("since")
    headers = {name: value for name, value in envelope.headers.items() if name != RENEWAL_HEADER}
    death = came.get("death")
    if isinstance(death, Mapping):
        headers["x-death"] = [dict(death)]
    return replace(
        envelope,
        exchange=exchange,
        routing_key=key,
        headers=headers,
        redelivered=True,
        renewals=max(times, 0),
        renewed_since=since if isinstance(since, int) and 0 <= since <= envelope.arrived else None,
    )
