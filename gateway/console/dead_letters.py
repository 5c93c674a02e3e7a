"""Dead letters: choosing, rehearsal, confirmation, progress, stop, going on, and the archive."""

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar
from urllib.parse import urlencode

from starlette.responses import Response

from gateway.console.backend import Backend
from gateway.console.batches import Batches
from gateway.console.forms import actor_of, instant, reason_of
from gateway.console.pages import ROOT, Pages, Problem, View, Visit, go_to
from messages.record import record
from workers.dead_letters.batch import BatchRequest
from workers.dead_letters.cause import cause_of
from workers.dead_letters.dead_letter import DeadLetter
from workers.dead_letters.engine import Division, choose, divide, preview
from workers.dead_letters.selection import Group, Selected, Selection, grouped
from workers.journal import Action

T = TypeVar("T")

#: Messages of a list, and of a rehearsal, and groups, at most.
_LISTED, _REHEARSED, _GROUPS = 200, 50, 100
_MOST_ARCHIVED = 200
#: The last second of the year 9999.
_LATEST = 253402300799.0
#: Fields of a selection that may be given several times.
_SEVERAL = ("id", "code", "reason", "error", "operation", "tenant", "origin", "group")


@record
class _Plan:
    """An action as a form asks for it."""

    request: BatchRequest
    selection: Selection
    #: The fields of the form that say it again.
    kept: tuple[tuple[str, str], ...]

    @property
    def is_everything(self) -> bool:
        """True where nothing but a time limits it, which every preview has."""
        return replace(self.selection, before=None).is_empty


@record
class _Listed:
    """The part of the `matching` dead letters of `total` that the list shows."""

    groups: list[Group]
    letters: list[DeadLetter]
    matching: int
    total: int
    shared: bool
    unmatched: tuple[str, ...]


@record
class _Divided:
    """The dead letters that a plan means now; `digest` is that of those that can be part of it."""

    division: Division
    groups: list[Group]
    digest: str
    unproven: int


class DeadLetters:
    """The pages about dead letters."""

    def __init__(self, pages: Pages, backend: Backend, batches: Batches) -> None:
        self._pages = pages
        self._backend = backend
        self._batches = batches
        self._choosing = asyncio.Lock()
        self.reads: Mapping[str, View] = {"/dead": self._list, "/archive": self._archive}
        self.actions: Mapping[str, View] = {
            "/dead/preview": self._preview,
            "/dead/start": self._start,
            "/archive/restore": self._restore,
        }

    async def _list(self, visit: Visit) -> Response:
        query = visit.request.query_params
        given = {name: [one for one in query.getlist(name) if one] for name in query}
        selection = selection_of(given)
        return self._pages.page(
            visit,
            "dead.html",
            found=await self._reading(selection, _listed),
            selection=selection,
            kept=kept_fields(given),
            asked={name: " ".join(values) for name, values in given.items()},
            at=time.time(),
        )

    async def _preview(self, visit: Visit) -> Response:
        plan = self._plan(visit)
        return await self._show_preview(visit, plan, await self._divided(plan))

    async def _show_preview(
        self, visit: Visit, plan: _Plan, divided: "_Divided", *, has_changed: bool = False
    ) -> Response:
        """Show what would become of the chosen messages. Nothing is changed."""
        request, settings, division = plan.request, self._backend.settings, divided.division
        sample = division.able[:_REHEARSED]
        results = await self._backend.working(
            lambda history: preview(settings, history, request, sample)
        )
        outcomes = Counter((one.outcome.text, _alike(one.detail)) for one in results)
        return self._pages.page(
            visit,
            "dead_preview.html",
            request=request,
            is_replay=request.action is Action.REPLAY,
            division=division,
            groups=divided.groups,
            outcomes=outcomes.most_common(),
            rehearsed=len(sample),
            unproven=divided.unproven,
            kept=(*plan.kept, ("digest", divided.digest)),
            is_everything=plan.is_everything,
            has_changed=has_changed,
            back="/dead?"
            + urlencode([one for one in plan.kept if one[0] in (*_SEVERAL, "since", "before")]),
        )

    async def _start(self, visit: Visit) -> Response:
        plan = self._plan(visit)
        divided = await self._divided(plan)
        division = divided.division
        if divided.digest != visit.given("digest"):
            # Somebody has taken some meanwhile: what was confirmed is not what would be done.
            return await self._show_preview(visit, plan, divided, has_changed=True)
        if not division.able:
            raise Problem(409, "None of them can be replayed.")
        if plan.is_everything and not visit.given("everything"):
            raise Problem(400, "Confirm that every dead letter is meant.")
        name = await self._batches.begin(plan.request, division, _rate(visit))
        return go_to(f"{ROOT}/batch?{urlencode({'name': name})}")

    async def _archive(self, visit: Visit) -> Response:
        words = tuple(visit.asked("id").split())
        since = instant(visit.asked("since"))
        batch = visit.asked("batch") or None
        found = await self._backend.history(
            lambda history: history.archived(words, batch=batch, since=since, limit=_MOST_ARCHIVED)
        )
        return self._pages.page(visit, "archive.html", found=found, most=_MOST_ARCHIVED)

    async def _restore(self, visit: Visit) -> Response:
        wanted = tuple(visit.form.get("id", ()))
        if not wanted:
            raise Problem(400, "Tick at least one message.")
        found = await self._backend.history(lambda history: history.archived(wanted))
        found = [one for one in found if one.id in wanted]
        if not found:
            raise Problem(404, "The archive has no such message.")
        if not visit.given("confirmed"):
            again = sum(one.restored_at is not None for one in found)
            facts = [
                ("Messages", str(len(found))),
                ("Into", self._backend.settings.names.dead_queue),
            ]
            notes = ["Some were restored before: they will be there twice."] if again else []
            kept = [("id", one) for one in wanted]
            return self._pages.page(
                visit,
                "confirm.html",
                title="Restore",
                verb="Restore",
                action="/archive/restore",
                facts=facts,
                notes=notes,
                kept=[*kept, ("reason", visit.given("reason"))],
                back="/archive",
            )
        reason = reason_of(visit, required=False)
        done = await self._batches.restore(found, actor_of(visit), reason)
        if done.refused:
            told = f"{done.restored} / {done.restored + done.refused}"
            raise Problem(503, "The broker did not take all; these were restored:", told)
        return go_to(f"{ROOT}/dead?told=restored")

    async def _divided(self, plan: _Plan) -> "_Divided":
        """Choose what a plan means. Raises `Problem` where that is nothing."""
        settings, request = self._backend.settings, plan.request

        def divided(found: Selected) -> _Divided:
            if not found.letters:
                raise Problem(409, "No dead letter matches.", " ".join(found.unmatched))
            division = divide(settings, request, found.letters)
            return _Divided(
                division,
                grouped(division.able)[:_GROUPS],
                digest_of(division.able),
                _unproven(request, division, self._backend),
            )

        return await self._reading(plan.selection, divided)

    async def _reading(self, selection: Selection, use: Callable[[Selected], T]) -> T:
        """Read the dead letters and make something of them, both in a thread: there may be 100,000.
        One reading at a time: two would each see a part.
        """

        async def work() -> T:
            return use(await choose(self._backend.settings, selection))

        async with self._choosing:
            return await self._backend.reading(work)

    def _plan(self, visit: Visit) -> _Plan:
        given = {name: [one for one in values if one] for name, values in visit.form.items()}
        if given.get("scope") != ["all"]:
            # Without an id every message would be meant.
            if not given.get("ticked"):
                raise Problem(400, "Tick at least one message, or choose all that match.")
            given["id"] = given["ticked"]
        # What is dead-lettered after the preview is not part of it.
        given.setdefault("before", [str(time.time())])
        if not given["before"]:
            given["before"] = [str(time.time())]
        action = visit.given("action")
        if action not in set(Action):
            raise Problem(400, "Choose what to do.")
        selection = selection_of(given)
        named = kept_fields(given)
        terms = [(name, visit.given(name)) for name in ("project", "vouch", "why", "rate")]
        kept = (("action", action), ("scope", "all"), *named, *(one for one in terms if one[1]))
        why = reason_of(visit, name="why", required=True)
        request = BatchRequest(
            action=Action(action),
            operator=actor_of(visit),
            command=hashlib.sha256(repr((action, named)).encode()).hexdigest(),
            tenant=visit.given("project") or None,
            vouch=bool(visit.given("vouch")),
            why=why,
            chosen_by=selection.described(),
        )
        return _Plan(request, selection, kept)


