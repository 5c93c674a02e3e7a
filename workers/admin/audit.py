"""The record of what operators did: who, what, why, and from where."""

import os
import socket
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import Any

from workers.dead_letters.operator import default_operator, real_user
from workers.journal import Actor, AuditEntry, AuditFilter, Operations
from workers.settings import Settings

__all__ = ["Actor", "AuditEntry", "AuditFilter", "entries", "local_actor", "operations", "record"]


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
    return journal.audit(wanted)


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
