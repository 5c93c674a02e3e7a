"""Pruning: settled commands are deleted, settled orders keep their key, digest and outcome.

A pruned order stays a row of `requests`, so that whoever repeats it is answered, and refused where
the content is another, by the same statements as before, also by a worker of an earlier version.
"""

import json
import time
from collections.abc import Iterator

from sqlalchemy import ColumnElement, Connection, bindparam, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from handlers.effects.ledger import EffectKind
from messages.record import record
from messages.results import pruned
from workers.journal import schema
from workers.journal.database import (
    is_sqlite,
    journal_error,
    open_engine,
    reading_engine,
    select_all,
)
from workers.journal.history import History
from workers.journal.operators import forget_old
from workers.journal.records import JournalError, Kind, State
from workers.journal.server_locks import sweep
from workers.journal.writes import to_json

#: Orders of one transaction: more would hold up other writes. (A deletion is quicker.)
MOST_ORDERS = 200
_SETTLED_BEFORE = (
    "SELECT key FROM requests WHERE kind = 'command' AND state = 'settled' AND updated_at < ?"
    " LIMIT 1000"
)
_columns, _effects = schema.requests.c, schema.effects.c
_PRUNE_ORDER = (
    schema.requests.update()
    .where(_columns.key == bindparam("one"))
    .values(
        result=bindparam("shortened"),
        updates="[]",
        owner=None,
        waits_for=None,
        resume_token_hash=None,
        pruned_at=bindparam("now"),
    )
)
#: Of a softDown's servers, whose they are: by it each tenant is shown its own.
_KEPT_EFFECTS = f"{EffectKind.PROJECT}:%"


@record
class Prune:
    """Deletes settled commands that were not changed since."""

    before: float

    @staticmethod
    def run_all(connection: Connection, writes: list["Prune"]) -> list[int]:
        """Return how many were deleted."""
        counts = []
        for one in writes:
            sweep(connection, one.before)
            forget_old(connection, time.time())
            keys = list(select_all(connection, _SETTLED_BEFORE, (one.before,)).scalars())
            if keys:
                for table in (schema.effects, schema.retries):
                    connection.execute(table.delete().where(table.c.request_key.in_(keys)))
                connection.execute(schema.requests.delete().where(_columns.key.in_(keys)))
            counts.append(len(keys))
        return counts


@record
class PruneOrders:
    """Prunes orders that were settled before a time (Unix seconds), the oldest first."""

    before: float

    @staticmethod
    def run_all(connection: Connection, writes: list["PruneOrders"]) -> list[int]:
        """Return how many were pruned: 0 where none are left, or another process has them."""
        return [one._run(connection) for one in writes]

    def _run(self, connection: Connection) -> int:
        oldest = (
            select(_columns.key, _columns.result)
            .where(_prunable(self.before))
            .order_by(_columns.updated_at)
            .limit(MOST_ORDERS)
            # RACE: two processes prune at once. Neither waits for the other, nor prunes the same.
            .with_for_update(skip_locked=True)
        )
        rows = connection.execute(oldest).all()
        if not rows:
            return 0
        now = time.time()
        changes = [
            {"one": row.key, "shortened": to_json(pruned(json.loads(row.result))), "now": now}
            for row in rows
        ]
        keys = [row.key for row in rows]
        connection.execute(
            schema.effects.delete().where(
                _effects.request_key.in_(keys), _effects.name.not_like(_KEPT_EFFECTS)
            )
        )
        retries = schema.retries
        connection.execute(retries.delete().where(retries.c.request_key.in_(keys)))
        connection.execute(_PRUNE_ORDER, changes)
        return len(rows)


@record
class Prunable:
    """Orders that can be pruned: how many, when the first and the last of them were settled (Unix
    seconds, None without any), and the bytes of their effects, updates and results.
    """

    orders: int
    oldest: float | None
    newest: float | None
    bytes: int


@record
class Space:
    """Bytes of the journal in the database, and those of them that are free for new requests (None
    where the database does not tell).
    """

    bytes: int
    free: int | None


class Retention:
    """Pruning by an operator, beside running workers. Methods block and raise `JournalError`."""

    def __init__(self, url: str) -> None:
        self._engine = open_engine(url)
        # Checks that the journal is there, and of this version.
        History(url, self._engine).open()
        self._reads = reading_engine(self._engine)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def prunable(self, before: float) -> Prunable:
        """Return what `prune` would prune."""
        try:
            with self._reads.connect() as connection:
                row = connection.execute(
                    select(
                        func.count(),
                        func.min(_columns.updated_at),
                        func.max(_columns.updated_at),
                        func.coalesce(
                            func.sum(func.length(_columns.result) + func.length(_columns.updates)),
                            0,
                        ),
                    ).where(_prunable(before))
                ).one()
                effects = connection.execute(
                    select(
                        func.coalesce(
                            func.sum(
                                func.length(_effects.name)
                                + func.length(_effects.marker)
                                + func.coalesce(func.length(_effects.outcome), 0)
                            ),
                            0,
                        )
                    )
                    .select_from(
                        schema.requests.join(schema.effects, _effects.request_key == _columns.key)
                    )
                    .where(_prunable(before), _effects.name.not_like(_KEPT_EFFECTS))
                ).scalar_one()
        except (SQLAlchemyError, OSError) as error:
            raise _failed(error) from None
        return Prunable(row[0], row[1], row[2], int(row[3]) + int(effects))

    def prune(self, before: float) -> Iterator[int]:
        """Prune orders that were settled before a time; yield how many with each transaction."""
        while True:
            try:
                with self._engine.begin() as connection:
                    (count,) = PruneOrders.run_all(connection, [PruneOrders(before)])
            except (SQLAlchemyError, OSError) as error:
                raise _failed(error) from None
            if not count:
                return
            yield count

    def vacuum(self) -> None:
        """Have the database use the space of what was pruned. An SQLite file becomes smaller, and
        writers wait meanwhile; PostgreSQL keeps its files for new rows, and nobody waits.
        """
        try:
            if is_sqlite(self._engine):
                raw = self._engine.raw_connection()
                try:
                    for statement in ("VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
                        raw.cursor().execute(statement)
                finally:
                    raw.close()
                return
            from workers.journal.postgres import lift_limits  # noqa: PLC0415

            with self._engine.connect() as connection:
                lift_limits(connection, for_session=True)
                outside = connection.execution_options(isolation_level="AUTOCOMMIT")
                for table in (schema.requests, schema.effects):
                    outside.execute(text(f"VACUUM (ANALYZE) {table.name}"))
        except Exception as error:
            raise _failed(error) from None

    def space(self) -> Space:
        """Return how much space the journal takes."""
        try:
            with self._reads.connect() as connection:
                if not is_sqlite(self._engine):
                    size = connection.execute(
                        text(
                            "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c"
                            " WHERE c.oid IN ('requests'::regclass, 'effects'::regclass)"
                        )
                    ).scalar_one()
                    return Space(int(size), None)
                page, pages, free = (
                    int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
                    for name in ("page_size", "page_count", "freelist_count")
                )
        except (SQLAlchemyError, OSError) as error:
            raise _failed(error) from None
        return Space(page * pages, page * free)


def _prunable(before: float) -> ColumnElement[bool]:
    return (
        (_columns.kind == Kind.ORDER.value)
        & (_columns.state == State.SETTLED.value)
        & _columns.pruned_at.is_(None)
        & (_columns.updated_at < before)
    )


def _failed(error: Exception) -> JournalError:
    return journal_error("the journal cannot be written", error)
