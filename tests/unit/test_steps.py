"""The readings of a list of steps: done, undone, and their request ids listed."""

import time
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from handlers.context import (
    Environment,
    NoReplies,
    NoRequests,
    Policy,
    RequestContext,
    RequestTimes,
)
from handlers.effects.backoff import Deadline
from handlers.effects.ledger import Effect, EffectId, EffectKind
from handlers.effects.once import Effects
from handlers.openstack.cloud import Cloud
from handlers.openstack.errors import Conflict
from handlers.openstack.sessions import CloudSettings, Reply
from handlers.orders.progress import OrderProgress
from handlers.orders.saga import do_steps, request_ids, undo_steps
from handlers.orders.step import Ready, Step, failed
from messages.errors import Refused, Transient
from messages.operations import parse_order
from tests.support.orders import paid

SERVER = "616fb98f-46ca-475e-917e-2563e5a8cd19"


class Book:
    """A ledger in memory."""

    closed = False

    def __init__(self) -> None:
        self.known: dict[EffectId, Effect] = {}

    def effect(self, name: EffectId) -> Effect | None:
        return self.known.get(name)

    def effects(self) -> dict[EffectId, Effect]:
        return self.known

    def sending(self, name: EffectId) -> None:
        pass

    async def intend(self, name: EffectId, marker: Any) -> None:
        self.known[name] = Effect(marker, time.time())

    async def record(self, name: EffectId, outcome: dict[str, Any], request_id: str | None) -> None:
        self.known[name] = Effect(self.known[name].marker, time.time(), outcome, request_id)

    async def remember(self, name: EffectId, value: Any) -> None:
        raise AssertionError("a step remembers nothing")


class Run:
    """A run of an order's steps; `lines` says what was done, in sequence."""

    def __init__(self, book: Book, *, last_try: bool = False) -> None:
        policy = Policy(require_fee_data=False, billing_zone=ZoneInfo("UTC"), region="r")
        soon = Deadline.after(5)
        self.lines: list[str] = []
        self.context = RequestContext(
            environment=Environment(Cloud(CloudSettings(None)), policy, NoRequests()),
            effects=Effects(book, soon),
            times=RequestTimes(soon, 5.0, last_try),
            replies=NoReplies(),
            key="k",
        )
        self.progress = OrderProgress(parse_order(paid("unsubscribe", SERVER)), self.context)

    async def do(self, *steps: Step) -> None:
        await do_steps(steps, self.context, self.progress)

    def step(
        self,
        kind: EffectKind,
        target: str,
        *,
        error: Exception | None = None,
        follow: Exception | None = None,
        **fields: Any,
    ) -> Step:
        """A step whose call is refused with `error`, and whose wait ends with `follow`."""
        effect = EffectId(kind, target)

        async def act() -> Reply:
            self.lines.append(str(effect))
            if error is not None:
                raise error
            return Reply(202, None, f"req-{effect}")

        async def landed(_: object) -> str | None:
            return None

        async def ended() -> None:
            if follow is not None:
                raise follow

        return Step(
            name=kind.value,
            effect=effect,
            instance_id=target,
            act=act,
            landed=landed,
            follow=ended,
            **fields,
        )


async def test_steps_of_one_name_are_done_before_those_of_the_next_name() -> None:
    run = Run(Book())
    steps = [
        run.step(kind, target)
        for target in ("a", "b")
        for kind in (EffectKind.RESIZE, EffectKind.CONFIRM)
    ]
    await run.do(*steps)
    assert run.lines == ["resize:a", "resize:b", "confirm:a", "confirm:b"]
    assert request_ids(steps, run.context) == [
        "req-resize:a",
        "req-confirm:a",
        "req-resize:b",
        "req-confirm:b",
    ]


async def test_a_step_that_fails_lets_its_like_end_and_those_after_it_are_not_begun() -> None:
    run = Run(Book())
    failing = run.step(EffectKind.RESIZE, "a", follow=failed("no_host"))
    with pytest.raises(Refused) as caught:
        await run.do(failing, run.step(EffectKind.RESIZE, "b"), run.step(EffectKind.CONFIRM, "b"))
    assert caught.value.reason == "no_host"
    assert run.lines == ["resize:a", "resize:b"]


