"""Frames on the wire: deliveries are read here, and publications and acks written, instead of by
pika, which makes ten objects and forty calls of what takes one pass over the bytes.

What publishers fill may not harm the worker:

- Headers that cannot be represented (a time after the year 9999, arrays thousands of levels deep)
  would end the connection, and the message would come again on the next one, for ever. They are
  left out, and so are headers that take too long to decode.
- At the default prefetch 500 bodies of 64 MiB would be 32 GiB, and each would stop the loop while
  its parts are joined. Bodies that are too large are counted and digested as their frames come,
  and not kept.
"""

import hashlib
import math
import struct
from collections.abc import Callable
from functools import lru_cache
from time import time
from typing import Any

from pika import data, spec
from pika.exceptions import BodyTooLongError, InvalidFieldTypeException, ShortStringTooLong

from workers.amqp.envelope import Envelope, LeftOut, Publication
from workers.amqp.headers import MAX_SHORT, short_text
from workers.amqp.names import Names

#: Kind, channel and size of the payload; one octet ends a frame.
FRAME = struct.Struct(">BHI")
#: Bytes of a frame beside its payload.
OVERHEAD = FRAME.size + 1
_END = bytes([spec.FRAME_END])

#: Bytes of a frame whose headers are decoded: a request may carry 32 KiB, and what the broker and
#: we have added goes on top. pika needs a millisecond for each KiB of them in the worst case.
_MOST_DECODED = 48 * 1024
#: The end of the year 9999, in Unix seconds: no client can read what comes later.
_LAST_SECOND = 253402300799
_UNREADABLE = (
    ValueError,
    ArithmeticError,
    OSError,
    RecursionError,
    struct.error,
    InvalidFieldTypeException,
)

_DELIVER = struct.pack(">I", spec.Basic.Deliver.INDEX)
_ACK = struct.pack(">I", spec.Basic.Ack.INDEX)
#: A reserved short integer follows the number of the method.
_PUBLISH = struct.pack(">IH", spec.Basic.Publish.INDEX, 0)
#: Delivery tag, and a bit: redelivered, or multiple.
_TAG_AND_BIT = struct.Struct(">QB")
_ACK_SIZE, _ACK_FRAME = 13, struct.Struct(">BHI4sQBB")
#: Class, weight, size of the body, and the flags of the properties.
_HEADER = struct.Struct(">HHQH")
_BEFORE_SIZE, _BEFORE_FLAGS = 4, 12
_LENGTH, _SIZE, _FLAGS = struct.Struct(">I"), struct.Struct(">Q"), struct.Struct(">H")
_INTEGER = struct.Struct(">i")
_PERSISTENT = bytes([2])

_Properties = spec.BasicProperties
_SHORT_STRING, _TABLE, _OCTET, _TIMESTAMP = range(4)
#: The properties in the order of the wire: name, flag, kind.
_PROPERTIES = (
    ("content_type", _Properties.FLAG_CONTENT_TYPE, _SHORT_STRING),
    ("content_encoding", _Properties.FLAG_CONTENT_ENCODING, _SHORT_STRING),
    ("headers", _Properties.FLAG_HEADERS, _TABLE),
    ("delivery_mode", _Properties.FLAG_DELIVERY_MODE, _OCTET),
    ("priority", _Properties.FLAG_PRIORITY, _OCTET),
    ("correlation_id", _Properties.FLAG_CORRELATION_ID, _SHORT_STRING),
    ("reply_to", _Properties.FLAG_REPLY_TO, _SHORT_STRING),
    ("expiration", _Properties.FLAG_EXPIRATION, _SHORT_STRING),
    ("message_id", _Properties.FLAG_MESSAGE_ID, _SHORT_STRING),
    ("timestamp", _Properties.FLAG_TIMESTAMP, _TIMESTAMP),
    ("type", _Properties.FLAG_TYPE, _SHORT_STRING),
    ("user_id", _Properties.FLAG_USER_ID, _SHORT_STRING),
    ("app_id", _Properties.FLAG_APP_ID, _SHORT_STRING),
    ("cluster_id", _Properties.FLAG_CLUSTER_ID, _SHORT_STRING),
)
#: Properties that decide where an answer goes and what it is about. What decides by another one
#: (`content_type`) refuses whatever is not its word.
_DECISIVE = ("message_id", "correlation_id", "reply_to")

