"""Which parked messages are meant, and how many of a kind there are."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from workers.amqp.broker import Where
from workers.amqp.consumer import Delivery
from workers.amqp.names import Names
from workers.dead_letters.dead_letter import DeadLetter, dead_letter_of, identity_of
from workers.dead_letters.reader import Reader


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a message must be; empty means any. Times in Unix seconds; `limit` takes the oldest.

    `rows` are those of a list that was kept, each taken as often as it stands there.
    """

    ids: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    since: float | None = None
    before: float | None = None
    limit: int | None = None
    rows: tuple[str, ...] | None = None

    def matches(self, parked: DeadLetter) -> bool:
        """Whether it is one of them, but for `limit` and `rows`."""
        return (
            (not self.ids or parked.id in self.ids or parked.key in self.ids)
            and (not self.codes or parked.code in self.codes)
            and (not self.operations or parked.operation in self.operations)
            and (not self.origins or parked.origin in self.origins)
            and (self.since is None or parked.failed >= self.since)
            and (self.before is None or parked.failed < self.before)
        )

    def choose(self, found: Iterable["Found"]) -> list["Found"]:
        """Those that are meant, oldest first."""
        chosen = sorted(
            (one for one in found if self.matches(one.parked)), key=lambda one: one.parked.failed
        )
        if self.rows is not None:
            left = Counter(self.rows)
            chosen = [one for one in chosen if _take(left, row_text(one.parked.row()))]
        return chosen[: self.limit]


@dataclass(frozen=True, slots=True)
class Found:
    """A parked message that was seen, and what tells it from all others."""

    parked: DeadLetter
    identity: str


@dataclass(frozen=True, slots=True)
class Survey:
    """What is meant of what lies in `ecs.dead`: `total` messages. `shared`: somebody else held
    more, not seen.
    """

    chosen: list[Found]
    total: int
    shared: bool


async def survey(where: Where, names: Names, wanted: Wanted) -> Survey:
    """Look through `ecs.dead`, and leave it as it is."""
    seen: dict[int, tuple[Delivery, Found]] = {}
    count = 0

    def keep(delivery: Delivery) -> None:
        nonlocal count
        count += 1
        parked = dead_letter_of(delivery.envelope)
        if wanted.matches(parked):
            seen[count] = (delivery, Found(parked, identity_of(delivery.envelope)))

    reader = Reader(where, names, keep)
    await reader.open()
    try:
        await reader.wait()
        # One whose channel was lost has come again.
        found = [one for delivery, one in seen.values() if not delivery.lost]
    finally:
        await reader.close()
    return Survey(wanted.choose(found), reader.seen, reader.shared)


@dataclass(frozen=True, slots=True)
class Group:
    """Messages that failed alike. `error` is that of the newest."""

    code: str | None
    operation: str | None
    origin: str | None
    count: int
    oldest: str | None
    newest: str | None
    error: str | None

    def row(self) -> dict[str, Any]:
        """Its fields."""
        return {
            "count": self.count,
            "code": self.code,
            "operation": self.operation,
            "origin": self.origin,
            "oldest": self.oldest,
            "newest": self.newest,
            "error": self.error,
        }


def grouped(messages: Iterable[DeadLetter]) -> list[Group]:
    """The messages by code, operation and origin, the largest group first."""
    groups: dict[tuple[str | None, str | None, str | None], list[DeadLetter]] = {}
    for one in messages:
        groups.setdefault((one.code, one.operation, one.origin), []).append(one)
    found = []
    for (code, operation, origin), members in groups.items():
        members.sort(key=lambda one: one.failed)
        oldest, newest = members[0], members[-1]
        found.append(
            Group(
                code,
                operation,
                origin,
                len(members),
                oldest.failed_at,
                newest.failed_at,
                newest.error,
            )
        )
    return sorted(found, key=lambda group: -group.count)


def row_text(row: dict[str, Any]) -> str:
    """A list's row, told from other rows by its fields alone, whatever else a file adds."""
    return json.dumps([row.get(name) for name in _FIELDS], ensure_ascii=False)


_FIELDS = ("id", "key", "operation", "tenant", "code", "error", "origin", "attempts", "failed_at")


def _take(left: Counter[str], text: str) -> bool:
    if not left[text]:
        return False
    left[text] -= 1
    return True
