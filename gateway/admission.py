"""Bounds of what is under way at once, shared out among the tenants."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.failures import HttpFailure, busy


class Places:
    """So many places, of which a tenant may have as many as are free.

    One tenant alone has half of them at most, two have a third each: there is always a free place
    for one that comes anew, and no share has to be configured.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        #: Set while none is taken.
        self.idle = asyncio.Event()
        self.idle.set()
        self._of: Counter[str] = Counter()

    @contextmanager
    def one(self, tenant: str, reason: str) -> Iterator[None]:
        """Have a place. Raises `HttpFailure` with this reason where the tenant has its share."""
        if self._of[tenant] >= self.limit - self.taken:
            raise busy(reason)
        self._of[tenant] += 1
        self.taken += 1
        self.idle.clear()
        try:
            yield
        finally:
            self.taken -= 1
            self._of[tenant] -= 1
            if not self._of[tenant]:
                del self._of[tenant]
            if not self.taken:
                self.idle.set()


class Budget:
    """Bytes of bodies that are held at once, shared out as places are."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._of: Counter[str] = Counter()

    @contextmanager
    def account(self, tenant: str) -> Iterator["Account"]:
        """Have an account of a tenant's, which is settled at the end."""
        account = Account(tenant)
        try:
            yield account
        finally:
            self._left += account.held
            self._of[tenant] -= account.held
            if not self._of[tenant]:
                del self._of[tenant]

    def charge(self, account: "Account", size: int) -> None:
        """Charge bytes to an account. Raises `HttpFailure` where its tenant has its share."""
        if self._of[account.tenant] + size > self._left:
            raise _crowded()
        self._left -= size
        self._of[account.tenant] += size
        account.held += size


class Account:
    """The bytes that one request holds."""

    __slots__ = ("held", "tenant")

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.held = 0


def _crowded() -> HttpFailure:
    failure = busy("too_many_bytes")
    failure.headers["Connection"] = "close"
    return failure
