"""Frames: what is read and written as bytes is what pika reads and writes; bodies that are too large
are counted and digested, never handed on.
"""

import asyncio
import hashlib
import struct
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import URLParameters, frame, spec
from pika.data import decode_table
from pika.exceptions import (
    BodyTooLongError,
    InvalidFrameError,
    ShortStringTooLong,
    UnsupportedAMQPFieldException,
)

from tests.support.amqp import RawProperties, take
from tests.support.names import NAMES
from workers.amqp.connection import CoalescingConnection
from workers.amqp.envelope import Envelope, LeftOut, Publication
from workers.amqp.frames import (
    DeliveryReader,
    ack_frame,
    publication_frames,
    read_ack,
    read_properties,
)
from workers.amqp.headers import short_text

MOST = 1000
TAGS = st.integers(0, 2**64 - 1)
CHANNELS = st.integers(1, 2047)
SHORT = st.text(st.characters(exclude_categories=["Cs"]), max_size=63)
RAW = st.binary(max_size=255)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | SHORT
    | st.binary(max_size=20)
    | st.integers(0, 2**31).map(lambda one: datetime.fromtimestamp(one, UTC).replace(tzinfo=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SHORT, inner, max_size=3),
    max_leaves=8,
)
HEADERS = st.dictionaries(SHORT, VALUES, max_size=4)
OPTIONAL = st.none() | SHORT
PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        "content_type": RAW,
        "content_encoding": RAW,
        "headers": HEADERS.map(lambda one: b"".join(_table(one))),
        "priority": st.integers(0, 255),
        "correlation_id": RAW,
        "reply_to": RAW,
        "expiration": RAW,
        "message_id": RAW,
        "timestamp": st.integers(0, 2**64 - 1),
        "type": RAW,
        "user_id": RAW,
        "app_id": RAW,
    },
)
PUBLICATIONS = st.builds(
    Publication,
    SHORT,
    SHORT,
    st.binary(max_size=300),
    message_id=OPTIONAL,
    correlation_id=OPTIONAL,
    type=OPTIONAL,
    headers=st.none() | HEADERS,
    mandatory=st.booleans(),
    content_type=OPTIONAL,
    content_encoding=OPTIONAL,
    reply_to=OPTIONAL,
    timestamp=st.integers(0, 2**63),
    app_id=OPTIONAL,
    priority=st.none() | st.integers(0, 255),
)


def _table(headers: dict[str, Any]) -> list[bytes]:
    from pika import data  # noqa: PLC0415

    pieces: list[bytes] = []
    data.encode_table(pieces, headers)
    return pieces


def reader(most: int | None, found: list[Any]) -> DeliveryReader:
    """A reader that notes consumer's tag, delivery tag and message."""
    return DeliveryReader(NAMES, "ecs.servers", most, lambda *one: found.append(one))


def deliver(channel: int, tag: int, routing_key: str = "server.action") -> bytes:
    method = spec.Basic.Deliver("consumer", tag, tag % 2 == 1, "ecs.commands", routing_key)
    return bytes(frame.Method(channel, method).marshal())


def header(channel: int, size: int, **properties: Any) -> bytes:
    return bytes(frame.Header(channel, size, RawProperties(properties)).marshal())


def body(channel: int, part: bytes) -> bytes:
    return bytes(frame.Body(channel, part).marshal())


@given(PROPERTIES)
def test_properties_are_read_as_pika_reads_them(given_properties: dict[str, Any]) -> None:
    payload = b"".join(RawProperties(given_properties).encode())
    known = spec.BasicProperties().decode(payload)
    found, unreadable = read_properties(payload, 0)
    names = list(spec.BasicProperties().__dict__)
    for name, value in zip(names, found, strict=True):
        wanted = getattr(known, name)
        if name == "timestamp" and wanted is not None and wanted > 253402300799:
            wanted = None
        assert value == (short_text(wanted) if isinstance(wanted, bytes) else wanted), name
        assert type(value) is type(wanted) or isinstance(wanted, bytes)
    decisive = ("message_id", "correlation_id", "reply_to")
    assert set(unreadable) == {name for name in decisive if isinstance(getattr(known, name), bytes)}


