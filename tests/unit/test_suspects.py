"""Requests whose workers died: when each is carried out."""

from types import SimpleNamespace
from typing import Any

import pytest

from messages.errors import Refused
from messages.results import WaitReason
from workers.journal import Kind
from workers.pipeline import suspects
from workers.pipeline.suspects import ALONE, MOST_LOST, SUSPECT_AFTER, Suspects


def suspect(key: str, lost: int = SUSPECT_AFTER, *, was_lost: bool = False) -> Any:
    request = SimpleNamespace(kind=Kind.ORDER)
    return SimpleNamespace(
        key=key, lost_workers=lost, was_lost=was_lost, attempts=0, request=request
    )


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, which stands still."""
    now = [1000.0]
    clock = SimpleNamespace(time=lambda: now[0], monotonic=lambda: now[0])
    monkeypatch.setattr(suspects, "time", clock)
    return now


def test_one_suspect_is_begun_while_the_one_before_may_still_kill(now: list[float]) -> None:
    one, other, third = map(suspect, "abc")
    found = Suspects((5, 30))
    assert found.check(one) is None
    later = found.check(other)
    assert later is not None
    assert (later[0].delay, later[0].counts, later[1].reason) == (5, False, WaitReason.TURN)
    found.release(one)
    assert found.check(other) is None
    assert found.check(third) is not None


def test_one_that_its_worker_survives_holds_up_the_others_no_longer(now: list[float]) -> None:
    """After three deaths hundreds of innocent orders may be suspects, each with minutes to wait."""
    orders = [suspect(f"order-{number}") for number in range(200)]
    found = Suspects((5, 30))
    for order in orders:
        assert found.check(order) is None
        assert found.check(orders[-1] if order is not orders[-1] else suspect("x")) is not None
        now[0] += ALONE + 1
    # They come back from a retry queue, and go on at once, also beside a new one.
    assert found.check(suspect("new")) is None
    for order in orders:
        found.release(order)
        assert found.check(order) is None


def test_one_whose_last_worker_died_waits_though_this_one_had_survived_it(now: list[float]) -> None:
    found = Suspects((5, 30))
    assert found.check(suspect("a")) is None
    now[0] += ALONE + 1
    found.release(suspect("a"))
    later = found.check(suspect("a", SUSPECT_AFTER + 1, was_lost=True))
    assert later is not None
    assert later[0].counts
    with pytest.raises(Refused):
        found.check(suspect("a", MOST_LOST))
