"""Reading frames whose properties were filled by others: headers that pika cannot read must not end
the connection.

pika decodes a message's headers while it reads the stream. What it cannot represent (a time after
the year 9999, arrays thousands of levels deep) ends the connection, and the message comes again on
the next one, for ever.
"""

import struct
from typing import Any

from pika import frame, spec
from pika.exceptions import InvalidFieldTypeException

#: What a message's headers are where they could not be read; known by identity.
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
    """As pika's `decode_frame`: bytes consumed and the frame, None where it is not all there."""
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
    """Whether it begins with a whole frame of a message's properties that takes too long to decode."""
    if len(buffer) < _MOST_DECODED or buffer[0] != spec.FRAME_HEADER:
        return False
    size: int = _FRAME.unpack_from(buffer)[2]
    return _MOST_DECODED <= size < len(buffer) - _FRAME.size


def _without_headers(buffer: bytes) -> tuple[int, bytes]:
    """The size of a content header's frame, and the frame without its table of headers, which says
    how long it is.
    """
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
