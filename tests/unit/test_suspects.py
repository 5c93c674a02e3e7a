"""Requests whose workers died: when each is carried out."""

from types import SimpleNamespace
from typing import Any

import pytest

from messages.errors import Refused
from messages.results import WaitReason
from workers.journal import Kind
from workers.pipeline.suspects import MOST_LOST, SUSPECT_AFTER, Suspects


def suspect(key: str, lost: int = SUSPECT_AFTER, *, was_lost: bool = False) -> Any:
    request = SimpleNamespace(kind=Kind.ORDER)
    return SimpleNamespace(
        key=key, lost_workers=lost, was_lost=was_lost, attempts=0, request=request
    )


def test_a_suspect_is_carried_out_alone() -> None:
    one, other = suspect("a"), suspect("b")
    found = Suspects((5, 30))
    assert found.check(one) is None
    assert found.check(suspect("innocent", SUSPECT_AFTER - 1)) is None
    later = found.check(other)
    assert later is not None
    assert (later[0].delay, later[0].counts, later[1].reason) == (5, False, WaitReason.TURN)
    found.release(other)  # it has not begun
    assert found.check(other) is not None
    found.release(one)
    assert found.check(other) is None


def test_a_suspect_whose_last_worker_died_waits_first_and_ends_after_many() -> None:
    found = Suspects((5, 30))
    later = found.check(suspect("a", SUSPECT_AFTER + 1, was_lost=True))
    assert later is not None
    assert later[0].counts
    with pytest.raises(Refused):
        found.check(suspect("a", MOST_LOST))