# Reading.


def read_ack(buffer: bytes, begin: int, end: int) -> tuple[int, bool] | None:
    """Return delivery tag and `multiple` of a Basic.Ack; None where the payload is another
    method's.
    """
    if end - begin != _ACK_SIZE or not buffer.startswith(_ACK, begin):
        return None
    tag, bits = _TAG_AND_BIT.unpack_from(buffer, begin + len(_ACK))
    return tag, bits & 1 == 1


class DeliveryReader:
    """Puts the deliveries of one channel together from their frames.

    `on_delivery` gets the consumer's tag, the delivery tag and the message. `largest`: bytes of the
    largest body that is kept; None: any.
    """

    def __init__(
        self,
        names: Names,
        queue: str,
        largest: int | None,
        on_delivery: Callable[[str, int, Envelope], None],
    ) -> None:
        self._names = names
        self._queue = queue
        self._largest = math.inf if largest is None else largest
        self._on_delivery = on_delivery
        #: The payload of a Basic.Deliver whose content is still to come, and that of its header.
        self._method: bytes | None = None
        self._header: bytes | None = None
        #: Bytes of the body in all, and of those that came.
        self._size = self._seen = 0
        self._parts: list[bytes] = []
        self._digest = hashlib.sha256()

    def _forget(self) -> None:
        self._method = self._header = None
        if self._seen:
            self._seen, self._parts, self._digest = 0, [], hashlib.sha256()

    def take(self, kind: int, buffer: bytes, begin: int, end: int) -> bool:
        """Take a frame with this payload; False where it is none of a delivery."""
        if kind == spec.FRAME_METHOD:
            self._forget()  # of another method while content is missing: the channel was closed
            is_delivery = buffer.startswith(_DELIVER, begin)
            self._method = buffer[begin:end] if is_delivery else None
            return is_delivery
        if self._method is None:
            return False
        if kind == spec.FRAME_HEADER:
            self._header = buffer[begin:end]
            (self._size,) = _SIZE.unpack_from(self._header, _BEFORE_SIZE)
            if self._size == 0:
                self._deliver(b"")
            return True
        if self._header is None or kind != spec.FRAME_BODY:
            return False
        if end - begin == self._size <= self._largest:
            self._deliver(buffer[begin:end])
        else:
            self._add(buffer[begin:end])
        return True

    def _add(self, part: bytes) -> None:
        """Keep a part of a body, or count and digest it."""
        if self._seen + len(part) > self._size:
            raise BodyTooLongError(self._seen + len(part), self._size)
        self._seen += len(part)
        if self._size <= self._largest:
            self._parts.append(part)
        else:
            self._digest.update(part)
        if self._seen == self._size:
            is_kept = self._size <= self._largest
            left_out = None if is_kept else LeftOut(self._size, self._digest.hexdigest())
            self._deliver(b"".join(self._parts), left_out)

    def _deliver(self, body: bytes, left_out: LeftOut | None = None) -> None:
        method, header = self._method, self._header
        assert method is not None
        assert header is not None
        self._forget()
        end = 5 + method[4]
        tag, redelivered = _TAG_AND_BIT.unpack_from(method, end)
        exchange, routing_key = _route(method[end + _TAG_AND_BIT.size :])
        found, unreadable = read_properties(header, _BEFORE_FLAGS)
        envelope = Envelope(
            self._queue,
            exchange,
            routing_key,
            redelivered & 1 == 1,
            body,
            found[8],
            found[5],
            found[6],
            found[10],
            found[9],
            found[0],
            found[1],
            found[11],
            found[2] or {},
            self._names,
            time(),
            found[12],
            found[4],
            found[7],
            unreadable,
            left_out,
        )
        self._on_delivery(_text(method[5:end]), tag, envelope)


