"""What was asked, meant and done, kept durably: the only place with SQL."""

from workers.journal.journal import Journal
from workers.journal.records import (
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
    State,
)

__all__ = [
    "Begun", "Claim", "ClaimLost", "Conflict", "EffectRecord", "Elsewhere", "Journal", "JournalError", "Kind", "Known",
    "NewRequest", "Outcome", "Request", "Resumed", "State",
]  # fmt: skip