async def test_what_a_retry_may_mend_is_raised_before_what_is_final() -> None:
    run = Run(Book())
    final = run.step(EffectKind.RESIZE, "a", follow=failed("no_host"))
    passing = run.step(EffectKind.RESIZE, "b", follow=Transient("busy"))
    with pytest.raises(Transient):
        await run.do(final, passing)


async def test_a_later_run_does_not_call_again_and_waits_again() -> None:
    book = Book()
    first = Run(book)
    with pytest.raises(Transient):
        await first.do(first.step(EffectKind.RESIZE, "a", follow=Transient("busy")))
    second = Run(book)
    with pytest.raises(Refused):
        await second.do(second.step(EffectKind.RESIZE, "a", follow=failed("timeout")))
    assert (first.lines, second.lines) == (["resize:a"], [])


async def test_a_step_with_nothing_to_do_makes_no_call_and_leaves_no_intent() -> None:
    async def nothing() -> Ready | None:
        return None

    book = Book()
    run = Run(book)
    await run.do(run.step(EffectKind.CONFIRM, "a", prepare=nothing, follow=failed("unreached")))
    assert (run.lines, book.known) == ([], {})


async def test_the_marker_is_read_just_before_the_call() -> None:
    async def ready() -> Ready | None:
        return Ready("2026-11-23T10:00:00Z")

    book = Book()
    run = Run(book)
    await run.do(run.step(EffectKind.CONFIRM, "a", prepare=ready))
    assert book.known[EffectId(EffectKind.CONFIRM, "a")].marker == "2026-11-23T10:00:00Z"


async def test_a_refusal_of_the_cloud_fails_the_step_unless_it_is_as_good_as_done() -> None:
    async def gone_already(_: object) -> None:
        return

    run = Run(Book())
    gone = Conflict(409, "it is so already", None)
    with pytest.raises(Refused):
        await run.do(run.step(EffectKind.CONFIRM, "a", error=gone))
    await run.do(run.step(EffectKind.CONFIRM, "b", error=gone, refused=gone_already))


async def test_begun_steps_are_undone_in_the_opposite_sequence_and_their_calls_are_listed() -> None:
    run = Run(Book())
    steps = [
        run.step(EffectKind.RENEW, "a", undo=(run.step(EffectKind.UNDO_RENEW, "a"),)),
        run.step(EffectKind.START, "a", undo=(run.step(EffectKind.UNDO_START, "a"),)),
        run.step(EffectKind.UNMARK, "a", undo=(run.step(EffectKind.UNDO_UNMARK, "a"),)),
    ]
    await run.do(*steps[:2])
    await undo_steps(steps, run.context)
    assert run.lines == ["renew:a", "os-start:a", "undo-start:a", "undo-renew:a"]
    assert request_ids(steps, run.context) == [f"req-{one}" for one in run.lines]


@pytest.mark.parametrize("last_try", [False, True])
async def test_what_cannot_be_undone_keeps_nothing_else_from_being_undone(last_try: bool) -> None:
    """Only what a retry may mend is raised, and not on the last try."""
    run = Run(Book(), last_try=last_try)
    never = run.step(EffectKind.UNDO_START, "a", follow=failed("no_power"))
    later = run.step(EffectKind.UNDO_START, "b", follow=Transient("busy"))
    steps = [
        run.step(EffectKind.RENEW, "a", undo=(run.step(EffectKind.UNDO_RENEW, "a"),)),
        run.step(EffectKind.START, "a", undo=(never,)),
        run.step(EffectKind.RENEW, "b", undo=(run.step(EffectKind.UNDO_RENEW, "b"),)),
        run.step(EffectKind.START, "b", undo=(later,)),
    ]
    await run.do(*steps)
    if last_try:
        await undo_steps(steps, run.context)
    else:
        with pytest.raises(Transient):
            await undo_steps(steps, run.context)
    undone = run.lines[4:]
    for server in ("a", "b"):
        of_server = [one for one in undone if one.endswith(server)]
        assert of_server == [f"undo-start:{server}", f"undo-renew:{server}"]
