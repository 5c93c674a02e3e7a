"""AMQP as a hostile publisher writes it: any bytes as properties and headers, where a client
library would refuse.
"""

import struct
from collections.abc import Mapping
from typing import Any

import pika
from pika.frame import Body, Header, Method
from pika.spec import Basic, BasicProperties

from tests.support.names import NAMES
from workers.amqp.envelope import Envelope
from workers.amqp.frames import FRAME, DeliveryReader

_SHORT_STRINGS = {
    "content_type": BasicProperties.FLAG_CONTENT_TYPE,
    "content_encoding": BasicProperties.FLAG_CONTENT_ENCODING,
    "correlation_id": BasicProperties.FLAG_CORRELATION_ID,
    "reply_to": BasicProperties.FLAG_REPLY_TO,
    "expiration": BasicProperties.FLAG_EXPIRATION,
    "message_id": BasicProperties.FLAG_MESSAGE_ID,
    "type": BasicProperties.FLAG_TYPE,
    "user_id": BasicProperties.FLAG_USER_ID,
    "app_id": BasicProperties.FLAG_APP_ID,
}
_FLAGS = _SHORT_STRINGS | {
    "headers": BasicProperties.FLAG_HEADERS,
    "delivery_mode": BasicProperties.FLAG_DELIVERY_MODE,
    "priority": BasicProperties.FLAG_PRIORITY,
    "timestamp": BasicProperties.FLAG_TIMESTAMP,
}


class RawProperties(BasicProperties):  # type: ignore[misc]  # pika is half typed
    """Properties by name; short strings and names of headers may be any bytes, values of headers
    are made by the functions below, or bytes of a whole table; None is missing.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        super().__init__()
        self._given = {
            name: value
            for name, value in {"delivery_mode": 2, **given}.items()
            if value is not None
        }

    def encode(self) -> list[bytes]:
        """Return what goes over the wire."""
        flags = sum(_FLAGS[name] for name in self._given)
        # The flags stand for the properties from the highest bit down, and so do the properties.
        order = sorted(self._given, key=lambda name: -_FLAGS[name])
        return [struct.pack(">H", flags), *(self._encoded(name) for name in order)]

    def _encoded(self, name: str) -> bytes:
        value = self._given[name]
        if name in _SHORT_STRINGS:
            return _short(value)
        if name == "headers":
            return value if isinstance(value, bytes) else table(value)
        return struct.pack(">Q" if name == "timestamp" else "B", value)


def _short(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return bytes([len(raw)]) + raw


def table(pairs: Mapping[str | bytes, bytes]) -> bytes:
    """A whole table."""
    data = b"".join(_short(name) + value for name, value in pairs.items())
    return struct.pack(">I", len(data)) + data


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return b"S" + struct.pack(">I", len(raw)) + raw


def octets(value: bytes) -> bytes:
    return b"x" + struct.pack(">I", len(value)) + value


def integer(value: int) -> bytes:
    return b"l" + struct.pack(">q", value)


def double(value: float) -> bytes:
    return b"d" + struct.pack(">d", value)


def decimal(unscaled: int, scale: int) -> bytes:
    return b"D" + struct.pack(">Bi", scale, unscaled)


def boolean(value: bool) -> bytes:
    return b"t" + bytes([value])


def moment(seconds: int) -> bytes:
    return b"T" + struct.pack(">Q", seconds)


def nothing() -> bytes:
    return b"V"


def array(*values: bytes) -> bytes:
    data = b"".join(values)
    return b"A" + struct.pack(">I", len(data)) + data


def nested(pairs: Mapping[str | bytes, bytes]) -> bytes:
    """A table within a table."""
    return b"F" + table(pairs)


def deep(levels: int) -> bytes:
    """Arrays inside each other."""
    value = b""
    for _ in range(levels):
        value = b"A" + struct.pack(">I", len(value)) + value
    return value


def delivered(
    queue: str,
    exchange: str,
    routing_key: str,
    body: bytes,
    properties: Mapping[str, Any],
    *,
    redelivered: bool = False,
) -> Envelope:
    """The message as the consumer reads it off the wire."""
    frames = [
        Method(1, Basic.Deliver("tag", 1, redelivered, exchange, routing_key)),
        Header(1, len(body), RawProperties(properties)),
        *([Body(1, body)] if body else []),
    ]
    found: list[Envelope] = []
    reader = DeliveryReader(NAMES, queue, None, lambda _, __, envelope: found.append(envelope))
    for one in frames:
        assert take(reader, one.marshal())
    (envelope,) = found
    return envelope


def take(reader: DeliveryReader, frame: bytes) -> bool:
    """Hand a frame to a reader of deliveries; True where it took it."""
    return reader.take(frame[0], frame, FRAME.size, len(frame) - 1)


class Hostile:
    """A connection that publishes anything, with confirms; a context manager."""

    def __init__(self, url: str) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self.channel = self._connection.channel()
        self.channel.confirm_delivery()

    def publish(
        self, exchange: str, routing_key: str, body: bytes, properties: Mapping[str, Any]
    ) -> None:
        """Publish; ends when the broker has it, raises where it refuses it."""
        self.channel.basic_publish(exchange, routing_key, body, RawProperties(properties))

    def __enter__(self) -> "Hostile":
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection.is_open:
            self._connection.close()
