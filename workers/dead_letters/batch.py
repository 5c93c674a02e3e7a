"""A batch: dead letters that an operator replays or discards together.

Its messages are recorded in the journal before the first is touched, so that exactly these are
meant, whatever is dead-lettered meanwhile and however often the command is interrupted.
"""

import asyncio
import secrets
import time
from collections.abc import Sequence
from uuid import uuid4

from messages.record import record
from workers.dead_letters.dead_letter import DeadLetter
from workers.journal import Action, Actor, Batch, History, Journal, Replay, ReplayState
from workers.journal.operators import storable
from workers.settings import Settings

_ENDED = {Action.REPLAY: ReplayState.SENT, Action.DISCARD: ReplayState.DISCARDED}
_LONGEST_TEXT = 2000
#: Why a message is not replayed without `vouch`, by whether an operator has edited it.
_NOT_PROVEN = {
    False: "not proven who sent it; find out who it was, and answer for it with --vouch",
    True: "not proven what was asked; an operator edited it: answer for it with --vouch",
}


@record
class BatchRequest:
    """The action of a batch, and who asks for it.

    `command` is a digest of the command's words: the same command by the same operator resumes what
    it left. `tenant` is the project of the messages of which none is proven. `vouch`: the operator
    answers for senders that are not proven. `chosen_by` are the conditions, for people.
    """

    action: Action
    operator: Actor
    command: str
    tenant: str | None = None
    vouch: bool = False
    why: str | None = None
    chosen_by: str = ""

    def hindrance(self, letter: DeadLetter, settings: Settings) -> str | None:
        """Return why a message cannot be part of the batch; None where it can."""
        if self.action is not Action.REPLAY:
            return None
        if letter.hindrance is not None or self.vouch:
            return letter.hindrance
        return self.doubt(letter, settings)

    def doubt(self, letter: DeadLetter, settings: Settings) -> str | None:
        """Return why an operator must vouch for a message, whether he does or not; None where he
        need not.
        """
        if not letter.is_unproven(trusting=settings.trust_publishers):
            return None
        return _NOT_PROVEN[letter.is_edited]


async def record_batch(
    journal: Journal,
    history: History,
    settings: Settings,
    request: BatchRequest,
    letters: Sequence[DeadLetter],
    *,
    hindered: int = 0,
) -> tuple[Batch, list[Replay]]:
    """Record a new batch, and return it with the rows of its messages in order.

    Messages that an earlier batch finished, but could not ack any more, are recorded as finished.
    """
    identities = [one.identity for one in letters]
    finished = await asyncio.to_thread(history.done_before, identities, request.action)
    now, operator = time.time(), request.operator
    started = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
    batch = Batch(
        name=f"{started}-{secrets.token_hex(2)}",
        action=request.action,
        operator=storable(operator.name),
        real_user=operator.real_user,
        begun_at=now,
        messages=len(letters),
        source=storable(operator.origin) or None,
        why=storable(request.why, _LONGEST_TEXT) or None,
        chosen_by=storable(request.chosen_by, _LONGEST_TEXT) or None,
        hindered=hindered,
    )
    replays = [
        Replay(
            id=str(uuid4()),
            batch=batch.name,
            position=position,
            action=request.action.value,
            operator=batch.operator,
            selection=request.command,
            name=storable(letter.key) or None,
            message_id=storable(letter.id) or None,
            operation=storable(letter.operation)[:64] or None,
            origin=storable(letter.origin),
            code=letter.cause.code or "",
            failed_at=storable(letter.failed_at)[:40],
            identity=identity,
            digest=letter.digest,
            tenant=storable(letter.proven_project or request.tenant) or None,
            state=_ENDED[request.action] if identity in finished else ReplayState.PINNED,
            pinned_at=now,
            done_at=now if identity in finished else None,
            real_user=operator.real_user,
            vouched=letter.is_unproven(trusting=settings.trust_publishers),
            reason=letter.reason,
        )
        for position, (letter, identity) in enumerate(zip(letters, identities, strict=True))
    ]
    await journal.add_batch(batch, replays)
    return batch, replays
