"""The journal as the pipeline uses it: each write is done when its future is."""

import asyncio
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from handlers.effects.waits import Wait
from workers.journal.database import check_encoding, journal_error, migrate, open_engine, reason_of
from workers.journal.figures import Figures
from workers.journal.history import RUNNER_STALE, History
from workers.journal.operators import Actor, Beat, Controls, ReadControls, WorkerRow
from workers.journal.owners import Owner, new_owner
from workers.journal.records import (
    Ahead,
    Archived,
    Batch,
    Claim,
    DeadLetterCause,
    JournalError,
    JournalTimes,
    JournalUnfit,
    Kind,
    NewRequest,
    Outcome,
    Replay,
    ReplayState,
    RequestRecord,
)
from workers.journal.replays import (
    AddBatch,
    Archive,
    ClaimBatch,
    EndReplays,
    IssueTokens,
    KeepBatch,
    LeaveBatch,
    NoteDeadLetter,
    PruneArchive,
    Redeem,
    RepeatReplays,
    Restored,
    SetCauses,
    StopBatch,
)
from workers.journal.retention import Prune, PruneOrders
from workers.journal.server_locks import AcquireLocks, ExpireLock
from workers.journal.writer import Writer
from workers.journal.writes import (
    AddResumeToken,
    Begin,
    CheckClaim,
    Finish,
    Intend,
    NoteWait,
    Record,
    Release,
    Settle,
    leave,
    noted_wait,
    to_json,
)

log = structlog.get_logger()


