"""Faults on request, in the words of the real control plane's: a point, what it must match, and
what then happens.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse

#: Where a rule may strike.
_POINT = re.compile(
    r"api\.(keystone|nova|cinder|glance|neutron)|virt\.\w+|volume\.\w+|nova\.write_fault"
)
#: Seconds between two bytes of an answer that drips.
_DRIP = 0.2


@dataclass(slots=True)
class Rule:
    """Strikes at a point: `api.SERVICE` (matched in `METHOD PATH`), `virt.METHOD`, `volume.METHOD`
    or `nova.write_fault` (in `UUID NAME`).

    It waits `delay` seconds, and where it is `held` until it is cleared; then it fails with `error`
    (an API with `status` and `retry_after`), answers in an odd way (an API: `answer` is html, cut,
    endless, drip or hangup, or another: JSON of no known shape), or lets the call go on. With
    `after`, an API carries the call out first; with `user`, it does so to the calls of that user
    alone.
    """

    point: str
    match: str = ""
    delay: float = 0.0
    error: str | None = None
    status: int = 503
    times: int | None = None
    after: bool = False
    answer: str | None = None
    retry_after: str | None = None
    user: str | None = None
    held: bool = False
    cleared: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Rule":
        """A rule from JSON. Raises `ValueError` where it says something unknown."""
        known = {one.name for one in fields(cls)} - {"cleared"}
        if unknown := record.keys() - known:
            raise ValueError(
                f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}"
            )
        if not _POINT.fullmatch(str(record.get("point"))):
            raise ValueError("point is api.SERVICE, virt.METHOD, volume.METHOD or nova.write_fault")
        if record.get("answer") not in (None, *_ODD):
            raise ValueError(f"answer is one of {', '.join(_ODD)}")
        return cls(**{key: value for key, value in record.items() if value is not None})

    async def wait(self) -> None:
        """Wait as it says."""
        await asyncio.sleep(self.delay)
        if self.held:
            await self.cleared.wait()


class Faults:
    """The rules that are in force."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []

    def add(self, rule: Rule) -> None:
        """Put a rule in force."""
        self.rules.append(rule)

    def clear(self, points: str = "") -> None:
        """Forget the rules of points that begin so."""
        for rule in [rule for rule in self.rules if rule.point.startswith(points)]:
            self.rules.remove(rule)
            rule.cleared.set()

    async def strike(self, point: str, subject: str) -> Rule | None:
        """Wait as the first rule that matches says; the rule, if it says that the call fails."""
        rule = self.taken(point, subject)
        if rule is None:
            return None
        await rule.wait()
        return rule if rule.error is not None else None

    def taken(self, point: str, subject: str, user: str | None = None) -> Rule | None:
        """The first rule that matches, one strike of it used up."""
        for rule in _matching(self.rules, point, subject):
            if rule.user not in (None, user):
                continue
            if rule.times is not None:
                rule.times -= 1
                if rule.times <= 0:
                    self.rules.remove(rule)
            return rule
        return None


async def spoil(rule: Rule) -> Response | None:
    """Return the answer in the place of an API's own; None where it only took its time."""
    await rule.wait()
    if rule.answer is not None:
        return _ODD[rule.answer]()
    if rule.error is None:
        return None
    headers = {"Retry-After": rule.retry_after} if rule.retry_after is not None else {}
    return JSONResponse(
        {"error": {"code": rule.status, "message": rule.error}}, rule.status, headers
    )


def _html() -> Response:
    return HTMLResponse("<html><body><h1>It works!</h1></body></html>")


def _cut() -> Response:
    return Response(b'{"server": {"id": "', media_type="application/json")


def _hangup() -> Response:
    """Promises more than it gives; the connection is closed over it."""

    async def body() -> AsyncIterator[bytes]:
        yield b'{"server": {"id": "'

    return StreamingResponse(
        body(), headers={"Content-Type": "application/json", "Content-Length": "4000"}
    )


def _endless() -> Response:
    async def body() -> AsyncIterator[bytes]:
        yield b'{"server": "'
        while True:
            yield b"x" * 65536
            await asyncio.sleep(0)

    return StreamingResponse(body(), media_type="application/json")


def _drip() -> Response:
    async def body() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(_DRIP)

    return StreamingResponse(body(), media_type="application/json")


def _another() -> Response:
    """JSON of a shape that no service has, as of something that only looks like one."""
    return JSONResponse({"result": None})


_ODD = {
    "another": _another,
    "html": _html,
    "cut": _cut,
    "hangup": _hangup,
    "endless": _endless,
    "drip": _drip,
}


def _matching(rules: Iterable[Rule], point: str, subject: str) -> list[Rule]:
    return [rule for rule in rules if rule.point == point and re.search(rule.match, subject)]
