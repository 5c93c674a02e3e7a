"""Selecting dead letters, and grouping those that failed alike."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from messages.record import record
from workers.amqp.broker import Where
from workers.amqp.consumer import Delivery
from workers.amqp.names import Names
from workers.dead_letters.cause import Cause
from workers.dead_letters.dead_letter import ROW_FIELDS, DeadLetter
from workers.dead_letters.reader import Reader
from workers.journal import DeadLetterCause


@record
class Selection:
    """Conditions that a dead letter must meet; empty means any. Times in Unix seconds; `limit`
    takes the oldest.

    `errors` are parts of the error's text, in any case; `tenants` are ids or names of projects
    (`resolve_tenants` adds the one to the other); `groups` are ids of groups. `rows` are those of a
    list that was kept (`row_text`), each taken as often as it occurs there.
    """

    ids: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    since: float | None = None
    before: float | None = None
    limit: int | None = None
    rows: tuple[str, ...] | None = None

    @property
    def is_empty(self) -> bool:
        """True where nothing but a limit is named: every dead letter is meant."""
        return replace(self, limit=None) == Selection()

    def matches(self, letter: DeadLetter) -> bool:
        """Tell whether a dead letter is meant, apart from `limit` and `rows`."""
        return (
            (not self.ids or letter.id in self.ids or letter.key in self.ids)
            and (not self.codes or letter.code in self.codes)
            and (not self.reasons or letter.reason in self.reasons)
            and (not self.errors or _has_one(letter.error, self.errors))
            and (not self.operations or letter.operation in self.operations)
            and (not self.tenants or _is_of_one(letter, self.tenants))
            and (not self.origins or letter.origin in self.origins)
            and (not self.groups or letter.group in self.groups)
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

    def unmatched(self, letters: Iterable[DeadLetter]) -> list[str]:
        """Return the ids and groups that were named and are those of none of these letters."""
        if not (self.ids or self.groups):
            return []
        found = {name for one in letters for name in (one.id, one.key, one.group)}
        return [one for one in (*self.ids, *self.groups) if one not in found]

    def described(self) -> str:
        """Return the conditions for a person, as the options of the command line."""
        words = [
            f"--{option} {value}"
            for option, values in (
                ("id", self.ids),
                ("code", self.codes),
                ("reason", self.reasons),
                ("error", self.errors),
                ("operation", self.operations),
                ("tenant", self.tenants),
                ("origin", self.origins),
                ("group", self.groups),
            )
            for value in values
        ]
        words += [
            f"--{option} {datetime.fromtimestamp(value, UTC).isoformat(timespec='seconds')}"
            for option, value in (("since", self.since), ("before", self.before))
            if value is not None
        ]
        if self.rows is not None:
            words.append(f"--set (a list of {len(self.rows)})")
        if self.limit is not None:
            words.append(f"--limit {self.limit}")
        return " ".join(words) or "--all"


def _has_one(text: str | None, parts: Sequence[str]) -> bool:
    text = (text or "").casefold()
    return any(part.casefold() in text for part in parts)


def _is_of_one(letter: DeadLetter, tenants: Sequence[str]) -> bool:
    return letter.tenant in tenants or letter.proven_project in tenants


def row_text(row: Mapping[str, Any]) -> str:
    """Return a list's row as a text to compare, whatever fields a file adds."""
    return json.dumps([row.get(name) for name in ROW_FIELDS], ensure_ascii=False)


@record
class Selected:
    """The chosen dead letters of the `total` that were seen in `ecs.dead`. `shared`: another reader
    held more, which were not seen; `beyond` are those after the `total` oldest, which are too many to
    be read at once. `reader` holds them, where it was not closed.

    `causes` counts all that is in the queue, None where not all of it was seen. `unmatched` are the
    ids and groups that were named and match nothing.
    """

    letters: list[DeadLetter]
    total: int
    shared: bool
    reader: Reader | None = None
    causes: tuple[DeadLetterCause, ...] | None = None
    unmatched: tuple[str, ...] = ()
    beyond: int = 0


async def select_dead_letters(
    where: Where, names: Names, selection: Selection, *, keep: bool = False
) -> Selected:
    """Read through `ecs.dead` and leave it as it is. Raises `Unreachable`, `NotDeclared`.

    `keep`: all of it stays held, for whoever carries out at once what was chosen: reading it a
    second time would take a quarter of a replay, and count as one more failed delivery of each.
    """
    seen: list[tuple[Delivery, DeadLetter]] = []
    counted: dict[Delivery, Cause] = {}

    def note(delivery: Delivery) -> None:
        letter = DeadLetter.of(delivery.envelope)
        counted[delivery] = letter.cause
        if selection.matches(letter):
            seen.append((delivery, letter))

    reader = Reader(where, names, note)
    await reader.open()
    kept: Reader | None = None
    try:
        await reader.wait()
        # A message whose channel was lost has come again.
        letters = selection.choose(letter for delivery, letter in seen if not delivery.lost)
        causes = Counter(
            (cause.code or "", cause.reason or "")
            for delivery, cause in counted.items()
            if not delivery.lost
        )
        if keep and letters:
            kept = reader
    finally:
        if kept is None:
            await reader.close()
    is_whole = not reader.shared and not reader.beyond
    return Selected(
        letters,
        reader.seen,
        reader.shared,
        kept,
        tuple(DeadLetterCause(*cause, number) for cause, number in causes.items())
        if is_whole
        else None,
        tuple(selection.unmatched(letters)),
        reader.beyond,
    )


@record
class Group:
    """Dead letters that failed for one cause. `error` is that of the newest.

    `operation` and `origin` are None where they have several: `operations` counts them. `failed_replays`
    is the largest number of earlier failed replays.
    """

    group: str
    count: int
    code: str | None
    reason: str | None
    operation: str | None
    operations: dict[str, int]
    tenants: int
    origin: str | None
    failed_replays: int
    oldest: str | None
    newest: str | None
    error: str | None

    def row(self) -> dict[str, Any]:
        """Return the fields of a list's row."""
        return asdict(self)


def grouped(letters: Iterable[DeadLetter]) -> list[Group]:
    """Return groups by cause, the largest first."""
    groups: dict[Cause, list[DeadLetter]] = {}
    for one in letters:
        groups.setdefault(one.cause, []).append(one)
    found = []
    for cause, members in groups.items():
        members.sort(key=lambda one: one.failed)
        operations = Counter(one.operation or "" for one in members)
        origins = {one.origin for one in members}
        found.append(
            Group(
                group=cause.group,
                count=len(members),
                code=cause.code,
                reason=cause.reason,
                operation=members[0].operation if len(operations) == 1 else None,
                operations=dict(operations.most_common()),
                tenants=len({one.proven_project or one.tenant for one in members}),
                origin=members[0].origin if len(origins) == 1 else None,
                failed_replays=max(one.failed_replays for one in members),
                oldest=members[0].failed_at,
                newest=members[-1].failed_at,
                error=members[-1].error,
            )
        )
    return sorted(found, key=lambda group: -group.count)
