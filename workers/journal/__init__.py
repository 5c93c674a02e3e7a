"""What was asked, meant and done, kept durably: the only place with SQL."""

from workers.journal.history import History, Wanted
from workers.journal.journal import Journal
from workers.journal.records import (
    Action,
    Ahead,
    Batch,
    Begun,
    Claim,
    ClaimLost,
    Conflict,
    EffectRecord,
    Elsewhere,
    JournalError,
    JournalUnfit,
    Kind,
    Known,
    NewRequest,
    Outcome,
    Replay,
    ReplayState,
    Request,
    Resumed,
    Standing,
    State,
)

__all__ = [
    "Action", "Ahead", "Batch", "Begun", "Claim", "ClaimLost", "Conflict", "EffectRecord", "Elsewhere", "History",
    "Journal", "JournalError", "JournalUnfit", "Kind", "Known", "NewRequest", "Outcome", "Replay", "ReplayState",
    "Request", "Resumed", "Standing", "State", "Wanted",
]  # fmt: skip
