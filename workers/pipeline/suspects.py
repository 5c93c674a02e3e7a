"""Requests whose workers died: one of them may be what kills them, and nobody knows which.

The journal counts for each request the workers that died while they had it. From the third on it is
a suspect: it waits before its next attempt, so that others are done by then, and a worker carries
out one suspect at a time, so that one death is counted for one of them. After many it is ended:
what kills every worker ends so, and what was only in hand with it does not come so far.
"""

import time

from handlers.effects.waits import Wait
from messages.codes import Code
from messages.errors import Refused
from messages.results import WaitReason
from workers.journal import Kind
from workers.pipeline.progress import Progress
from workers.pipeline.retry import WORKER_LOST, Retry

#: Workers that died with a request in hand, from which on it is a suspect, and after which it ends.
SUSPECT_AFTER, MOST_LOST = 3, 30


class Suspects:
    """Says when a suspect is carried out; `delays` are the seconds before each retry."""

    def __init__(self, delays: tuple[int, ...]) -> None:
        self._delays = delays
        self._in_hand: str | None = None

    def check(self, progress: Progress) -> tuple[Retry, Wait] | None:
        """Return when a request is to come again, and what it waits for until then; None where it
        goes on now, until `release`. Raises `Refused` where it ends.
        """
        lost = progress.lost_workers
        if lost < SUSPECT_AFTER:
            return None
        if lost >= MOST_LOST:
            detail = f"{lost} workers died while they carried it out"
            raise Refused(Code.FAILED, reason=WORKER_LOST, detail=detail)
        now = time.time()
        if progress.was_lost:
            is_order = progress.request.kind is Kind.ORDER
            attempts = min(progress.attempts, len(self._delays) - 1) if is_order else 0
            detail = f"{lost} workers died while they carried it out"
            wait = Wait(WaitReason.RETRY, now, cause=WORKER_LOST, detail=detail)
            return Retry(self._delays[attempts], counts=is_order), wait
        if self._in_hand is not None:
            return Retry(self._delays[0], counts=False), Wait(WaitReason.TURN, now)
        self._in_hand = progress.key
        return None

    def release(self, progress: Progress) -> None:
        """Let another suspect be carried out."""
        if self._in_hand == progress.key:
            self._in_hand = None
