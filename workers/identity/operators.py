"""What operators have put in for replay, as the journal has it."""

from messages.errors import Transient
from workers.identity.resume_tokens import ReplayAuthority, hash_of
from workers.journal import Journal, JournalError


class OperatorReplays:
    """Looks a word up in the journal's table of replays; that it came is noted there."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def replay_of(self, resume_token: str, digest: str) -> ReplayAuthority | None:
        """As `Replays` has it."""
        try:
            found = await self._journal.redeem(hash_of(resume_token), digest)
        except JournalError as error:
            raise Transient("journal", detail=str(error)) from None
        return ReplayAuthority(found.operator, found.tenant) if found is not None else None
