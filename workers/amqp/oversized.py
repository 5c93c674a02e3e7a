"""Bodies that are too large to be read: counted and digested as their frames come, and not kept.

pika hands over whole bodies. At the default prefetch 500 bodies of 64 MiB would be 32 GiB, and each
would stop the loop while its parts are joined.
"""

import hashlib
from typing import Any

from pika import frame

from workers.amqp.envelope import LeftOut


class _Counted:
    """One body while its frames come."""

    def __init__(self, header: frame.Header) -> None:
        self.header = header
        self._size = int(header.body_size)
        self._seen = 0
        self._digest = hashlib.sha256()

    def add(self, fragment: bytes) -> bool:
        """Count a frame's bytes; whether they were the last."""
        self._digest.update(fragment)
        self._seen += len(fragment)
        return self._seen >= self._size

    def as_empty(self) -> frame.Header:
        """The header of a message without body; its properties have `left_out`."""
        self.header.body_size = 0
        self.header.properties.left_out = LeftOut(self._seen, self._digest.hexdigest())
        return self.header


class BodyLimit:
    """Takes the bodies that are larger than `most` bytes out of a connection's frames."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._counted: dict[int, _Counted] = {}

    def passed(self, found: Any) -> Any:
        """The frame as pika is to see it: in the place of one that is kept from it, a heartbeat."""
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
    """What was left out of a message that came with these properties; None where it came whole."""
    found: LeftOut | None = getattr(properties, "left_out", None)
    return found
