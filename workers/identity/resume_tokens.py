"""Passes: what is known again without its token.

A message that comes back from a retry queue, or that an operator replays, has its token masked:
secrets lie nowhere. It carries a random word instead, in the header `x-ecs-pass`; the journal has
the word's SHA-256 and what the word is good for. So neither who reads the queues alone nor who
reads the journal alone can make up a message that counts, and a word counts only for the very
content (the digest) that it was given for.
"""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ReplayAuthority:
    """What an operator has answered for: `tenant` is the project (id or name), None where the
    message says it.
    """

    operator: str
    tenant: str | None


class Replays(Protocol):
    """What operators have put in for replay."""

    async def replay_of(self, resume_token: str, digest: str) -> ReplayAuthority | None:
        """What this word is good for, for a message with this digest; None where it is good for
        nothing.

        `Transient` where that cannot be told just now.
        """


def new_resume_token() -> str:
    """A word that nobody can guess."""
    return secrets.token_urlsafe(32)


def hash_of(resume_token: str) -> str:
    """What the journal keeps of a word: 64 hexadecimal digits."""
    return hashlib.sha256(resume_token.encode()).hexdigest()
