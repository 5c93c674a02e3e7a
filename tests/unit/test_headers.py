"""Tests what publishers may put into properties and headers, and what becomes of it when the
message is published again.
"""

import gzip
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from amqp.serialization import loads
from hypothesis import given
from hypothesis import strategies as st
from pika.frame import Header
from pika.spec import BasicProperties

from messages.errors import Refused
from sandbox.documents import new_token
from tests.support import amqp
from workers.amqp.envelope import Envelope
from workers.amqp.headers import LEFT_OUT_HEADER, MAX_HEADERS, check, kept, short_text, trace
from workers.pipeline.undeliverable import last_death


def read(headers: Any, **properties: Any) -> Envelope:
    return amqp.delivered(
        "ecs.servers", "ecs.commands", "server.show", b"{}", {"headers": headers, **properties}
    )


def written(headers: dict[str, Any]) -> dict[str, Any]:
    """Return what another client reads of headers that pika has written."""
    raw = Header(1, 0, BasicProperties(headers=headers)).marshal()
    # After the frame's head (7), class, weight and size (12) and the flags (2); a header has to fit
    # into one frame.
    assert len(raw) < MAX_HEADERS + 2000
    found: dict[str, Any] = loads("F", raw, 21)[0][0]
    return found


@pytest.mark.parametrize(
    "value",
    [
        amqp.moment(1_831_707_302_400),  # the year 60014
        amqp.moment(2**64 - 1),
        amqp.double(float("nan")),
        amqp.double(float("inf")),
        amqp.deep(20_000),
        b"?",
        b"S\x00\x00",
    ],
)
def test_headers_that_cannot_be_read_are_cut_off_and_said_to_be_unreadable(value: bytes) -> None:
    envelope = read(
        amqp.table({"before": amqp.text("x"), "odd": value}),
        content_type="application/json",
        type="free",
        content_encoding="utf-8",
        message_id="m",
        correlation_id="c",
        reply_to="r",
    )
    assert (envelope.headers, envelope.unreadable) == ({}, ("headers",))
    assert (envelope.content_type, envelope.content_encoding, envelope.type) == (
        "application/json",
        "utf-8",
        "free",
    )
    assert (envelope.message_id, envelope.correlation_id, envelope.reply_to) == ("m", "c", "r")


def test_properties_that_are_no_utf_8_are_named_and_can_be_published_again() -> None:
    envelope = read(
        {},
        message_id=b"\xff" * 255,
        correlation_id=b"\xe4\xb8",
        reply_to=b"\x80",
        type=b"\xfe",
        app_id=b"a",
    )
    assert envelope.unreadable == ("correlation_id", "reply_to", "message_id")
    assert envelope.message_id == r"\xff" * 63 + r"\xf"[: 255 - 63 * 4]
    assert (envelope.correlation_id, envelope.type, envelope.app_id) == (r"\xe4\xb8", r"\xfe", "a")


@pytest.mark.parametrize(
    ("seconds", "found"), [(0, 0), (1_700_000_000, 1_700_000_000), (2**64 - 1, None)]
)
def test_a_time_after_the_year_9999_is_none(seconds: int, found: int | None) -> None:
    assert read({}, timestamp=seconds).timestamp == found


def test_what_another_client_wrote_can_be_written_and_read_again() -> None:
    envelope = read(
        {
            "text": amqp.text("中\U0001f600"),
            "bytes": amqp.octets(b"\xe4\xff"),
            "no utf-8": amqp.text(b"\xff"),
            b"\xff\xfe": amqp.text("odd name"),
            "long": amqp.integer(-(2**63)),
            "float": amqp.double(1e300),
            "decimal": amqp.decimal(-1, 255),
            "bool": amqp.boolean(True),
            "time": amqp.moment(1_700_000_000),
            "none": amqp.nothing(),
            "list": amqp.array(amqp.double(-2.0), amqp.nested({"x": amqp.double(3.0)})),
            "deep": amqp.deep(600),
        }
    )
    assert envelope.unreadable == ()
    found = written(kept(envelope.headers))
    assert {
        name: found[name]
        for name in ("text", "bytes", "no utf-8", r"\xff\xfe", "long", "bool", "none")
    } == {
        "text": "中\U0001f600",
        "bytes": b"\xe4\xff",
        "no utf-8": b"\xff",
        r"\xff\xfe": "odd name",
        "long": -(2**63),
        "bool": True,
        "none": None,
    }
    assert found["time"] == datetime(2023, 11, 14, 22, 13, 20)  # noqa: DTZ001 - as py-amqp gives it
    assert "nested too deep" in str(found["deep"])


