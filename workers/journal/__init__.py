"""What was asked, meant and done, kept durably: the only place with SQL."""

from workers.journal.journal import Journal
from workers.journal.records import (
    Ahead,
    Begun,
    Claim,
    ClaimLost,
    Conflict,
    EffectRecord,
    Elsewhere,
    JournalError,
    Kind,
    Known,
    NewRequest,
    Outcome,
    Request,
    Resumed,
    Standing,
    State,
)

__all__ = [
    "Ahead", "Begun", "Claim", "ClaimLost", "Conflict", "EffectRecord", "Elsewhere", "Journal", "JournalError", "Kind",
    "Known", "NewRequest", "Outcome", "Request", "Resumed", "Standing", "State",
]  # fmt: skip
