"""Effects: at most once, whatever is lost between intent and outcome."""

import time
from typing import Any

import pytest

from handlers.effects.backoff import Deadline, EffectTiming
from handlers.effects.ledger import Effect, EffectId, EffectKind
from handlers.effects.once import Effects
from handlers.openstack.errors import CloudRefusal, Conflict
from handlers.openstack.project import fence
from handlers.openstack.sessions import Reply
from messages.errors import Ambiguous, OutcomeUnknown, Refused, Transient

STOP = EffectId(EffectKind.STOP, "1")


class Book:
    """A ledger in memory; `lines` tells in which order it was written to."""

    def __init__(self, stop: Effect | None = None) -> None:
        self.known: dict[EffectId, Effect] = {} if stop is None else {STOP: stop}
        self.lines: list[str] = []
        self.closed = False

    def effect(self, name: EffectId) -> Effect | None:
        return self.known.get(name)

    def effects(self) -> dict[EffectId, Effect]:
        return self.known

    def sending(self, name: EffectId) -> None:
        self.lines.append("sending")

    async def intend(self, name: EffectId, marker: Any) -> None:
        self.lines.append("intend")
        self.known[name] = Effect(marker, time.time())

    async def record(self, name: EffectId, outcome: dict[str, Any], request_id: str | None) -> None:
        self.lines.append("record")
        self.known[name] = Effect(self.known[name].marker, time.time(), outcome, request_id)

    async def remember(self, name: EffectId, value: Any) -> None:
        self.known[name] = Effect(None, time.time(), {"value": value})


class Cloud:
    """Answers each call as its script says: an exception, or done. `shows` is whether it can be
    seen to be done.
    """

    def __init__(self, book: Book, *script: Exception | None, shows: bool = False) -> None:
        self.book, self.script, self.shows, self.done = book, list(script), shows, 0

    async def do(self) -> Reply:
        self.book.lines.append("do")
        answer = self.script.pop(0)
        if answer is None:
            self.done += 1
            return Reply(202, None, "req-1")
        raise answer

    async def landed(self, _marker: Any) -> str | None:
        self.book.lines.append("look")
        return "req-found" if self.shows else None


#: So that nothing is waited for.
QUICK = EffectTiming(settle=0.02, flight=0.02, late=0.02, late_command=0.02, look_every=0.02)


def quick(
    book: Book, patience: Deadline, expiry: Deadline | None = None, deadline: Deadline | None = None
) -> Effects:
    return Effects(book, patience, expiry, deadline, QUICK)


async def once(
    book: Book, cloud: Cloud, *, patience: float = 5.0, expiry: float | None = None
) -> None:
    effects = quick(
        book, Deadline.after(patience), None if expiry is None else Deadline.after(expiry)
    )
    await effects.once(STOP, cloud.do, cloud.landed, "marker")


async def test_the_intent_is_written_before_the_call_and_the_outcome_after() -> None:
    book = Book()
    await once(book, Cloud(book, None))
    assert book.lines == ["intend", "do", "record"]
    assert book.known[STOP].request_id == "req-1"


async def test_an_effect_that_was_done_is_not_repeated() -> None:
    book = Book(stop=Effect("marker", 1.0, {"status": 202}, "req-0"))
    await once(book, Cloud(book))
    assert book.lines == []


async def test_an_intent_without_an_outcome_is_looked_for_first() -> None:
    book = Book(stop=Effect("marker", 1.0))
    await once(book, Cloud(book, shows=True))
    assert book.lines == ["look", "record"]
    assert book.known[STOP].request_id == "req-found"


async def test_an_intent_without_an_outcome_that_is_not_found_is_done() -> None:
    book = Book(stop=Effect("marker", 1.0))
    cloud = Cloud(book, None)
    await once(book, cloud)
    assert cloud.done == 1
    assert book.lines[-2:] == ["do", "record"]


async def test_a_lost_answer_is_looked_for_and_the_call_repeated_if_nothing_is_found() -> None:
    book = Book()
    cloud = Cloud(book, Ambiguous("http_500"), None)
    await once(book, cloud)
    assert (cloud.done, book.lines.count("do")) == (1, 2)
    found = Book()
    await once(found, Cloud(found, Ambiguous("http_500"), shows=True))
    assert found.lines.count("do") == 1


