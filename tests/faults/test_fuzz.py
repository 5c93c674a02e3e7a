"""Mutated messages: through intake each is a request, nothing, or unfit, in time; through a worker
none is lost.

`pytest tests/faults/test_fuzz.py --fuzz 1000000` sends more of them, `--fuzz-seed 7` others.
"""

import json
import re
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messages.results import Result, unread_order_result
from messages.wire import decode, encode
from sandbox.documents import REGION
from sandbox.openstack import SimulatedOpenStack
from tests.support import amqp
from tests.support.ears import CONSUMED, GROWTH, PATIENCE, Ears, ask_something_good, memory
from tests.support.fuzz import Message, mutated, samples, stream
from tests.support.names import READS_QUEUE
from tests.support.workshop import Workshop
from workers.amqp.envelope import Envelope
from workers.amqp.frames import publication_frames
from workers.amqp.headers import kept
from workers.pipeline.exits import Ignored, Rejected
from workers.pipeline.parsing import parse
from workers.pipeline.replies import again, masked_body
from workers.request import Request

pytestmark = pytest.mark.slow

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
#: Seconds for one message, on a machine that does other work besides.
LIMIT = 5.0
#: Bytes of a frame; headers must fit into one.
FRAME = 131_072
RIGHT = samples()


def delivered(message: Message) -> Envelope:
    given = {"message_id": "m-1", "reply_to": "replies", **message.properties}
    return amqp.delivered(message.queue, message.exchange, message.routing_key, message.body, given)


def check(message: Message) -> str:
    """Return what it was taken for."""
    started = time.process_time()
    envelope = delivered(message)
    try:
        request = parse(envelope, REGION)
    except Ignored:
        return "ignored"
    except Rejected as unfit:
        _check_refusal(envelope, unfit)
        found = "unfit"
    else:
        _check_request(request)
        found = "request"
    assert time.process_time() - started < LIMIT
    return found


def _check_refusal(envelope: Envelope, unfit: Rejected) -> None:
    """It is answered with a body that is within the limits itself, under a key that is one; it can
    be parked.
    """
    assert unfit.refused.subject
    result = Result.refusal(unfit.refused)
    if unfit.is_order:
        result = unread_order_result(unfit.message or {}, unfit.refused, NOW)
    body = encode(result.envelope())
    assert decode(body, "application/json", None)["code"] == "101.001002"
    assert len((unfit.operation or "").encode()) < 255
    parked = again(
        envelope, "ecs.dead", envelope.queue, masked_body(envelope.body), kept(envelope.headers)
    )
    assert len(publication_frames(replace(parked, body=b""), 1, FRAME)) < FRAME


def _check_request(request: Request) -> None:
    """Its body can be written, its key can be a key, its updates have a routing key."""
    assert json.loads(encode(dict(request.message))) == request.message
    assert len(request.key("p" * 32) or "") <= 400
    assert (
        request.name is None
        or request.operation.startswith(("server.", "image."))
        or len(request.name.encode()) <= 240
    )
    assert (
        "***" in json.dumps(request.message)
        or "token" not in request.message
        or request.message["token"] is None
    )


@pytest.mark.parametrize("index", range(len(RIGHT)))
def test_what_the_mutations_begin_with_is_right(index: int) -> None:
    exchange, routing_key, body = RIGHT[index]
    assert check(Message(exchange, routing_key, json.dumps(body).encode(), {})) == "request"


def test_mutated_messages_are_requests_or_refused_and_nothing_else(
    fuzz: int, fuzz_seed: int
) -> None:
    counts = {"ignored": 0, "request": 0, "unfit": 0}
    for number, message in enumerate(stream(fuzz_seed, fuzz)):
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
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(("id", "servers", "type", "os-start", "name", "value", "code", "")),
            inner,
            max_size=3,
        )
    ),
    max_leaves=10,
)


@settings(max_examples=300, derandomize=True)
@given(st.sampled_from(RIGHT), st.data())
def test_any_value_in_any_field_is_read_or_refused(
    sample: tuple[str, str, dict[str, object]], data: st.DataObject
) -> None:
    exchange, routing_key, body = sample
    names = data.draw(st.lists(st.sampled_from(sorted(body)), min_size=1, max_size=3))
    changed = body | {name: data.draw(TREES) for name in names}
    check(Message(exchange, routing_key, json.dumps(changed).encode(), {}))


def test_mutated_messages_through_a_worker_are_each_answered_or_parked(
    declared: str, simulated: SimulatedOpenStack, tmp_path: Path, fuzz: int, fuzz_seed: int
) -> None:
    with Workshop(declared, simulated, tmp_path) as workshop, Ears(declared) as ears:
        worker = workshop.worker(ECS_RETRY_DELAYS="1")
        server_id = workshop.tenant().make_server(disk=None)
        ask_something_good(ears, READS_QUEUE, "warm")
        ears.await_reply("warm")
        before, wanted = memory(worker), dict[str, Message]()
        for number, message in enumerate(stream(fuzz_seed, fuzz // 10, server_id)):
            tag = f"m-{number}"
            replies = {"reply_to": ears.reply_to} if number % 2 else {}
            given = {"message_id": tag, **replies, **message.properties, "correlation_id": tag}
            ears.publish(message.exchange, message.routing_key, message.body, given)
            sent = Message(message.exchange, message.routing_key, message.body, given)
            if _is_heard(sent, ears.reply_to) and check(sent) != "ignored":
                wanted[tag] = sent
            if number % 50 == 0:
                absent = ask_something_good(ears, message.queue, f"good-{number}")
                assert ears.await_reply(f"good-{number}") == absent, f"after number {number}"
        limit = time.monotonic() + PATIENCE * 3
        while missing := [tag for tag in wanted if not ears.outcomes[tag].is_any]:
            ears.listen(0.5)
            ears.take_parked()
            assert time.monotonic() < limit, [wanted[tag] for tag in missing[:3]]
        assert memory(worker) - before < GROWTH
        assert worker.terminate() == 0
        assert {queue: ears.depth(queue) for queue in CONSUMED} == dict.fromkeys(CONSUMED, 0)
    assert not re.search(
        "Traceback|unforeseen|connection.down|channel_closed|internal", workshop.logs()
    )


def _is_heard(message: Message, reply_to: str) -> bool:
    """Tell whether anybody hears of it: a reply queue that is gone costs nothing, and a command is
    answered there alone.
    """
    named = message.properties.get("reply_to")
    return (
        message.exchange == "ecs.orders"
        or named in (None, "", b"\xff", reply_to)
        or str(named).startswith("ecs.")
    )
