"""Who asks, and in which project."""

from workers.identity.operators import OperatorReplays
from workers.identity.requester import NOBODY, Identity, Requester
from workers.identity.resume_tokens import (
    PASS_HEADER,
    ReplayAuthority,
    Replays,
    hash_of,
    new_pass,
    pass_of,
)
from workers.identity.resumed import Readmission
from workers.identity.trusted import TrustedPublishers

__all__ = [
    "NOBODY", "PASS_HEADER", "Identity", "OperatorReplays", "Readmission", "ReplayAuthority", "Replays", "Requester",
    "TrustedPublishers", "hash_of", "new_pass", "pass_of",
]  # fmt: skip
