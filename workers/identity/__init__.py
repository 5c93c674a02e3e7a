"""Who asks, and in which project."""

from workers.identity.operators import OperatorReplays
from workers.identity.requester import NOBODY, Identity, Requester
from workers.identity.resume_tokens import (
    RESUME_TOKEN_HEADER,
    ReplayAuthority,
    Replays,
    hash_of,
    new_resume_token,
    resume_token_of,
)
from workers.identity.resumed import Readmission
from workers.identity.trusted import TrustedPublishers

__all__ = [
    "NOBODY",
    "RESUME_TOKEN_HEADER",
    "Identity",
    "OperatorReplays",
    "Readmission",
    "ReplayAuthority",
    "Replays",
    "Requester",
    "TrustedPublishers",
    "hash_of",
    "new_resume_token",
    "resume_token_of",
]