async def test_a_call_that_may_still_land_is_never_repeated() -> None:
    book = Book()
    with pytest.raises(OutcomeUnknown):
        await once(book, Cloud(book, Ambiguous("no_answer", may_land_late=True)))
    assert book.lines.count("do") == 1


async def test_a_transient_error_is_retried_until_the_deadline() -> None:
    book = Book()
    await once(
        book, Cloud(book, Transient("no_connection"), Transient("http_429", retry_after=0.01), None)
    )
    assert book.lines.count("do") == 3
    impatient = Book()
    with pytest.raises(Transient):
        await once(
            impatient, Cloud(impatient, Transient("http_429", retry_after=60.0)), patience=0.5
        )


async def test_a_call_that_never_was_carried_out_is_recorded_as_not_done() -> None:
    """A later run finds nothing begun: it may plan anew, and a deadline that has passed still
    counts.
    """
    book = Book()
    with pytest.raises(Transient):
        await once(book, Cloud(book, Transient("no_connection", retry_after=60.0)), patience=0.5)
    assert book.known[STOP].refused
    late = quick(book, Deadline.after(5), deadline=Deadline(0.0))
    cloud = Cloud(book)
    with pytest.raises(Refused) as caught:
        await late.once(STOP, cloud.do, cloud.landed, "marker")
    assert caught.value.reason == "deadline"
    assert book.lines.count("do") == 1


@pytest.mark.parametrize("first", [Ambiguous("http_500"), None], ids=["answer lost", "cut off"])
async def test_an_ambiguous_call_stays_unknown_though_its_repeat_was_not_sent(
    first: Exception | None,
) -> None:
    book = Book() if first is not None else Book(stop=Effect("marker", 1.0))
    script = [*([first] if first is not None else []), Transient("no_connection", retry_after=60.0)]
    with pytest.raises(Transient):
        await once(book, Cloud(book, *script), patience=2.0)
    assert book.known[STOP].unknown


async def test_a_refusal_is_recorded_and_may_be_retried_by_a_later_run() -> None:
    book = Book()
    with pytest.raises(CloudRefusal):
        await once(book, Cloud(book, Conflict(409, "busy", "req-9")))
    assert book.known[STOP].refused
    await once(book, Cloud(book, None))
    assert book.known[STOP].done


async def test_a_repeat_that_is_refused_for_its_own_traces_counts_as_done() -> None:
    book = Book(stop=Effect("marker", 1.0))
    cloud = Cloud(book, Conflict(409, "Cannot 'stop' instance in vm_state stopped", None))

    async def refuse() -> Reply:
        cloud.shows = True
        return await Cloud.do(cloud)

    await quick(book, Deadline.after(5)).once(STOP, refuse, cloud.landed, "marker")
    assert book.known[STOP].done


async def test_past_its_expiry_nothing_is_begun() -> None:
    book = Book()
    with pytest.raises(Refused) as caught:
        await once(book, Cloud(book), expiry=-1.0)
    assert caught.value.reason == "timeout"
    assert book.lines == []


async def test_past_its_expiry_an_ambiguous_call_is_looked_for_and_not_repeated() -> None:
    book = Book(stop=Effect("marker", 1.0))
    with pytest.raises(OutcomeUnknown):
        await once(book, Cloud(book), expiry=-1.0)
    assert "do" not in book.lines
    assert book.known[STOP].unknown


async def sent(book: Book, cloud: Cloud) -> Reply:
    """A call as `handlers.openstack.cloud` makes it: just before it is sent it is asked whether it
    may be.
    """
    guard = fence.get()
    assert guard is not None
    await guard()
    return await cloud.do()


async def test_a_call_is_not_sent_after_its_request_was_answered() -> None:
    book = Book()
    cloud = Cloud(book)

    async def waits_for_a_thread() -> Reply:
        book.closed = True
        return await sent(book, cloud)

    with pytest.raises(Refused) as caught:
        await quick(book, Deadline.after(5)).once(STOP, waits_for_a_thread, cloud.landed, "marker")
    assert caught.value.reason == "timeout"
    assert "do" not in book.lines
    # It is known not to have been done: nobody looks for it.
    assert book.known[STOP].refused


