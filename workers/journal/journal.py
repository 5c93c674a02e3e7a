"""The journal's face: coroutines that return once it is on the disk."""

import asyncio
import json
import time
from collections.abc import Iterable
from itertools import count
from typing import Any

import structlog
from sqlalchemy import Connection, or_, select
from sqlalchemy.exc import SQLAlchemyError

from workers.journal import schema
from workers.journal.database import migrate, open_engine
from workers.journal.operations import (
    Begin,
    Finish,
    Intend,
    Pass,
    Prune,
    Record,
    Release,
    Settle,
    effects_of,
    to_json,
)
from workers.journal.owners import Owner, new_owner
from workers.journal.records import Claim, JournalError, Kind, NewRequest, Outcome, Request, State
from workers.journal.writer import Writer

log = structlog.get_logger()


class Journal:
    """Requests and effects. Its writes wait while the database is in trouble; `trouble` says what it is."""

    def __init__(self, url: str) -> None:
        self._engine = open_engine(url)
        self._owner: Owner | None = None
        self._writer: Writer | None = None
        self._numbers = count(1)

    async def open(self) -> None:
        """Migrate, and become an owner of requests. `JournalError` where the database cannot be used."""
        try:
            await asyncio.to_thread(migrate, self._engine)
            self._owner = await asyncio.to_thread(new_owner, self._engine)
        except (SQLAlchemyError, OSError) as error:
            reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            raise JournalError(f"the journal cannot be opened: {reason}") from None
        self._writer = Writer(self._engine, self._owner.keep)

    async def close(self) -> None:
        """Write what was submitted, then let go of everything: others may take over what is unfinished."""
        if self._writer is not None and not await self._writer.close():
            log.warning("journal.close_unanswered")  # the owner's lock goes with the process
        elif self._owner is not None:
            await asyncio.to_thread(self._owner.close)
        self._engine.dispose()

    @property
    def trouble(self) -> str | None:
        """Why nothing can be written just now; None while all is well."""
        return self._writer.trouble if self._writer is not None else "not open"

    def begin(self, request: NewRequest) -> "asyncio.Future[Outcome]":
        """Note a delivery and say what is known of the request. The caller sees to it that one of its own that is
        under way is not begun again.
        """
        owner, writer = self._opened()
        return writer.submit(Begin(request, owner, f"{owner.id[:40]}.{next(self._numbers)}"))

    def intend(self, claim: Claim, name: str, marker: Any) -> "asyncio.Future[None]":
        """Note that an effect is about to be done; `ClaimLost` where it must not be."""
        return self._opened()[1].submit(Intend(claim, name, to_json(marker), time.time()))

    def record(
        self, claim: Claim, name: str, outcome: dict[str, Any], request_id: str | None
    ) -> "asyncio.Future[None]":
        """Note what became of an effect; `ClaimLost` where another is at it."""
        return self._opened()[1].submit(Record(claim, name, to_json(outcome), request_id, time.time()))

    def remember(self, claim: Claim, name: str, value: Any) -> "asyncio.Future[None]":
        """Note a value that a later run must find."""
        return self._opened()[1].submit(Intend(claim, name, "null", time.time(), to_json({"value": value})))

    def finish(self, claim: Claim, result: dict[str, Any], updates: list[dict[str, Any]]) -> "asyncio.Future[None]":
        """Note the result and the final status updates; `ClaimLost` where another is at it."""
        return self._opened()[1].submit(Finish(claim, to_json(result), to_json(updates), time.time()))

    def settle(self, key: str) -> "asyncio.Future[None]":
        """Note that the result was published."""
        return self._opened()[1].submit(Settle(key, time.time()))

    def release(self, claim: Claim, attempts: int = 0, pass_hash: str | None = None) -> "asyncio.Future[None]":
        """Give an unfinished request up for anybody; its message is known again by a pass."""
        return self._opened()[1].submit(Release(claim, attempts, time.time(), pass_hash))

    def give_pass(self, key: str, pass_hash: str) -> "asyncio.Future[None]":
        """Have a copy of a request that another worker is at be known again by a pass."""
        return self._opened()[1].submit(Pass(key, pass_hash))

    def prune(self, commands_older_than: float) -> "asyncio.Future[int]":
        """Forget some settled commands of more than so many seconds ago; 0 when there are no more. Orders are kept."""
        return self._opened()[1].submit(Prune(time.time() - commands_older_than))

    async def find(self, word: str) -> list[Request]:
        """The requests with this key or name, newest first."""
        return await asyncio.to_thread(self._find, word)

    async def admitted(self, kind: Kind, name: str, digest: str, pass_hash: str) -> str | None:
        """The tenant of the request with this name and content that was given this pass; None where there is none."""
        return await asyncio.to_thread(self._admitted, kind, name, digest, pass_hash)

    def _admitted(self, kind: Kind, name: str, digest: str, pass_hash: str) -> str | None:
        columns = schema.requests.c
        statement = select(columns.tenant, columns.pass_hash).where(
            columns.name == name, columns.kind == kind.value, columns.digest == digest
        )
        try:
            with self._engine.connect() as connection:
                for row in connection.execute(statement):
                    if pass_hash in (row.pass_hash or "").split():
                        return str(row.tenant)
        except SQLAlchemyError as error:
            raise JournalError(f"the journal cannot be read: {getattr(error, 'orig', None) or error}") from None
        return None

    def _find(self, word: str) -> list[Request]:
        columns = schema.requests.c
        statement = select(schema.requests).where(or_(columns.key == word, columns.name == word))
        try:
            with self._engine.connect() as connection:
                rows = connection.execute(statement.order_by(columns.received_at.desc())).all()
                return list(_requests(connection, rows))
        except SQLAlchemyError as error:
            raise JournalError(f"the journal cannot be read: {getattr(error, 'orig', None) or error}") from None

    def _opened(self) -> tuple[Owner, Writer]:
        if self._owner is None or self._writer is None:
            raise JournalError("the journal is not open")
        return self._owner, self._writer


def _requests(connection: Connection, rows: Iterable[Any]) -> Iterable[Request]:
    for row in rows:
        yield Request(
            key=row.key, name=row.name, kind=Kind(row.kind), operation=row.operation, tenant=row.tenant,
            digest=row.digest, state=State(row.state), attempts=row.attempts, deliveries=row.deliveries,
            received_at=row.received_at, updated_at=row.updated_at,
            result=json.loads(row.result) if row.result is not None else None,
            effects=tuple(effects_of(connection, row.key).values()),
        )  # fmt: skip
