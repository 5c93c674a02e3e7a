"""Requests that come without end while something is done to the worker."""

import time
from collections.abc import Callable
from itertools import cycle
from typing import Any

from sandbox.requester import Heard, Requester, Source
from tests.support.orders import paid, publish

REBOOT = {"reboot": {"type": "HARD"}}


class Traffic:
    """Reads and changes without end, one after the other; and a renewal now and then."""

    def __init__(
        self,
        requester: Requester,
        servers: list[str],
        renewed: list[str],
        *,
        pace: float = 0.1,
    ) -> None:
        """`pace`: seconds between two requests."""
        self._requester, self._pace = requester, pace
        self._servers, self._renewed = cycle(servers), iter(renewed)
        self.reads: list[str] = []
        #: The servers that are rebooted, and those that get tags, by message id.
        self.reboots: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.orders: list[str] = []

    def until(self, holds: Callable[[], bool], seconds: float) -> None:
        """Go on until something holds."""
        limit = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < limit, f"does not hold after {seconds} s"
            self.ask()

    def fields(self) -> dict[str, Any]:
        """Return what each command has besides: nothing, where publishers are trusted."""
        return {}

    def ask(self) -> None:
        """Publish some reads and a change."""
        server_id = next(self._servers)

        def command(operation: str, **fields: Any) -> str:
            return self._requester.command(operation, **fields, **self.fields())

        for operation, fields in (
            ("server.list", {}),
            ("server.show", {"server_id": server_id}),
            ("image.list", {}),
        ):
            self.reads.append(command(operation, **fields))
            self._requester.listen(self._pace)
        if len(self.reboots) <= len(self.tags):
            self.reboots[command("server.action", server_id=server_id, body=REBOOT)] = server_id
        else:
            self.tags[command("server.tags.update", server_id=server_id, tags="web")] = server_id
        self._requester.listen(self._pace)

    def renew(self) -> None:
        """Send an order."""
        order = paid("renew", next(self._renewed), duration="1", durationUnit="M")
        self.orders.append(publish(self._requester, order))

    def answers(self, message_id: str) -> list[Heard]:
        """The results of a request that have been heard."""
        return [
            one
            for one in self._requester.heard
            if one.source is not Source.STATUS and one.correlation_id == message_id
        ]