async def test_an_ambiguous_call_is_not_repeated_after_its_request_was_answered() -> None:
    book = Book()
    cloud = Cloud(book, Ambiguous("http_503"), None)

    async def answers_late() -> Reply:
        book.closed = True
        return await cloud.do()

    with pytest.raises(OutcomeUnknown):
        await quick(book, Deadline.after(5)).once(STOP, answers_late, cloud.landed, "marker")
    assert book.lines.count("do") == 1


async def test_an_ambiguous_call_is_looked_for_after_the_answer() -> None:
    book = Book(stop=Effect("marker", 1.0))
    book.closed = True
    await quick(book, Deadline(0.0), Deadline(0.0)).find_out(STOP, Cloud(book, shows=True).landed)
    assert book.known[STOP].done
    assert "do" not in book.lines


async def test_a_cloud_that_does_not_answer_is_asked_again_by_a_later_run() -> None:
    book = Book(stop=Effect("marker", 1.0))
    book.closed = True

    async def down(_marker: Any) -> str | None:
        raise Transient("http_503")

    with pytest.raises(Transient):
        await quick(book, Deadline(0.0), Deadline(0.0)).find_out(STOP, down)


async def test_a_remembered_value_is_made_once() -> None:
    book, made = Book(), []

    async def make() -> list[int]:
        made.append(1)
        return [len(made)]

    effects = quick(book, Deadline.after(1))
    assert (
        await effects.remember(EffectId(EffectKind.PLAN), make)
        == await effects.remember(EffectId(EffectKind.PLAN), make)
        == [1]
    )


async def test_an_effect_that_the_cloud_shows_by_its_mark_is_not_repeated_though_no_intent_is_known() -> (
    None
):
    book = Book()
    cloud = Cloud(book)

    async def marked() -> str | None:
        book.lines.append("look for the mark")
        return ""

    effects = quick(book, Deadline.after(5))
    await effects.once(STOP, cloud.do, cloud.landed, "marker", marked=marked)
    assert book.lines == ["look for the mark", "intend", "record"]
    assert book.known[STOP].done
    assert effects.any_done


async def test_a_mark_is_looked_for_once_before_the_first_intent() -> None:
    book, looks = Book(), []

    async def marked() -> str | None:
        looks.append(1)
        return None

    effects = quick(book, Deadline.after(5))
    for _ in range(2):
        await effects.once(STOP, Cloud(book, None).do, Cloud(book).landed, "m", marked=marked)
    assert len(looks) == 1
    assert book.lines == ["intend", "do", "record"]


async def test_a_mark_is_looked_for_again_where_the_call_was_refused_before() -> None:
    """A backup knows of the refusal, and not of the call that was accepted after it."""
    book = Book(stop=Effect("marker", 1.0, {"refused": 409}))

    async def marked() -> str | None:
        return "req-found"

    cloud = Cloud(book)
    await quick(book, Deadline.after(5)).once(STOP, cloud.do, cloud.landed, "marker", marked=marked)
    assert book.known[STOP].request_id == "req-found"
    assert "do" not in book.lines


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("os-stop:1", EffectId(EffectKind.STOP, "1")),
        ("plan", EffectId(EffectKind.PLAN)),
        ("volume:2.1", EffectId(EffectKind.VOLUME, "2.1")),
        ("id:create:3", EffectId(EffectKind.CREATE, "3").id_of_made),
        ("final:server:1", EffectId(EffectKind.FINAL, "server:1")),
    ],
)
def test_an_effects_id_is_the_text_that_the_journal_holds(text: str, known: EffectId) -> None:
    assert EffectId.parse(text) == known
    assert str(known) == text


def test_a_kind_of_effect_of_a_later_version_is_kept_as_it_is() -> None:
    """A rolling update: this version takes over what a later one has begun."""
    later = EffectId.parse("polish:1")
    assert (later.kind, later.target, str(later)) == ("polish", "1", "polish:1")