@lru_cache(maxsize=256)
def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return short_text(raw)


@lru_cache(maxsize=256)
def _route(raw: bytes) -> tuple[str, str]:
    """Read exchange and routing key."""
    begin = 1 + raw[0]
    return _text(raw[1:begin]), _text(raw[begin + 1 : begin + 1 + raw[begin]])


@lru_cache(maxsize=256)
def _present(flags: int) -> tuple[tuple[int, int], ...]:
    """Return place and kind of the properties that the flags name."""
    return tuple((index, kind) for index, (_, flag, kind) in enumerate(_PROPERTIES) if flags & flag)


def read_properties(payload: bytes, at: int) -> tuple[list[Any], tuple[str, ...]]:
    """Read the properties of a content header, whose flags begin at `at`.

    Returns their values in the order of the wire, None for what is missing, and the names of those
    that could not be read: texts that are no UTF-8 (they are escaped) and headers.
    """
    found: list[Any] = [None] * len(_PROPERTIES)
    unreadable: tuple[str, ...] = ()
    (flags,) = _FLAGS.unpack_from(payload, at)
    at += _FLAGS.size
    more = flags
    while more & 1:  # of properties that nobody has defined
        (more,) = _FLAGS.unpack_from(payload, at)
        at += _FLAGS.size
    for index, kind in _present(flags):
        if kind == _SHORT_STRING:
            end = at + 1 + payload[at]
            raw = payload[at + 1 : end]
            at = end
            try:
                found[index] = raw.decode()
            except UnicodeDecodeError:
                found[index] = short_text(raw)
                name = _PROPERTIES[index][0]
                unreadable += (name,) if name in _DECISIVE else ()
        elif kind == _TIMESTAMP:
            (seconds,) = _SIZE.unpack_from(payload, at)
            at += _SIZE.size
            found[index] = seconds if seconds <= _LAST_SECOND else None
        elif kind == _OCTET:
            found[index] = payload[at]
            at += 1
        else:
            end = at + _LENGTH.size + _LENGTH.unpack_from(payload, at)[0]
            try:
                if len(payload) >= _MOST_DECODED:
                    raise ValueError("the headers take too long to decode")
                found[index] = _read_table(payload, at + _LENGTH.size, end)
            except _UNREADABLE:
                unreadable += ("headers",)
            at = end
    return found, unreadable


def _read_table(payload: bytes, at: int, end: int) -> dict[str | bytes, Any]:
    """Return the entries of a table as pika reads them, which takes three times as long for texts
    and numbers; the rest is left to pika. Raises one of `_UNREADABLE`.
    """
    found: dict[str | bytes, Any] = {}
    if end > len(payload):
        raise ValueError("the headers are longer than their frame")
    while at < end:
        begin = at + 1
        at = begin + payload[at]
        name = _header_name(payload[begin:at])
        kind = payload[at : at + 1]
        if kind == b"S":
            begin = at + 1 + _LENGTH.size
            (size,) = _LENGTH.unpack_from(payload, at + 1)
            at = begin + size
            found[name] = _text_or_bytes(payload[begin:at])
        elif kind == b"I":
            (found[name],) = _INTEGER.unpack_from(payload, at + 1)
            at += 1 + _INTEGER.size
        else:
            found[name], at = data.decode_value(payload, at)
    if at != end:
        raise ValueError("a header is longer than all of them")
    return found


