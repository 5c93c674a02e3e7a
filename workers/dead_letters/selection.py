"""Selecting dead letters, and grouping those that failed alike."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from messages.record import record
from workers.amqp.broker import Where
from workers.amqp.consumer import Delivery
from workers.amqp.names import Names
from workers.dead_letters.dead_letter import ROW_FIELDS, DeadLetter
from workers.dead_letters.reader import Reader


@record
class Selection:
    """Conditions that a dead letter must meet; empty means any. Times in Unix seconds; `limit`
    takes the oldest.

    `rows` are those of a list that was kept (`row_text`), each taken as often as it occurs there.
    """

    ids: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    since: float | None = None
    before: float | None = None
    limit: int | None = None
    rows: tuple[str, ...] | None = None

    def matches(self, letter: DeadLetter) -> bool:
        """Tell whether a dead letter is meant, apart from `limit` and `rows`."""
        return (
            (not self.ids or letter.id in self.ids or letter.key in self.ids)
            and (not self.codes or letter.code in self.codes)
            and (not self.operations or letter.operation in self.operations)
            and (not self.origins or letter.origin in self.origins)
            and (self.since is None or letter.failed >= self.since)
            and (self.before is None or letter.failed < self.before)
        )

    def choose(self, letters: Iterable[DeadLetter]) -> list[DeadLetter]:
        """Return those that are meant, oldest first."""
        chosen = sorted(
            (one for one in letters if self.matches(one)), key=lambda letter: letter.failed
        )
        if self.rows is not None:
            left = Counter(self.rows)
            listed = []
            for one in chosen:
                text = row_text(one.row())
                if left[text]:
                    left[text] -= 1
                    listed.append(one)
            chosen = listed
        return chosen[: self.limit]


def row_text(row: Mapping[str, Any]) -> str:
    """Return a list's row as a text to compare, whatever fields a file adds."""
    return json.dumps([row.get(name) for name in ROW_FIELDS], ensure_ascii=False)


@record
class Selected:
    """The chosen dead letters of the `total` in `ecs.dead`. `shared`: another reader held more,
    which were not seen. `reader` holds them, where it was not closed.
    """

    letters: list[DeadLetter]
    total: int
    shared: bool
    reader: Reader | None = None


async def select_dead_letters(
    where: Where, names: Names, selection: Selection, *, keep: bool = False
) -> Selected:
    """Read through `ecs.dead` and leave it as it is. Raises `Unreachable`, `NotDeclared`.

    `keep`: all of it stays held, for whoever carries out at once what was chosen: reading it a
    second time would take a quarter of a replay, and count as one more failed delivery of each.
    """
    seen: list[tuple[Delivery, DeadLetter]] = []

    def note(delivery: Delivery) -> None:
        letter = DeadLetter.of(delivery.envelope)
        if selection.matches(letter):
            seen.append((delivery, letter))

    reader = Reader(where, names, note)
    await reader.open()
    kept: Reader | None = None
    try:
        await reader.wait()
        # A message whose channel was lost has come again.
        letters = selection.choose(letter for delivery, letter in seen if not delivery.lost)
        if keep and letters:
            kept = reader
    finally:
        if kept is None:
            await reader.close()
    return Selected(letters, reader.seen, reader.shared, kept)


@record
class Group:
    """Dead letters that failed alike. `error` is that of the newest."""

    count: int
    code: str | None
    operation: str | None
    origin: str | None
    oldest: str | None
    newest: str | None
    error: str | None

    def row(self) -> dict[str, Any]:
        """The fields of a list's row."""
        return asdict(self)


def grouped(letters: Iterable[DeadLetter]) -> list[Group]:
    """Return groups by code, operation and origin, the largest first."""
    groups: dict[tuple[str | None, str | None, str | None], list[DeadLetter]] = {}
    for one in letters:
        groups.setdefault((one.code, one.operation, one.origin), []).append(one)
    found = []
    for by, members in groups.items():
        members.sort(key=lambda one: one.failed)
        oldest, newest = members[0], members[-1]
        found.append(Group(len(members), *by, oldest.failed_at, newest.failed_at, newest.error))
    return sorted(found, key=lambda group: -group.count)
