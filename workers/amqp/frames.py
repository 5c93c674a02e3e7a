"""Frames that publishers filled: neither unreadable headers nor a large body may harm the worker.

pika decodes a message's headers while it reads the stream. What it cannot represent (a time after
the year 9999, arrays thousands of levels deep) ends the connection, and the message comes again on
the next one, for ever.

pika hands over whole bodies. At the default prefetch 500 bodies of 64 MiB would be 32 GiB, and each
would stop the loop while its parts are joined. Bodies that are too large are counted and digested
as their frames come, and not kept.
"""

import hashlib
import struct
from typing import Any

from pika import frame, spec
from pika.exceptions import InvalidFieldTypeException

from workers.amqp.envelope import LeftOut

#: The headers of a message whose headers could not be read; known by identity.
UNREADABLE_HEADERS: dict[str, Any] = {}

#: Bytes of a frame whose headers are decoded: a request may carry 32 KiB, and what the broker and
#: we have added goes on top. pika needs a millisecond for each KiB of them in the worst case.
_MOST_DECODED = 48 * 1024
_FRAME = struct.Struct(">BHI")
#: Class, weight and size of the body, before the flags.
_BEFORE_FLAGS = 12
_SHORT_STRINGS_BEFORE = (
    spec.BasicProperties.FLAG_CONTENT_TYPE,
    spec.BasicProperties.FLAG_CONTENT_ENCODING,
)
_UNREADABLE = (
    ValueError,
    ArithmeticError,
    OSError,
    RecursionError,
    struct.error,
    InvalidFieldTypeException,
)


def read_frame(buffer: bytes) -> tuple[int, Any]:
    """Decode as pika's `decode_frame`: bytes consumed and the frame, None where it is not all
    there.
    """
    if not _is_large(buffer):
        try:
            found: tuple[int, Any] = frame.decode_frame(buffer)
            return found
        except _UNREADABLE:
            if buffer[0] != spec.FRAME_HEADER:
                raise
    size, cut = _without_headers(buffer)
    _, header = frame.decode_frame(cut)
    header.properties.headers = UNREADABLE_HEADERS
    return size, header


def _is_large(buffer: bytes) -> bool:
    """True where it begins with a whole frame of properties that takes too long to decode."""
    if len(buffer) < _MOST_DECODED or buffer[0] != spec.FRAME_HEADER:
        return False
    size: int = _FRAME.unpack_from(buffer)[2]
    return _MOST_DECODED <= size < len(buffer) - _FRAME.size


def _without_headers(buffer: bytes) -> tuple[int, bytes]:
    """Return the size of a content header's frame, and the frame without its table of headers."""
    kind, channel, size = _FRAME.unpack_from(buffer)
    payload = buffer[_FRAME.size : _FRAME.size + size]
    (flags,) = struct.unpack_from(">H", payload, _BEFORE_FLAGS)
    begin = _BEFORE_FLAGS + 2
    for flag in _SHORT_STRINGS_BEFORE:
        if flags & flag:
            begin += 1 + payload[begin]
    (length,) = struct.unpack_from(">I", payload, begin)
    flags &= ~spec.BasicProperties.FLAG_HEADERS
    cut = payload[:_BEFORE_FLAGS] + struct.pack(">H", flags) + payload[_BEFORE_FLAGS + 2 : begin]
    cut += payload[begin + 4 + length :]
    return _FRAME.size + size + 1, _FRAME.pack(kind, channel, len(cut)) + cut + bytes(
        [spec.FRAME_END]
    )


class _Counted:
    """One body while its frames come."""

    def __init__(self, header: frame.Header) -> None:
        self.header = header
        self._size = int(header.body_size)
        self._seen = 0
        self._digest = hashlib.sha256()

    def add(self, fragment: bytes) -> bool:
        """Count a frame's bytes; True where they were the last."""
        self._digest.update(fragment)
        self._seen += len(fragment)
        return self._seen >= self._size

    def as_empty(self) -> frame.Header:
        """Return the header of a message without body; its properties have `left_out`."""
        self.header.body_size = 0
        self.header.properties.left_out = LeftOut(self._seen, self._digest.hexdigest())
        return self.header


class BodyLimit:
    """Takes bodies of more than `most` bytes out of a connection's frames."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._counted: dict[int, _Counted] = {}

    def passed(self, found: Any) -> Any:
        """Return the frame that pika is to see: a heartbeat in the place of one that is kept from
        it.
        """
        channel = getattr(found, "channel_number", 0)
        counted = self._counted.get(channel)
        if isinstance(found, frame.Header) and found.body_size > self._most:
            self._counted[channel] = _Counted(found)
            return frame.Heartbeat()
        if counted is None:
            return found
        if not isinstance(found, frame.Body):  # the channel was closed over it
            del self._counted[channel]
            return found
        if not counted.add(found.fragment):
            return frame.Heartbeat()
        del self._counted[channel]
        return counted.as_empty()


def left_out_of(properties: Any) -> LeftOut | None:
    """Return what was left out of a message with these properties; None where it came whole."""
    found: LeftOut | None = getattr(properties, "left_out", None)
    return found
