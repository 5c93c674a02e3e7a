"""Who asks, and in which project."""

from workers.identity.operators import OperatorReplays
from workers.identity.requester import NOBODY, Identity, Requester
from workers.identity.resume_tokens import (
    ReplayAuthority,
    Replays,
    hash_of,
    new_resume_token,
)
from workers.identity.resumed import Readmission
from workers.identity.trusted import TrustedPublishers

__all__ = [
    "NOBODY",
    "Identity",
    "OperatorReplays",
    "Readmission",
    "ReplayAuthority",
    "Replays",
    "Requester",
    "TrustedPublishers",
    "hash_of",
    "new_resume_token",
]
