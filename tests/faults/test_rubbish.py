"""Rubbish beside good messages (85), and large messages that wait (86): the worker stays quick, its
memory bounded.
"""

import json
import statistics
import time
import uuid
from typing import Any

import pytest

from sandbox.issuer import USER, Issuer
from tests.integration.test_identity import Guarded, own  # noqa: F401 - a fixture
from tests.support.ears import Ears, ask_something_good, memory
from tests.support.waiting import eventually
from tests.support.workshop import Workshop

pytestmark = pytest.mark.slow

#: MiB by which the worker may have grown at any time.
GROWTH = 250
KEYS = b"{" + b",".join(b'"token%06d":1' % number for number in range(65_000)) + b"}"
STRINGS = b'{"a":[' + b",".join([b'"a=b: secret c"'] * 60_000) + b"]}"
RUBBISH = {
    "keys": KEYS,
    "strings": STRINGS,
    "objects": b'{"a":[' + b"{}," * 340_000 + b"{}]}",
    "long": b'{"a":"' + b"token " * 170_000 + b'"}',
    "text": b"pass word : x = y token " * 43_000,
    "deep": b"[" * 1_000_000,
    "bytes": bytes(range(256)) * 4000,
    "huge": b"x" * 3_900_000,
}


def waits(ears: Ears, tag: str, number: int) -> list[float]:
    """Seconds until each of so many good messages was answered."""
    found = []
    for one in range(number):
        began = time.monotonic()
        ask_something_good(ears, "server.show", f"{tag}-{one}")
        ears.await_reply(f"{tag}-{one}")
        found.append(time.monotonic() - began)
    return found


@pytest.mark.parametrize("queue", ["same", pytest.param("other", marks=pytest.mark.long)])
def test_rubbish_does_not_hold_up_a_good_message(workshop: Workshop, queue: str) -> None:
    """Twenty of each kind: a good one is answered while they are worked through."""
    worker = workshop.worker()
    with Ears(workshop.broker_url) as ears, Ears(workshop.broker_url) as rubbish:
        waits(ears, "warm", 3)
        before, well = memory(worker), waits(ears, "well", 20)
        exchange, key = (
            ("ecs.commands", "server.show") if queue == "same" else ("ecs.orders", "order.x")
        )
        for name, body in RUBBISH.items():
            for number in range(5):
                given = {"content_type": "application/json", "correlation_id": f"{name}-{number}"}
                rubbish.publish(exchange, key, body, given)
        beside = waits(ears, "beside", 20)
        assert memory(worker) - before < GROWTH
        eventually(lambda: ears.depth("ecs.dead") == 5 * len(RUBBISH), 120)
    # Generous, for a machine that does other work besides: without slices and thread it is tens of
    # seconds.
    assert statistics.median(beside) < 5 * statistics.median(well) + 1.0
    assert max(beside) < 10.0 + 20 * max(well)


def test_large_orders_with_keys_that_nobody_has_take_no_memory(own: Guarded) -> None:  # noqa: F811
    """A hundred of half a MiB, each of which would be decoded to ten times as much; a good one
    behind them.
    """
    workshop = own.workshop
    worker = workshop.worker()
    issuer, pad = Issuer(), ["x"] * 100_000
    order = own.order(str(uuid.uuid4()))
    with Ears(workshop.broker_url) as ears:
        before, most = memory(worker), 0.0
        for number in range(100):
            body: dict[str, Any] = order | {
                "orderId": f"made-up-{number}",
                "token": issuer.token(project="tenant-a"),
                "pad": pad,
            }
            given = {
                "content_type": "application/json",
                "message_id": f"order-{number}",
                "correlation_id": f"order-{number}",
            }
            ears.publish("ecs.orders", "order.changeConfigure", json.dumps(body).encode(), given)
            if number % 10 == 0:
                most = max(most, memory(worker) - before)
        small = order | {"orderId": uuid.uuid4().hex, "userId": USER}
        given = {"content_type": "application/json", "correlation_id": "good"}
        ears.publish("ecs.orders", "order.changeConfigure", json.dumps(small).encode(), given)
        limit = time.monotonic() + 240
        while (
            ears.depth("ecs.dead") < 100 or not ears.outcomes["good"].results
        ) and time.monotonic() < limit:
            most = max(most, memory(worker) - before)
            ears.listen(0.5)
        assert ears.depth("ecs.dead") == 100
        assert most < GROWTH
        codes = {
            code for tag, one in ears.outcomes.items() if tag != "good" for code, *_ in one.results
        }
        assert codes == {"101.001401"}
        assert ears.outcomes["good"].results[0][0] == "101.001033"
