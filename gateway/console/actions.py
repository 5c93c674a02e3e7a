"""Forms of operators: each is shown as a preview first, and is carried out when it is confirmed."""

import re
import time
from urllib.parse import urlencode

from starlette.responses import Response

from gateway.console.backend import Backend
from gateway.console.formats import duration, moment
from gateway.console.forms import actor_of, reason_of
from gateway.console.pages import ROOT, Pages, Problem, Visit, go_to
from workers.admin.cancel import CancelOutcome, cancel
from workers.admin.pauses import pause, resume
from workers.admin.times import SECONDS
from workers.journal import Pausable

_DURATION = re.compile(r"(\d{1,6})\s*([smhd])", re.ASCII)
#: Characters of an order's name or key.
_LONGEST_KEY = 255

_NOT_CANCELLED = {
    CancelOutcome.BEGUN: "Not cancelled: something of it has begun.",
    CancelOutcome.ENDED: "Not cancelled: it has its result.",
    CancelOutcome.COMMAND: "Not cancelled: commands cannot be cancelled, only orders.",
    CancelOutcome.AMBIGUOUS: "Not cancelled: several requests have this name; give a whole key.",
}


class Actions:
    """Pausing, resuming, cancelling."""

    def __init__(self, pages: Pages, backend: Backend) -> None:
        self._pages = pages
        self._backend = backend

    async def pause(self, visit: Visit) -> Response:
        kinds, reason = _kinds(visit), reason_of(visit, required=True)
        lasts = _seconds(visit.given("for"))
        if not visit.given("confirmed"):
            until = f"{duration(lasts)}" if lasts is not None else "until an operator resumes it"
            return self._confirm(
                visit,
                "Pause",
                "/pauses/pause",
                facts=[
                    ("Kinds", ", ".join(kind.value for kind in kinds)),
                    ("For", until),
                    ("Reason", reason),
                ],
                notes=[
                    "No worker begins such requests any more: their senders wait, and commands may"
                    " run into their time limit."
                ],
                back="/pauses",
            )
        until_at = time.time() + lasts if lasts is not None else None
        actor = actor_of(visit)
        await self._backend.operate(lambda journal: pause(journal, kinds, actor, reason, until_at))
        return go_to(f"{ROOT}/pauses?told=paused")

    async def resume(self, visit: Visit) -> Response:
        kinds, reason = _kinds(visit), reason_of(visit, required=False)
        if not visit.given("confirmed"):
            in_force = [one for one in await self._backend.pauses() if one.kind in kinds]
            if not in_force:
                raise Problem(409, "None of these kinds is paused.")
            facts = [
                (one.kind.value, f"{moment(one.since)} {one.operator}: {one.reason}")
                for one in in_force
            ]
            return self._confirm(visit, "Resume", "/pauses/resume", facts=facts, back="/pauses")
        actor = actor_of(visit)
        await self._backend.operate(lambda journal: resume(journal, kinds, actor, reason or None))
        return go_to(f"{ROOT}/pauses?told=resumed")

    async def cancel(self, visit: Visit) -> Response:
        key, reason = visit.given("key"), reason_of(visit, required=True)
        if not key or len(key) > _LONGEST_KEY:
            raise Problem(400, "Name the order.")
        back = f"/request?{urlencode({'key': key})}"
        if not visit.given("confirmed"):
            found = await self._backend.find(key)
            return self._confirm(
                visit,
                "Cancel an order",
                "/cancel",
                facts=[("Order", key), ("Now", found.answer), ("Reason", reason)],
                notes=[
                    "It is refused where anything of it has begun. Its sender gets a failing result."
                ],
                back=back,
            )
        actor = actor_of(visit)
        done = await self._backend.operate(lambda journal: cancel(journal, key, actor, reason))
        if done.outcome in _NOT_CANCELLED:
            raise Problem(409, _NOT_CANCELLED[done.outcome], ", ".join(done.begun + done.keys))
        return go_to(f"{ROOT}{back}&told=cancelled")

    def _confirm(
        self,
        visit: Visit,
        title: str,
        action: str,
        *,
        facts: list[tuple[str, str]],
        notes: list[str] | None = None,
        back: str,
    ) -> Response:
        """Show what a form would do; it is sent again with all its fields where it is confirmed."""
        kept = [
            (name, value)
            for name, values in visit.form.items()
            if name not in ("csrf", "confirmed")
            for value in values
        ]
        return self._pages.page(
            visit,
            "confirm.html",
            title=title,
            verb=title,
            action=action,
            facts=facts,
            notes=notes or [],
            kept=kept,
            back=back,
        )


def _kinds(visit: Visit) -> list[Pausable]:
    given = visit.form.get("kind", [])
    if not given or not set(given) <= set(Pausable):
        raise Problem(400, "Choose at least one kind.")
    return [kind for kind in Pausable if kind in given]


def _seconds(text: str) -> float | None:
    """Return a duration like 30m in seconds; None for an empty text. Raises `Problem`."""
    if not text:
        return None
    found = _DURATION.fullmatch(text)
    if found is None or not int(found[1]):
        raise Problem(400, "This is no duration; examples are 90s, 30m, 2h and 1d.", text)
    return float(int(found[1]) * SECONDS[found[2]])