class Journal:
    """Requests and effects. Writes wait while the database fails; `trouble` says how."""

    def __init__(self, url: str, times: JournalTimes | None = None) -> None:
        self._times = times or JournalTimes()
        self._engine = open_engine(url, self._times)
        self._history = History(url, self._engine)
        self._owner: Owner | None = None
        self._writer: Writer | None = None
        self._numbers = count(1)
        #: Set when the database was found unfit while it was used, and `on_unfit` called.
        self.unfit: JournalUnfit | None = None
        self.on_unfit: Callable[[], None] = lambda: None
        self._has_cancellations = self._has_begun = False

    async def open(self) -> None:
        """Migrate the schema, and become an owner of requests. Raises `JournalUnfit` or
        `JournalError`.
        """
        try:
            await asyncio.to_thread(check_encoding, self._engine)
            await asyncio.to_thread(migrate, self._engine)
            self._owner = await asyncio.to_thread(new_owner, self._engine)
        except (SQLAlchemyError, OSError) as error:
            raise journal_error("the journal cannot be opened", error) from None
        self._writer = Writer(self._engine, self._owner.keep, self._times, self._found_unfit)

    def _found_unfit(self, error: JournalUnfit) -> None:
        self.unfit = error
        self.on_unfit()

    async def close(self) -> None:
        """Write what was submitted, then release everything: other workers may take over what is
        unfinished.
        """
        if self._writer is not None and not await self._writer.close():
            log.warning("journal.close_unanswered")  # the owner's lock goes with the process
        elif self._owner is not None:
            await asyncio.to_thread(self._leave, self._owner)
            await asyncio.to_thread(self._owner.close)
        self._engine.dispose()

    def _leave(self, owner: Owner) -> None:
        """Release what this worker has, unless the database is away: then it counts as died."""
        if not self._has_begun:
            return
        try:
            with self._engine.begin() as connection:
                leave(connection, owner.id)
        except SQLAlchemyError as error:
            log.warning("journal.not_left", why=reason_of(error))

    @property
    def trouble(self) -> str | None:
        """The reason why nothing can be written now, or None."""
        return self._writer.trouble if self._writer is not None else "not open"

    def begin(self, request: NewRequest, locks: tuple[str, ...] = ()) -> "asyncio.Future[Outcome]":
        """Record a delivery and return what is known of the request. The caller must not begin a
        request that it executes already. A new one acquires the locks of these servers.
        """
        owner, writer = self._opened()
        self._has_begun = True
        claim = f"{owner.id[:40]}.{next(self._numbers)}"
        looks = self._has_cancellations and request.kind is Kind.ORDER
        return writer.submit(Begin(request, owner, claim, locks, looks))

    def intend(self, claim: Claim, name: str, marker: Any) -> "asyncio.Future[None]":
        """Record the intent of an effect. Raises `ClaimLost`: the effect must not be executed."""
        return self._opened()[1].submit(Intend(claim, name, to_json(marker), time.time()))

    def record(
        self, claim: Claim, name: str, outcome: dict[str, Any], request_id: str | None
    ) -> "asyncio.Future[None]":
        """Record the outcome of an effect. Raises `ClaimLost`."""
        return self._opened()[1].submit(
            Record(claim, name, to_json(outcome), request_id, time.time())
        )

    def remember(self, claim: Claim, name: str, value: Any) -> "asyncio.Future[None]":
        """Record a value that a later attempt needs. Raises `ClaimLost`."""
        return self._opened()[1].submit(
            Intend(claim, name, "null", now := time.time(), to_json({"value": value}), now)
        )

    def check_claim(self, claim: Claim) -> "asyncio.Future[None]":
        """Raise `ClaimLost` where another worker has taken the request over."""
        return self._opened()[1].submit(CheckClaim(claim))

    def finish(
        self, claim: Claim, result: dict[str, Any], updates: list[dict[str, Any]]
    ) -> "asyncio.Future[None]":
        """Record the result and the final status updates, and release the request's locks. Raises
        `ClaimLost`.
        """
        return self._opened()[1].submit(
            Finish(claim, to_json(result), to_json(updates), time.time())
        )

    def settle(self, key: str) -> "asyncio.Future[None]":
        """Record that the result was published: with the next write, or a moment later."""
        return self._opened()[1].submit(Settle(key, time.time()), is_urgent=False)

    def release(
        self,
        claim: Claim,
        attempts: int = 0,
        resume_token_hash: str | None = None,
        *,
        keeps_locks: bool = True,
        wait: Wait | None = None,
    ) -> "asyncio.Future[None]":
        """Release an unfinished request for any worker, and its locks, unless it keeps them; its
        message comes back with a resume token, and until then it waits as `wait` says.
        """
        return self._opened()[1].submit(
            Release(claim, attempts, time.time(), resume_token_hash, keeps_locks, wait)
        )

    def note_wait(self, claim: Claim, wait: Wait | None) -> "asyncio.Future[None]":
        """Note what a request waits for that this worker has: with the next write, or a moment
        later.
        """
        return self._opened()[1].submit(NoteWait(claim, noted_wait(claim, wait)), is_urgent=False)

    def add_resume_token(self, key: str, resume_token_hash: str) -> "asyncio.Future[None]":
        """Add a resume token for a copy of a request that another worker executes."""
        return self._opened()[1].submit(AddResumeToken(key, resume_token_hash))

    def acquire_locks(
        self, claim: Claim, servers: tuple[str, ...] = ()
    ) -> "asyncio.Future[Ahead | None]":
        """Acquire the locks of these servers, unless the request has its locks; return the request
        that it waits for, or None.
        """
        owner, writer = self._opened()
        return writer.submit(AcquireLocks(claim.key, owner, servers))

    def expire_lock(self, claim: Claim) -> "asyncio.Future[None]":
        """Release the locks of a request that no worker has."""
        return self._opened()[1].submit(ExpireLock(claim))

    def prune(self, commands_older_than: float) -> "asyncio.Future[int]":
        """Delete some settled commands that are older than so many seconds, and return how many: 0
        when none are left.
        """
        return self._opened()[1].submit(Prune(time.time() - commands_older_than))

    def prune_orders(self, older_than: float) -> "asyncio.Future[int]":
        """Prune some orders that were settled so many seconds ago, and return how many: 0 when none
        are left. Their keys, digests and shortened results stay.
        """
        return self._opened()[1].submit(PruneOrders(time.time() - older_than))

    def add_batch(self, batch: Batch, replays: Sequence[Replay]) -> "asyncio.Future[None]":
        """Record the dead letters that an operator is about to replay or discard."""
        return self._opened()[1].submit(AddBatch(batch, tuple(replays)))

    def claim_batch(
        self, batch: Batch, runner: str, runner_name: str
    ) -> "asyncio.Future[str | None]":
        """Make this run the only one that carries a batch out; return the name of the one that
        does so already, or None.
        """
        owner, writer = self._opened()
        now = time.time()
        return writer.submit(ClaimBatch(batch, runner, runner_name, now, now - RUNNER_STALE, owner))

    def keep_batch(self, name: str, runner: str) -> "asyncio.Future[str | None]":
        """Tell that a run is alive; return who asked for its end, or None."""
        return self._opened()[1].submit(KeepBatch(name, runner, time.time()))

    def leave_batch(self, name: str, runner: str, trouble: str | None) -> "asyncio.Future[None]":
        """End a run; `trouble` is why it ended early."""
        return self._opened()[1].submit(LeaveBatch(name, runner, trouble))

    def stop_batch(self, name: str, by: str) -> "asyncio.Future[bool]":
        """Ask the process that carries a batch out to stop; return False where none does."""
        now = time.time()
        return self._opened()[1].submit(StopBatch(name, by, now, now - RUNNER_STALE))

    def issue_tokens(
        self, tokens: Sequence[tuple[str, str]], actor: Actor
    ) -> "asyncio.Future[None]":
        """Put a resume token into force for each of these replays, before they are published: pairs
        of a replay's id and the token's SHA-256.
        """
        return self._opened()[1].submit(IssueTokens(tuple(tokens), actor))

    def repeat_replays(
        self, former: Sequence[str], replays: Sequence[Replay]
    ) -> "asyncio.Future[None]":
        """Record new replays in the place of former ones (their ids), which may have been published
        and keep their tokens.
        """
        return self._opened()[1].submit(RepeatReplays(tuple(former), tuple(replays)))

    def end_replays(
        self,
        ids: Sequence[str],
        state: ReplayState,
        actor: Actor,
        namespace: str,
        archived: Sequence[Archived] = (),
    ) -> "asyncio.Future[None]":
        """Record what became of these replays, and archive what is discarded. `namespace` is that
        of their queue.
        """
        return self._opened()[1].submit(
            EndReplays(tuple(ids), state, time.time(), actor, namespace, tuple(archived))
        )

    def note_dead_letter(
        self, namespace: str, code: str | None, reason: str, *, replay: str | None, text: str | None
    ) -> "asyncio.Future[None]":
        """Note that a message was dead-lettered: with the next write, or a moment later.

        `code` is None for a replayed message that was refused, but not dead-lettered. `replay` is
        the id of the replay by which it came, and `text` what its record then says.
        """
        note = NoteDeadLetter(namespace, code, reason, replay, text)
        return self._opened()[1].submit(note, is_urgent=False)

    def set_dead_letter_causes(
        self, namespace: str, causes: Sequence[DeadLetterCause]
    ) -> "asyncio.Future[None]":
        """Set the counts of dead letters by cause to what was seen of the whole queue."""
        rows = tuple((one.code, one.reason, one.messages) for one in causes)
        return self._opened()[1].submit(SetCauses(namespace, rows))

    def archive(self, archived: Sequence[Archived]) -> "asyncio.Future[None]":
        """Keep messages before they are changed."""
        return self._opened()[1].submit(Archive(tuple(archived)))

    def restored(self, ids: Sequence[str], actor: Actor, namespace: str) -> "asyncio.Future[None]":
        """Record that messages of the archive (their ids there) are in `ecs.dead` again."""
        return self._opened()[1].submit(Restored(tuple(ids), time.time(), actor, namespace))

    def prune_archive(self, older_than: float) -> "asyncio.Future[int]":
        """Delete some discarded messages that were archived more than so many seconds ago, and
        return how many: 0 when none are left.
        """
        return self._opened()[1].submit(PruneArchive(time.time() - older_than))

    def redeem(self, resume_token_hash: str, digest: str) -> "asyncio.Future[Replay | None]":
        """Return the replay that this resume token was issued for, None where it was not issued for
        this content; its arrival is recorded.
        """
        return self._opened()[1].submit(Redeem(resume_token_hash, digest, time.time()))

    async def controls(self, namespace: str) -> Controls:
        """Return what operators want of the workers of this namespace now."""
        controls: Controls = await self._opened()[1].submit(
            ReadControls(namespace), is_urgent=False
        )
        self._has_cancellations = controls.has_cancellations
        return controls

    def beat(self, row: WorkerRow) -> "asyncio.Future[None]":
        """Write what this worker tells of itself: with the next write, or a moment later."""
        return self._opened()[1].submit(Beat(row), is_urgent=False)

    @property
    def owner(self) -> str:
        """The id of this process as an owner of requests."""
        return self._opened()[0].id

    async def find(self, word: str) -> list[RequestRecord]:
        """Return the requests with this key or name, newest first."""
        return await asyncio.to_thread(self._history.find, word)

    async def figures(self, namespace: str) -> Figures:
        """Return counts for metrics. Raises `JournalError`."""
        return await asyncio.to_thread(self._history.figures, namespace)

    async def with_keys(self, keys: Sequence[str]) -> dict[str, RequestRecord]:
        """Return those of a few requests that there are, by their keys."""
        return await asyncio.to_thread(self._history.with_keys, keys)

    async def authenticated_tenant(
        self, kind: Kind, name: str, digest: str, resume_token_hash: str
    ) -> str | None:
        """Return the tenant of the request with this name and content that this resume token was
        issued for, or None.
        """
        return await asyncio.to_thread(
            self._history.authenticated_tenant, kind, name, digest, resume_token_hash
        )

    def _opened(self) -> tuple[Owner, Writer]:
        if self._owner is None or self._writer is None:
            raise JournalError("the journal is not open")
        return self._owner, self._writer
