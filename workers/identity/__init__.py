"""Authentication: the sender of a message, and the project that it acts in."""

from workers.identity.requester import NO_PROJECT, Identity, Requester
from workers.identity.resume_tokens import (
    JournalReplays,
    ReplayAuthority,
    Replays,
    ResumeTokenAuthentication,
    hash_of,
    new_resume_token,
)
from workers.identity.trusted import TrustedPublishers

__all__ = [
    "NO_PROJECT",
    "Identity",
    "JournalReplays",
    "ReplayAuthority",
    "Replays",
    "Requester",
    "ResumeTokenAuthentication",
    "TrustedPublishers",
    "hash_of",
    "new_resume_token",
]
