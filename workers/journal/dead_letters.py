"""Reads of what operators did with dead letters: batches, archive, and counts by cause."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, func, or_, select

from workers.journal import schema
from workers.journal.records import (
    Action,
    Archived,
    Batch,
    DeadLetterCause,
    Replay,
    ReplayOutcome,
    ReplayState,
)

#: Values of one IN.
AT_ONCE = 500
_DONE = (ReplayState.SENT.value, ReplayState.DISCARDED.value)
_ARCHIVED = tuple(field.name for field in fields(Archived))
_REPLAY = tuple(field.name for field in fields(Replay) if field.name not in ("state", "outcome"))


def replay_of(row: Any) -> Replay:
    """Return a row as a record."""
    return Replay(
        **{name: getattr(row, name) for name in _REPLAY},
        state=ReplayState(row.state),
        outcome=ReplayOutcome(row.outcome) if row.outcome is not None else None,
    )


def replays_of(
    connection: Connection, *, batch: str | None, name: str | None, limit: int | None = None
) -> list[Replay]:
    """Return the messages of a batch, or those with a name, in the order of the batch."""
    columns = schema.replays.c
    statement = select(schema.replays).where(columns.state != ReplayState.REPEATED)
    if batch is not None:
        statement = statement.where(columns.batch == batch)
    if name is not None:
        statement = statement.where(or_(columns.name == name, columns.message_id == name))
    ordered = statement.order_by(columns.pinned_at, columns.batch, columns.position)
    return [replay_of(row) for row in connection.execute(ordered.limit(limit))]


def batches_of(
    connection: Connection, *, name: str | None = None, limit: int | None = None, stale: float
) -> list[Batch]:
    """Return batches, newest first. `stale`: a runner that was seen last before that time (Unix
    seconds) is dead.
    """
    columns, kept = schema.replays.c, schema.replay_batches.c
    begun = func.min(columns.pinned_at)
    left = func.sum(case((columns.done_at.is_(None), 1), else_=0))
    statement = (
        select(
            columns.batch,
            func.min(columns.action),
            begun,
            func.max(columns.done_at),
            func.count(),
            func.sum(case((columns.state.in_(_DONE), 1), else_=0)),
            func.sum(case((columns.state == ReplayState.GONE, 1), else_=0)),
            func.sum(case((columns.outcome == ReplayOutcome.PARKED, 1), else_=0)),
            func.sum(case((columns.outcome == ReplayOutcome.REFUSED, 1), else_=0)),
            left,
        )
        .where(columns.state != ReplayState.REPEATED)
        .group_by(columns.batch)
        .order_by(begun.desc())
    )
    if name is not None:
        statement = statement.where(columns.batch == name)
    counted = connection.execute(statement.limit(limit)).all()
    names = [row[0] for row in counted]
    rows = _in(connection, select(schema.replay_batches), kept.name, names)
    details = {row.name: row for row in rows}
    who = select(
        columns.batch,
        columns.operator,
        columns.real_user,
        columns.done_by,
        func.min(columns.position),
    ).group_by(columns.batch, columns.operator, columns.real_user, columns.done_by)
    people: dict[str, list[Any]] = {}
    for row in sorted(_in(connection, who, columns.batch, names), key=lambda row: row[4]):
        people.setdefault(row.batch, []).append(row)
    found = []
    for row in counted:
        batch, action, at, ended, messages, done, gone, parked, refused, open_ = row
        detail, first = details.get(batch), people[batch][0]
        # In the order in which they come in the batch; rows of earlier versions have `operator`.
        worked = dict.fromkeys(
            one.done_by or (one.operator if done else None) for one in people[batch]
        )
        runs = detail is not None and detail.runner is not None and detail.seen_at >= stale
        found.append(
            Batch(
                name=batch,
                action=Action(action),
                operator=detail.operator if detail is not None else first.operator,
                real_user=detail.real_user if detail is not None else first.real_user,
                begun_at=detail.begun_at if detail is not None else at,
                messages=messages,
                ended_at=ended if not open_ else None,
                done=done,
                gone=gone,
                parked=parked,
                refused=refused,
                people=tuple(one for one in worked if one is not None),
                source=detail.source if detail is not None else None,
                why=detail.why if detail is not None else None,
                chosen_by=detail.chosen_by if detail is not None else None,
                hindered=detail.hindered if detail is not None else 0,
                runner_name=detail.runner_name if detail is not None and runs else None,
                stop_by=detail.stop_by if detail is not None else None,
                trouble=detail.trouble if detail is not None else None,
            )
        )
    return found


def causes_of(connection: Connection, namespace: str) -> list[DeadLetterCause]:
    """Return the counts of dead letters by cause, the largest first."""
    columns = schema.dead_letter_causes.c
    statement = select(schema.dead_letter_causes).where(
        columns.namespace == namespace, columns.messages > 0
    )
    rows = connection.execute(
        statement.order_by(columns.messages.desc(), columns.code, columns.reason)
    )
    return [DeadLetterCause(row.code, row.reason, row.messages) for row in rows]


def archived_of(
    connection: Connection,
    *,
    words: Sequence[str] = (),
    batch: str | None = None,
    since: float | None = None,
    limit: int | None = None,
) -> list[Archived]:
    """Return what is in the archive, newest first; `words` are ids of the archive, message_ids,
    orderIds or flowIds.
    """
    columns = schema.dead_letter_archive.c
    statement = select(schema.dead_letter_archive)
    if words:
        statement = statement.where(
            or_(columns.id.in_(words), columns.name.in_(words), columns.message_id.in_(words))
        )
    if batch is not None:
        statement = statement.where(columns.batch == batch)
    if since is not None:
        statement = statement.where(columns.archived_at >= since)
    ordered = statement.order_by(columns.archived_at.desc(), columns.id).limit(limit)
    return [
        Archived(**{name: getattr(row, name) for name in _ARCHIVED})
        for row in connection.execute(ordered)
    ]


def _in(connection: Connection, statement: Any, column: Any, values: Sequence[str]) -> list[Any]:
    rows: list[Any] = []
    for some in in_parts(column, values):
        rows += connection.execute(statement.where(some)).all()
    return rows


def in_parts(column: Any, values: Sequence[str]) -> Iterator[ColumnElement[bool]]:
    """Yield conditions that a column has one of some of these values: together of all of them, each
    of as many as one statement may hold.
    """
    for begin in range(0, len(values), AT_ONCE):
        yield column.in_(values[begin : begin + AT_ONCE])
