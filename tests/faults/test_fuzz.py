"""Mutated messages through intake: each is a request, nothing, or unfit, in time, and can be written again."""

import json
import time
from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika.frame import Header

from messages.order_results import unread_order_result
from messages.results import Result
from messages.wire import decode, encode
from tests.faults import amqp
from tests.faults.fuzz import Message, mutated, samples, stream
from workers import intake
from workers.envelope import Envelope
from workers.headers import kept
from workers.outbox import again, masked_body
from workers.publisher import properties_of
from workers.request import Request

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
#: Seconds for one message, on a machine that does other work besides.
LIMIT = 5.0
#: Bytes of a frame; headers must fit into one.
FRAME = 131_072
RIGHT = samples()


def delivered(message: Message) -> Envelope:
    given = {"message_id": "m-1", **message.properties}
    return amqp.delivered(message.queue, message.exchange, message.routing_key, message.body, given)


def check(message: Message) -> str:
    """What it was taken for."""
    started = time.monotonic()
    envelope = delivered(message)
    try:
        request = intake.read(envelope)
    except intake.Ignored:
        return "ignored"
    except intake.Unfit as unfit:
        _check_refusal(envelope, unfit)
        found = "unfit"
    else:
        _check_request(request)
        found = "request"
    assert time.monotonic() - started < LIMIT
    return found


def _check_refusal(envelope: Envelope, unfit: intake.Unfit) -> None:
    """It is answered with a body that is within the limits itself, under a key that is one; it can be parked."""
    assert unfit.refused.subject
    result = Result.refusal(unfit.refused)
    if unfit.is_order:
        result = unread_order_result(unfit.message or {}, unfit.refused, NOW)
    body = encode(result.envelope())
    assert decode(body, "application/json", None)["code"] == "101.001002"
    assert len((unfit.operation or "").encode()) < 255
    parked = again(envelope, "ecs.dead", envelope.queue, masked_body(envelope.body), kept(envelope.headers))
    assert len(Header(1, len(parked.body), properties_of(parked)).marshal()) < FRAME


def _check_request(request: Request) -> None:
    """Its body can be written, its key can be a key, its updates have a routing key."""
    assert json.loads(encode(dict(request.message))) == request.message
    assert len(request.key("p" * 32) or "") <= 400
    assert (
        request.name is None or request.operation.startswith(("server.", "image.")) or len(request.name.encode()) <= 240
    )
    assert "***" in json.dumps(request.message) or "token" not in request.message or request.message["token"] is None


@pytest.mark.parametrize("index", range(len(RIGHT)))
def test_what_the_mutations_begin_with_is_right(index: int) -> None:
    exchange, routing_key, body = RIGHT[index]
    assert check(Message(exchange, routing_key, json.dumps(body).encode(), {})) == "request"


def test_mutated_messages_are_requests_or_refused_and_nothing_else(fuzz: int) -> None:
    counts = {"ignored": 0, "request": 0, "unfit": 0}
    for number, message in enumerate(stream(seed=1, number=fuzz)):
        try:
            counts[check(message)] += 1
        except Exception as error:
            raise AssertionError(f"number {number}: {message}"[:3000]) from error
    # The mutations reach behind every door.
    assert min(counts["unfit"], counts["request"]) > fuzz // 5, counts
    assert counts["ignored"] > fuzz // 2000, counts


@settings(max_examples=300, derandomize=True)
@given(st.randoms(use_true_random=False))
def test_mutations_that_hypothesis_chooses_are_requests_or_refused(random: Random) -> None:
    check(mutated(random, RIGHT))


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20), lambda inner: st.lists(inner,
    max_size=3)
    | st.dictionaries(st.sampled_from(("id", "servers", "type", "os-start", "name", "value", "code", "")), inner,
    max_size=3), max_leaves=10,
)  # fmt: skip


@settings(max_examples=300, derandomize=True)
@given(st.sampled_from(RIGHT), st.data())
def test_any_value_in_any_field_is_read_or_refused(
    sample: tuple[str, str, dict[str, object]], data: st.DataObject
) -> None:
    exchange, routing_key, body = sample
    names = data.draw(st.lists(st.sampled_from(sorted(body)), min_size=1, max_size=3))
    changed = body | {name: data.draw(TREES) for name in names}
    check(Message(exchange, routing_key, json.dumps(changed).encode(), {}))