def _text_or_bytes(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


#: Most names are the same in many messages.
_header_name = lru_cache(maxsize=256)(_text_or_bytes)


# Writing.


def ack_frame(channel: int, tag: int, *, multiple: bool) -> bytes:
    """Return the frame of a Basic.Ack."""
    return _ACK_FRAME.pack(
        spec.FRAME_METHOD, channel, _ACK_SIZE, _ACK, tag, multiple, spec.FRAME_END
    )


def publication_frames(one: Publication, channel: int, frame_max: int) -> bytes:
    """Return the frames that publish a message persistently; `frame_max` is the size of the largest
    frame, in bytes.

    Raises `AMQPError`, `ValueError`, `RecursionError` or `struct.error` where it cannot be written
    as AMQP.
    """
    body, largest = one.body, frame_max - OVERHEAD
    frames = [
        _publish_frame(channel, one.exchange, one.routing_key, one.mandatory),
        _frame(spec.FRAME_HEADER, channel, _content_header(one)),
    ]
    frames += [
        _frame(spec.FRAME_BODY, channel, body[begin : begin + largest])
        for begin in range(0, len(body), largest)
    ]
    return b"".join(frames)


def _content_header(one: Publication) -> bytes:
    """Return size and properties, which stand in the order of `_PROPERTIES`."""
    flags, parts = _Properties.FLAG_DELIVERY_MODE | _Properties.FLAG_TIMESTAMP, [b""]
    for flag, text in (
        (_Properties.FLAG_CONTENT_TYPE, one.content_type),
        (_Properties.FLAG_CONTENT_ENCODING, one.content_encoding),
    ):
        if text is not None:
            flags |= flag
            parts.append(_constant(text))
    if one.headers:
        flags |= _Properties.FLAG_HEADERS
        table = b"".join([_header(name, value) for name, value in one.headers.items()])
        parts += (_LENGTH.pack(len(table)), table)
    parts.append(_PERSISTENT)
    if one.priority is not None:
        flags |= _Properties.FLAG_PRIORITY
        parts.append(bytes([one.priority]))
    for flag, text in (
        (_Properties.FLAG_CORRELATION_ID, one.correlation_id),
        (_Properties.FLAG_REPLY_TO, one.reply_to),
        (_Properties.FLAG_MESSAGE_ID, one.message_id),
    ):
        if text is not None:
            flags |= flag
            parts.append(_short(text))
    parts.append(_SIZE.pack(one.timestamp if one.timestamp is not None else int(time())))
    for flag, text in (
        (_Properties.FLAG_TYPE, one.type),
        (_Properties.FLAG_APP_ID, one.app_id),
    ):
        if text is not None:
            flags |= flag
            parts.append(_constant(text))
    parts[0] = _HEADER.pack(_Properties.INDEX, 0, len(one.body), flags)
    return b"".join(parts)


@lru_cache(maxsize=256)
def _publish_frame(channel: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
    method = _PUBLISH + _short(exchange) + _short(routing_key) + bytes([mandatory])
    return _frame(spec.FRAME_METHOD, channel, method)


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return FRAME.pack(kind, channel, len(payload)) + payload + _END


def _short(text: str) -> bytes:
    raw = text.encode()
    if len(raw) > MAX_SHORT:
        raise ShortStringTooLong(raw)
    return bytes([len(raw)]) + raw


#: Of what is the same in many messages.
_constant = lru_cache(maxsize=256)(_short)


def _header(name: str, value: Any) -> bytes:
    """Return one entry of a table."""
    if type(value) is str:
        raw = value.encode()
        return b"".join((_constant(name), b"S", _LENGTH.pack(len(raw)), raw))
    if type(value) is int:
        return _number(name, value)
    pieces: list[bytes] = []
    data.encode_short_string(pieces, name)
    data.encode_value(pieces, value)
    return b"".join(pieces)


@lru_cache(maxsize=256)
def _number(name: str, value: int) -> bytes:
    """Return a table's entry of a whole number; the HTTP status of a result is one of three."""
    pieces: list[bytes] = []
    data.encode_short_string(pieces, name)
    data.encode_value(pieces, value)
    return b"".join(pieces)