@given(PUBLICATIONS, CHANNELS, st.integers(0, 300))
def test_a_publication_is_written_as_pika_writes_it(
    one: Publication, channel: int, spare: int
) -> None:
    frame_max = 50 + spare
    known = spec.BasicProperties(
        content_type=one.content_type,
        content_encoding=one.content_encoding,
        headers=dict(one.headers) if one.headers else None,
        delivery_mode=2,
        correlation_id=one.correlation_id,
        reply_to=one.reply_to,
        message_id=one.message_id,
        timestamp=one.timestamp,
        type=one.type,
        app_id=one.app_id,
        priority=one.priority,
    )
    method = spec.Basic.Publish(0, one.exchange, one.routing_key, one.mandatory)
    parts = frame_max - 8
    wanted = [
        frame.Method(channel, method),
        frame.Header(channel, len(one.body), known),
        *(
            frame.Body(channel, one.body[begin : begin + parts])
            for begin in range(0, len(one.body), parts)
        ),
    ]
    written = b"".join(single.marshal() for single in wanted)
    assert publication_frames(one, channel, frame_max) == written


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ({"type": "x" * 256}, ShortStringTooLong),
        ({"headers": {"x" * 256: 1}}, ShortStringTooLong),
        ({"type": "\ud800"}, UnicodeEncodeError),
        ({"headers": {"k": 2**63}}, struct.error),
        ({"headers": {"k": 1.5}}, UnsupportedAMQPFieldException),
        ({"priority": 256}, ValueError),
        ({"timestamp": -1}, struct.error),
    ],
)
def test_what_amqp_cannot_say_is_an_error(what: dict[str, Any], error: type[Exception]) -> None:
    for _ in range(2):  # also when it comes again
        with pytest.raises(error):
            publication_frames(Publication("", "q", b"", **what), 1, 131072)


@given(CHANNELS, TAGS, st.booleans())
def test_acks_are_those_of_pika(channel: int, tag: int, multiple: bool) -> None:
    raw = frame.Method(channel, spec.Basic.Ack(tag, multiple)).marshal()
    assert ack_frame(channel, tag, multiple=multiple) == raw
    assert read_ack(raw, 7, len(raw) - 1) == (tag, multiple)
    nack = frame.Method(channel, spec.Basic.Nack(tag, multiple)).marshal()
    assert read_ack(nack, 7, len(nack) - 1) is None


class Recording(CoalescingConnection):
    """A connection without a broker, which notes what pika is to process."""

    def __init__(self) -> None:
        super().__init__(
            URLParameters("amqp://guest:guest@127.0.0.1//"),
            custom_ioloop=asyncio.new_event_loop(),
            internal_connection_workflow=False,
        )
        self.seen: list[Any] = []

    def _process_frame(self, frame_value: Any) -> None:
        self.seen.append((type(frame_value).__name__, frame_value.channel_number))


MESSAGES = st.lists(
    st.tuples(
        st.sampled_from(["delivery", "delivery", "heartbeat", "other", "foreign"]),
        st.integers(1, 2),
        st.lists(st.binary(min_size=1, max_size=60), max_size=4),
        SHORT,
    ),
    max_size=12,
)


@given(MESSAGES, st.lists(st.integers(1, 90), min_size=1))
def test_a_stream_is_read_alike_in_whatever_pieces_it_comes(
    messages: list[tuple[str, int, list[bytes], str]], pieces: list[int]
) -> None:
    stream, wanted, others = b"", [], []
    for number, (kind, channel, parts, text) in enumerate(messages):
        if kind == "delivery":
            stream += deliver(channel, number, text) + header(channel, len(b"".join(parts)))
            stream += b"".join(body(channel, part) for part in parts)
            wanted.append((channel, number, text, b"".join(parts)))
        elif kind == "heartbeat":
            stream += frame.Heartbeat().marshal()
            others.append(("Heartbeat", 0))
        elif kind == "other":
            stream += frame.Method(channel, spec.Basic.CancelOk("consumer")).marshal()
            others.append(("Method", channel))
        else:  # a channel whose frames pika reads
            stream += deliver(3, number) + header(3, 1) + body(3, b"x")
            others += [("Method", 3), ("Header", 3), ("Body", 3)]
    connection, found = Recording(), []

    def note(channel: int, one: Envelope, tag: int) -> None:
        assert one.redelivered == (tag % 2 == 1)
        found.append((channel, tag, one.routing_key, one.body))

    for channel in (1, 2):
        reads = DeliveryReader(
            NAMES,
            "ecs.servers",
            None,
            lambda _, tag, one, channel=channel: note(channel, one, tag),
        )
        connection._readers[channel] = reads.take
    at = 0
    while at < len(stream):
        size = pieces[at % len(pieces)]
        connection._on_data_available(stream[at : at + size])
        at += size
    assert found == wanted
    assert connection.seen == others
    assert connection.bytes_received == len(stream)
    assert connection._frame_buffer == b""
    connection.ioloop.close()


