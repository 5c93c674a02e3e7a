"""The record of what operators did: who, what, why, and from where."""

import os
import socket
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

from workers.dead_letters.operator import default_operator, real_user
from workers.journal import Actor, AuditEntry, AuditFilter, Operations
from workers.settings import Settings

__all__ = ["Actor", "AuditEntry", "AuditFilter", "entries", "local_actor", "operations", "record"]


#: Actions of which one batch may have several entries: it was stopped, and somebody went on with it.
_BATCHES = frozenset({"dead replay", "dead discard"})


def operations(settings: Settings) -> Operations:
    """Return the journal for what operators do; whoever calls it closes it. Raises `JournalError`."""
    return Operations(settings.journal_url.get_secret_value(), settings.names.namespace).open()


def local_actor(operator: str | None = None) -> Actor:
    """Return the user of this process as an operator. `operator`: the name that he gives himself."""
    return Actor(operator or default_operator(), real_user(), _terminal())


def record(
    settings: Settings,
    action: str,
    actor: Actor,
    *,
    target: str | None = None,
    reason: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Record what an operator did, with a connection of its own. Raises `JournalError`.

    `action` is a command's words (`pause`, `dead replay`), `target` a request's key, the name of a
    batch, a kind or a file, `details` JSON without secrets (counts, the selection).
    """
    with closing(operations(settings)) as journal:
        journal.record(action, actor, target=target, reason=reason, details=details)


def entries(journal: Operations, wanted: AuditFilter) -> list[AuditEntry]:
    """Return what operators did, newest first; the runs of one batch of dead letters are one entry
    with the names of all who worked on it, separated by commas.
    """
    merged: dict[tuple[str, str | None], AuditEntry] = {}
    for one in journal.audit(replace(wanted, limit=None, operator=None)):
        is_batch = one.action in _BATCHES and one.target is not None
        key = (one.action, one.target) if is_batch else (one.id, None)
        known = merged.get(key)
        # Newest first: the entry says when the batch was begun, and what was chosen then.
        merged[key] = (
            one
            if known is None
            else replace(
                one,
                operator=_joined(one.operator, known.operator),
                real_user=_joined(one.real_user, known.real_user),
                origin=_joined(one.origin, known.origin),
            )
        )
    found = sorted(merged.values(), key=lambda one: one.at, reverse=True)
    name = wanted.operator
    some = [one for one in found if name is None or name in _names(one.operator, one.real_user)]
    return some[: wanted.limit]


def _joined(first: str, then: str) -> str:
    return ", ".join(_names(first, then))


def _names(*texts: str) -> list[str]:
    return list(dict.fromkeys(name for text in texts for name in text.split(", ")))


def _terminal() -> str:
    """Return host and terminal of this process, and where its SSH session says that it comes from."""
    found = socket.gethostname()
    for descriptor in (0, 1, 2):
        with suppress(OSError):
            found += f" {os.ttyname(descriptor)}"
            break
    if client := os.environ.get("SSH_CONNECTION", "").split():
        found += f" ssh from {client[0]}"
    return found
