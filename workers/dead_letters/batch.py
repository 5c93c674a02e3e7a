"""A batch: dead letters that an operator replays or discards together.

Its messages are recorded in the journal before the first is touched, so that exactly these are
meant, whatever is dead-lettered meanwhile and however often the command is interrupted.
"""

import asyncio
import os
import pwd
import secrets
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from messages.record import record
from workers.dead_letters.dead_letter import DeadLetter
from workers.journal import Action, History, Journal, Replay, ReplayState
from workers.settings import Settings

_LONGEST = 255
_ENDED = {Action.REPLAY: ReplayState.SENT, Action.DISCARD: ReplayState.DISCARDED}
#: The file in which Linux has the user id of the login, which neither su nor sudo changes; and the
#: id that it gives for none.
_LOGIN_ID, _NOBODY = Path("/proc/self/loginuid"), 2**32 - 1
#: Why a message is not replayed without `vouch`.
NOT_PROVEN = "who sent it is not proven: find out who it was, and answer for it with --vouch"


@record
class BatchRequest:
    """The action of a batch, and its operator.

    `command` is a digest of the command's words: the same command by the same operator resumes what
    it left. `tenant` is the project of the messages of which none is proven. `rate`: messages a
    second at most. `vouch`: the operator answers for senders that are not proven.
    """

    action: Action
    operator: str
    command: str
    tenant: str | None = None
    rate: float | None = None
    vouch: bool = False

    def hindrance(self, letter: DeadLetter, settings: Settings) -> str | None:
        """Return why a message cannot be part of the batch; None where it can."""
        if self.action is not Action.REPLAY:
            return None
        if letter.hindrance is not None or self.vouch:
            return letter.hindrance
        is_unproven = letter.is_unproven(trusting=settings.trust_publishers)
        return NOT_PROVEN if is_unproven else None


async def record_batch(
    journal: Journal,
    history: History,
    settings: Settings,
    request: BatchRequest,
    letters: Sequence[DeadLetter],
) -> list[Replay]:
    """Record the messages of a new batch, and return their rows in order.

    Messages that an earlier batch finished, but could not ack any more, are recorded as finished.
    """
    identities = [one.identity for one in letters]
    finished = await asyncio.to_thread(history.done_before, identities, request.action)
    now = time.time()
    started = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
    batch, user = f"{started}-{secrets.token_hex(2)}", real_user()
    replays = [
        Replay(
            id=str(uuid4()),
            batch=batch,
            position=position,
            action=request.action.value,
            operator=_storable(request.operator),
            selection=request.command,
            name=_storable(letter.key) or None,
            message_id=_storable(letter.id) or None,
            operation=_storable(letter.operation)[:64] or None,
            origin=_storable(letter.origin),
            code=_storable(letter.code)[:16],
            failed_at=_storable(letter.failed_at)[:40],
            identity=identity,
            digest=letter.digest,
            tenant=letter.proven_project or request.tenant,
            state=_ENDED[request.action] if identity in finished else ReplayState.PINNED,
            pinned_at=now,
            done_at=now if identity in finished else None,
            real_user=user,
            vouched=letter.is_unproven(trusting=settings.trust_publishers),
        )
        for position, (letter, identity) in enumerate(zip(letters, identities, strict=True))
    ]
    await journal.add_batch(replays)
    return replays


def default_operator() -> str:
    """Return the user of this command, `user@host`, with the caller of sudo where it was used."""
    user, caller = _user_name(os.getuid()), os.environ.get("SUDO_USER")
    return f"{f'{caller} (as {user})' if caller else user}@{socket.gethostname()}"


def real_user() -> str:
    """Return the user that this process runs as according to the kernel: `user@host`.

    Another user who logged in is added where the kernel knows it: `root (logged in as alice)@host`.
    Neither an option nor the environment (USER, LOGNAME, SUDO_USER) changes it.
    """
    user = os.getuid()
    try:
        login = int(_LOGIN_ID.read_text())
    except (OSError, ValueError):
        login = _NOBODY
    shown = _user_name(user)
    if login not in (_NOBODY, user):
        shown += f" (logged in as {_user_name(login)})"
    return f"{shown}@{socket.gethostname()}"[:_LONGEST]


def _user_name(user_id: int) -> str:
    """A user without an entry, as in a container, is shown by number."""
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return f"uid {user_id}"


def _storable(text: str | None) -> str:
    """A text that every database takes, whatever a stranger has sent."""
    clean = (text or "").replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
    return clean[:_LONGEST]
