"""Messages that were given back too often: how long each is renewed."""

from dataclasses import replace
from typing import Any

import pytest

from tests.support import amqp
from tests.support.names import ORDERS_QUEUE, READS_QUEUE
from workers.amqp.envelope import Envelope
from workers.amqp.renewal import renewal_of, restored
from workers.pipeline.undeliverable import Undeliverable

DAY = 86400


def message(queue: str = ORDERS_QUEUE) -> Envelope:
    return amqp.delivered(queue, "ecs.orders", "order.new", b"{}", {})


def renewed(envelope: Envelope) -> Envelope:
    """The message as it comes after a renewal."""
    headers = {"x-ecs-renewal": renewal_of(envelope)}
    return restored(replace(envelope, exchange="", routing_key=envelope.queue, headers=headers))


def test_it_is_known_since_when_a_message_is_renewed() -> None:
    first = replace(message(), arrived=1000.5)
    again = renewed(replace(renewed(first), arrived=5000.0))
    assert (again.exchange, again.routing_key) == ("ecs.orders", "order.new")
    assert (again.renewals, again.renewed_since) == (2, 1000)


class Heard:
    """Stands for all that the messages are handed to."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def __getattr__(self, name: str) -> Any:
        async def hear(*_: object, **__: object) -> None:
            self.done.append(name)

        return hear


@pytest.mark.parametrize(
    ("queue", "renewals", "seconds", "done"),
    [
        # An order with a password waits in its own queue between its attempts, for a day, and may
        # do so for 5 seconds each time.
        (ORDERS_QUEUE, 1000, 3600, ["renew"]),
        (ORDERS_QUEUE, 99, DAY + 10, ["renew"]),
        (ORDERS_QUEUE, 100, DAY + 10, ["undelivered", "dead_letter"]),
        (READS_QUEUE, 1, 10, ["undelivered", "dead_letter"]),
    ],
)
async def test_a_message_is_given_up_only_where_it_was_renewed_often_and_for_long(
    queue: str, renewals: int, seconds: int, done: list[str]
) -> None:
    heard: Any = Heard()
    undeliverable = Undeliverable(heard, heard, heard, heard, lambda: None)
    came = message(queue)
    came = replace(came, renewals=renewals, renewed_since=int(came.arrived) - seconds)
    assert await undeliverable.renew(came, heard.execute)
    assert heard.done == done