def test_the_brokers_history_and_routing_headers_do_not_go_along() -> None:
    forged = {
        "x-death": [1],
        "x-first-death-queue": "ecs.orders",
        "x-last-death-reason": "x",
        "x-delivery-count": 7,
    }
    assert kept({**forged, "CC": ["ecs.orders"], "BCC": ["ecs.dead"], "cc": 1, "mine": 2}) == {
        "cc": 1,
        "mine": 2,
    }


def test_secrets_in_headers_are_masked_by_name_and_by_look() -> None:
    token = new_token()
    found = kept(
        {
            "Authorization": "opaque",
            "note": f"Bearer {token}",
            "raw": token.encode(),
            "in": [{"password": 1}],
            "packed": gzip.compress(token.encode(), mtime=0),
        }
    )
    masked = {
        "Authorization": "***",
        "note": "Bearer ***",
        "raw": "***",
        "in": [{"password": "***"}],
        "packed": "***",
    }
    assert found == masked


def test_headers_that_do_not_fit_are_left_out_and_counted() -> None:
    found = kept(
        {"huge": "x" * 100_000, "small": 1}
        | {f"many-{number}": "y" * 100 for number in range(1000)}
    )
    assert "huge" not in found
    assert found["small"] == 1
    assert 700 < found[LEFT_OUT_HEADER] < 1000
    written(found)


HEADER = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.decimals()
    | st.datetimes(datetime(1970, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.binary(max_size=5), inner)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=10) | st.binary(max_size=300), HEADER, max_size=10))
def test_whatever_a_header_holds_it_can_be_checked_and_written(headers: dict[Any, Any]) -> None:
    named = {
        short_text(name) if isinstance(name, bytes) else name: value
        for name, value in headers.items()
    }
    with suppress(Refused):
        check(named)
    written(kept(named))


@pytest.mark.parametrize(
    "headers",
    [
        {"a": "x" * MAX_HEADERS},
        {f"a{number}": "x" * 100 for number in range(MAX_HEADERS // 100)},
        {"a": [[[[[[[[1]]]]]]]]},
    ],
)
def test_more_headers_than_a_request_may_carry_are_refused(headers: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        check(headers)
    assert caught.value.subject == "headers"


def test_the_usual_headers_pass() -> None:
    check({})
    check({"baggage": "x" * 8192, "a": [[[[[[[1]]]]]]], "n": 1, "d": Decimal(1), b"\xff": b"\xff"})


PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({}, {}),
        ({"traceparent": PARENT}, {"traceparent": PARENT}),
        (
            {"traceparent": PARENT, "tracestate": "a=b"},
            {"traceparent": PARENT, "tracestate": "a=b"},
        ),
        ({"traceparent": PARENT, "tracestate": "x" * 513}, {"traceparent": PARENT}),
        ({"traceparent": PARENT, "tracestate": "a\r\nb"}, {"traceparent": PARENT}),
        ({"traceparent": PARENT + "\n"}, {}),
        ({"traceparent": "x" * 100_000}, {}),
        ({"traceparent": PARENT.encode()}, {}),
        ({"tracestate": "a=b"}, {}),
    ],
)
def test_only_a_trace_context_is_continued(headers: dict[str, Any], found: dict[str, str]) -> None:
    assert trace(headers) == found


@pytest.mark.parametrize(
    ("queue", "ours"), [("ecs.orders", "ecs.orders"), ("ecs.servers", "ecs.commands")]
)
def test_no_exchange_of_a_forged_death_is_published_to(queue: str, ours: str) -> None:
    """RabbitMQ 3 keeps an entry of `x-death` that its publisher wrote, and only counts it up."""
    death = {
        "queue": queue,
        "reason": "expired",
        "exchange": "amq.topic",
        "routing-keys": ["a.key"],
        "count": 2,
    }
    message = amqp.delivered("ecs.undelivered", "ecs.undelivered", "a.key", b"{}", {})
    message = replace(message, headers={"x-death": [death]})
    found = last_death(message)
    assert found is not None
    came, reason = found
    assert (came.routed_by, reason) == ((ours, "a.key"), "deadline")


def test_no_exchange_of_a_forged_renewal_is_published_to() -> None:
    """It counts for what came by the default exchange, which a forged history says, too."""
    death = {"queue": "ecs.orders", "reason": "expired", "exchange": "", "routing-keys": ["a.key"]}
    renewal = {"exchange": "amq.topic", "routing-key": "a.key", "times": 1}
    message = amqp.delivered("ecs.undelivered", "ecs.undelivered", "a.key", b"{}", {})
    message = replace(message, headers={"x-death": [death], "x-ecs-renewal": renewal})
    found = last_death(message)
    assert found is not None
    assert found[0].routed_by == ("ecs.orders", "a.key")