def _listed(found: Selected) -> _Listed:
    return _Listed(
        groups=grouped(found.letters)[:_GROUPS],
        letters=found.letters[:_LISTED],
        matching=len(found.letters),
        total=found.total,
        shared=found.shared,
        unmatched=found.unmatched,
    )


def selection_of(given: Mapping[str, list[str]]) -> Selection:
    """Return the selection that the fields of a form, or of an address, ask for."""
    several = {name: tuple(given.get(name, ())) for name in _SEVERAL}
    return Selection(
        ids=several["id"],
        codes=several["code"],
        reasons=several["reason"],
        errors=several["error"],
        operations=several["operation"],
        tenants=several["tenant"],
        origins=several["origin"],
        groups=several["group"],
        since=_instant(given, "since"),
        before=_instant(given, "before"),
    )


def _instant(given: Mapping[str, list[str]], name: str) -> float | None:
    text = next(iter(given.get(name, ())), "")
    try:
        kept = float(text)  # as a form of ours keeps it
    except ValueError:
        return instant(text)
    if not 0 <= kept <= _LATEST:  # nor a NaN
        raise Problem(400, "This is no time; an example is 2026-11-23T10:00.", text)
    return kept


def kept_fields(given: Mapping[str, list[str]]) -> tuple[tuple[str, str], ...]:
    """Return the fields of a selection, to be sent again."""
    names = (*_SEVERAL, "since", "before")
    return tuple((name, value) for name in names for value in given.get(name, ()))


def digest_of(letters: list[DeadLetter]) -> str:
    """Return a digest of exactly these messages, in whatever order."""
    whole = "\n".join(sorted(one.identity for one in letters))
    return hashlib.sha256(whole.encode()).hexdigest()


def _alike(detail: str) -> str:
    """Return a rehearsal's detail without the ids by which messages differ; its code stays."""
    code, blank, rest = detail.partition(" ")
    return code + blank + cause_of(None, None, rest).error


def _unproven(request: BatchRequest, division: Division, backend: Backend) -> int:
    if request.action is not Action.REPLAY:
        return 0
    return sum(request.doubt(one, backend.settings) is not None for one in division.able)


def _rate(visit: Visit) -> float | None:
    text = visit.given("rate")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 100_000):
        raise Problem(400, "The rate must be a whole number of messages a second.", text)
    return float(text)
