"""Taking parked messages in hand: pinned first, so that exactly these are meant, whatever comes meanwhile."""

import asyncio
import getpass
import os
import secrets
import socket
import time
from collections.abc import Sequence
from uuid import uuid4

from workers.dead.selection import Found
from workers.journal import Action, History, Journal, Replay, ReplayState

_LONGEST = 255
_STATES = {Action.REPLAY: ReplayState.SENT, Action.DISCARD: ReplayState.DISCARDED}


def who_is_there() -> str:
    """Who runs this command: `user@host`, and by whose right where that was sudo."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    behind = os.environ.get("SUDO_USER")
    return f"{behind} (as {user})@{socket.gethostname()}" if behind else f"{user}@{socket.gethostname()}"


async def pin(
    journal: Journal,
    history: History,
    found: Sequence[Found],
    *,
    action: Action,
    operator: str,
    selection: str,
    tenant: str | None,
) -> list[Replay]:
    """Write down which messages are meant, and return them in their order.

    What an earlier run did, and could only not ack any more, is known to be done.
    """
    done = await asyncio.to_thread(history.done_before, [one.identity for one in found], action)
    batch, now = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}", time.time()
    pinned = []
    for position, one in enumerate(found):
        parked, was_done = one.parked, one.identity in done
        pinned.append(
            Replay(
                id=str(uuid4()), batch=batch, position=position, action=action.value, operator=_text(operator),
                selection=selection, name=_text(parked.key) or None, message_id=_text(parked.id) or None,
                operation=_text(parked.operation)[:64] or None, origin=_text(parked.origin),
                code=_text(parked.code)[:16], failed_at=_text(parked.failed_at)[:40], identity=one.identity,
                digest=parked.digest, tenant=tenant, state=_STATES[action] if was_done else ReplayState.PINNED,
                pinned_at=now, done_at=now if was_done else None,
            )
        )  # fmt: skip
    await journal.pin(pinned)
    return pinned


def _text(text: str | None) -> str:
    """As every database takes it: whatever a stranger has sent."""
    clean = (text or "").replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
    return clean[:_LONGEST]
