"""Taking parked messages in hand: pinned first, so that exactly these are meant, whatever comes
meanwhile.
"""

import asyncio
import os
import pwd
import secrets
import socket
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from uuid import uuid4

from workers.dead_letters.selection import Found
from workers.journal import Action, History, Journal, Replay, ReplayState

_LONGEST = 255
_STATES = {Action.REPLAY: ReplayState.SENT, Action.DISCARD: ReplayState.DISCARDED}


#: Where Linux tells the user id of whoever logged in, which neither su nor sudo changes; and what
#: it tells of nobody.
_LOGIN_ID, _NOBODY = Path("/proc/self/loginuid"), 2**32 - 1


def who_is_there() -> str:
    """Return who runs this command unless told otherwise: `user@host`, and who called sudo where
    that was used.
    """
    user, behind = _user_name(os.getuid()), os.environ.get("SUDO_USER")
    return (
        f"{behind} (as {user})@{socket.gethostname()}"
        if behind
        else f"{user}@{socket.gethostname()}"
    )


def real_user() -> str:
    """Return the user that this process runs as, by the kernel's word alone: `user@host`.

    Who logged in, where the kernel knows it and it is another, is added: `root (logged in as
    alice)@host`. Neither an option nor the environment (USER, LOGNAME, SUDO_USER) has a say.
    """
    user, login = os.getuid(), _login_id()
    shown = _user_name(user) + (
        f" (logged in as {_user_name(login)})" if login not in (None, user) else ""
    )
    return f"{shown}@{socket.gethostname()}"[:_LONGEST]


def _login_id() -> int | None:
    try:
        found = int(_LOGIN_ID.read_text())
    except (OSError, ValueError):
        return None
    return found if found != _NOBODY else None


def _user_name(user_id: int | None) -> str:
    """A user without an entry, as in a container, is told by his number."""
    try:
        return pwd.getpwuid(user_id).pw_name if user_id is not None else "?"
    except KeyError:
        return f"uid {user_id}"


async def pin(
    journal: Journal,
    history: History,
    found: Sequence[Found],
    *,
    action: Action,
    operator: str,
    selection: str,
    tenant: str | None,
    vouched: Collection[str] = (),
) -> list[Replay]:
    """Write down which messages are meant, and return them in their order.

    `tenant` is the project of those of which none is proven. `vouched` holds the identities of
    those whose sender is not proven, so that the operator answers for him.

    What an earlier run did, and could only not ack any more, is known to be done.
    """
    done = await asyncio.to_thread(history.done_before, [one.identity for one in found], action)
    batch, now = (
        f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}",
        time.time(),
    )
    user, pinned = real_user(), []
    for position, one in enumerate(found):
        parked, was_done = one.parked, one.identity in done
        pinned.append(
            Replay(
                id=str(uuid4()),
                batch=batch,
                position=position,
                action=action.value,
                operator=_text(operator),
                selection=selection,
                name=_text(parked.key) or None,
                message_id=_text(parked.id) or None,
                operation=_text(parked.operation)[:64] or None,
                origin=_text(parked.origin),
                code=_text(parked.code)[:16],
                failed_at=_text(parked.failed_at)[:40],
                identity=one.identity,
                digest=parked.digest,
                tenant=parked.proven_project or tenant,
                state=_STATES[action] if was_done else ReplayState.PINNED,
                pinned_at=now,
                done_at=now if was_done else None,
                real_user=user,
                vouched=one.identity in vouched,
            )
        )
    await journal.add_batch(pinned)
    return pinned


def _text(text: str | None) -> str:
    """As every database takes it: whatever a stranger has sent."""
    clean = (text or "").replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
    return clean[:_LONGEST]
