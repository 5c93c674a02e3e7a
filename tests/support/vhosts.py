"""Virtual hosts for many tests, made and removed by the dozen: every command to a node starts an
Erlang machine.
"""

import uuid

from sandbox.broker import PrivateBroker

_AT_ONCE = 12


class Vhosts:
    """Fresh virtual hosts of one node, each for one user."""

    def __init__(self, broker: PrivateBroker) -> None:
        self._broker = broker
        self._fresh: list[str] = []
        self._used: list[str] = []

    def take(self) -> str:
        """The URL of one without any queue."""
        if not self._fresh:
            self._fresh = [f"test-{uuid.uuid4().hex[:12]}" for _ in range(_AT_ONCE)]
            self._broker.add_vhosts(self._fresh)
        return self._broker.url_of(self._fresh.pop())

    def give_back(self, url: str) -> None:
        """It is not needed any more, nor is what is in it."""
        self._used.append(url.rpartition("/")[2])
        if len(self._used) >= _AT_ONCE:
            self._broker.delete_vhosts(self._used)
            self._used = []
