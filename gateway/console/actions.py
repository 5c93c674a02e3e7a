"""Forms of operators: each is shown as a preview first, and is carried out when it is confirmed."""

import re
import time

from starlette.responses import Response

from gateway.console.desk import Desk
from gateway.console.formats import duration, moment
from gateway.console.visit import ROOT, Pages, Problem, Visit, go_to
from workers.admin.pauses import pause, resume
from workers.journal import Actor, Pausable

_DURATION = re.compile(r"(\d{1,6})\s*([smhd])", re.ASCII)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
#: Characters of a reason.
_LONGEST_REASON = 500


class Actions:
    """Pausing and resuming."""

    def __init__(self, pages: Pages, desk: Desk) -> None:
        self._pages = pages
        self._desk = desk

    async def pause(self, visit: Visit) -> Response:
        kinds, reason = _kinds(visit), _reason(visit, required=True)
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
        await self._desk.operate(lambda journal: pause(journal, kinds, actor, reason, until_at))
        return go_to(f"{ROOT}/pauses?told=paused")

    async def resume(self, visit: Visit) -> Response:
        kinds, reason = _kinds(visit), _reason(visit, required=False)
        if not visit.given("confirmed"):
            in_force = [one for one in await self._desk.pauses() if one.kind in kinds]
            if not in_force:
                raise Problem(409, "None of these kinds is paused.")
            facts = [
                (one.kind.value, f"{moment(one.since)} {one.operator}: {one.reason}")
                for one in in_force
            ]
            return self._confirm(visit, "Resume", "/pauses/resume", facts=facts, back="/pauses")
        actor = actor_of(visit)
        await self._desk.operate(lambda journal: resume(journal, kinds, actor, reason or None))
        return go_to(f"{ROOT}/pauses?told=resumed")

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


def actor_of(visit: Visit) -> Actor:
    """Return the operator as the audit record names it."""
    who = visit.who
    return Actor(who.name, who.real_user, who.address)


def _kinds(visit: Visit) -> list[Pausable]:
    given = visit.form.get("kind", [])
    if not given or not set(given) <= set(Pausable):
        raise Problem(400, "Choose at least one kind.")
    return [kind for kind in Pausable if kind in given]


def _reason(visit: Visit, *, required: bool) -> str:
    reason = visit.given("reason")
    if required and not reason:
        raise Problem(400, "Give a reason: the audit record keeps it.")
    if len(reason) > _LONGEST_REASON or not reason.isprintable():
        raise Problem(400, "The reason must be a line of at most 500 printable characters.")
    return reason


def _seconds(text: str) -> float | None:
    """Return a duration like 30m in seconds; None for an empty text. Raises `Problem`."""
    if not text:
        return None
    found = _DURATION.fullmatch(text)
    if found is None or not int(found[1]):
        raise Problem(400, "This is no duration; examples are 90s, 30m, 2h and 1d.", text)
    return float(int(found[1]) * _UNITS[found[2]])