def test_a_frame_without_its_end_is_an_error() -> None:
    connection = Recording()
    connection._readers[1] = reader(None, []).take
    with pytest.raises(InvalidFrameError):
        connection._on_data_available(deliver(1, 1)[:-1] + b"\x00")
    connection.ioloop.close()


@pytest.mark.parametrize("fault", [b"T" + b"\xff" * 8, b"A\xff\xff\xff\xff", b"?", b"S\xff"])
def test_headers_that_cannot_be_read_are_left_out(fault: bytes) -> None:
    found: list[Any] = []
    reads, pair = reader(None, found), b"\x01k" + fault
    raw = header(1, 0, message_id="m", headers=struct.pack(">I", len(pair)) + pair)
    assert take(reads, deliver(1, 1))
    assert take(reads, raw)
    ((_, _, envelope),) = found
    assert (envelope.headers, envelope.unreadable) == ({}, ("headers",))
    assert envelope.message_id == "m"


@given(HEADERS.map(lambda one: b"".join(_table(one))), st.data())
def test_a_damaged_table_is_read_as_pika_reads_it_or_left_out(table: bytes, data: Any) -> None:
    damaged = bytearray(table)
    for _ in range(data.draw(st.integers(1, 3))):
        # Not the table's own size, which the frame confirms.
        if len(damaged) > 4:
            damaged[data.draw(st.integers(4, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        expected, read_to = decode_table(bytes(damaged), 0)
        is_whole = read_to == len(damaged)
    except Exception:
        expected, is_whole = None, False
    flags = struct.pack(">H", spec.BasicProperties.FLAG_HEADERS)

    found, unreadable = read_properties(flags + bytes(damaged), 0)

    assert unreadable == (() if is_whole else ("headers",))
    assert repr(found[2]) == repr(expected if is_whole else None)


def test_headers_that_take_long_to_decode_are_not_decoded() -> None:
    """pika takes a tenth of a second for such, in which nothing else is done."""
    for headers in ({"k": [None] * 120_000}, {f"k{number:05d}": 1 for number in range(9000)}):
        found: list[Any] = []
        reads = reader(None, found)
        raw = header(1, 0, headers=b"".join(_table(headers)), message_id="m", content_type="t")
        began = time.process_time()
        assert take(reads, deliver(1, 1))
        assert take(reads, raw)
        assert time.process_time() - began < 0.02
        ((_, _, envelope),) = found
        assert envelope.unreadable == ("headers",)
        assert (envelope.message_id, envelope.content_type) == ("m", "t")


def test_a_body_that_is_too_large_is_an_empty_one_with_its_size_and_digest() -> None:
    found: list[Any] = []
    reads, parts = reader(MOST, found), [b"a" * 600, b"b" * 600, b"c" * 7]
    frames = [deliver(1, 5), header(1, 1207, message_id="m"), *(body(1, one) for one in parts)]
    assert all(take(reads, one) for one in frames)
    ((consumer, tag, envelope),) = found
    assert (consumer, tag, envelope.message_id, envelope.body) == ("consumer", 5, "m", b"")
    assert envelope.left_out == LeftOut(1207, hashlib.sha256(b"".join(parts)).hexdigest())
    # In one frame, too; and the next message of the channel is as ever.
    for tag, text in ((6, b"x" * (MOST + 1)), (7, b"y" * MOST)):
        for one in (deliver(1, tag), header(1, len(text)), body(1, text)):
            assert take(reads, one)
    assert found[1][2].left_out == LeftOut(MOST + 1, hashlib.sha256(b"x" * 1001).hexdigest())
    assert (found[2][2].left_out, found[2][2].body) == (None, b"y" * MOST)


def test_a_channel_that_is_closed_over_a_body_begins_anew() -> None:
    found: list[Any] = []
    reads = reader(MOST, found)
    closing = frame.Method(1, spec.Channel.Close(406, "gone", 0, 0)).marshal()
    for size in (5000, 500):
        for one in (deliver(1, 1), header(1, size), body(1, b"x")):
            assert take(reads, one)
        assert not take(reads, closing)
        assert not take(reads, body(1, b"rest"))
    for one in (deliver(1, 2), header(1, 2), body(1, b"ab")):
        assert take(reads, one)
    ((_, tag, envelope),) = found
    assert (tag, envelope.body, envelope.left_out) == (2, b"ab", None)


def test_a_body_that_is_longer_than_its_header_says_is_an_error() -> None:
    reads = reader(MOST, [])
    assert take(reads, deliver(1, 1))
    assert take(reads, header(1, 3))
    with pytest.raises(BodyTooLongError):
        take(reads, body(1, b"four"))
