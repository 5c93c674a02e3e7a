"""The steps that a preview prints."""

import json
import time
from dataclasses import replace
from typing import Any

from handlers.effects.backoff import Deadline
from handlers.effects.ledger import Effect, EffectId, EffectKind, NoLedger
from handlers.effects.once import Effects
from handlers.openstack.sessions import Reply
from handlers.orders.preview import NextSteps, printed, remaining_steps
from handlers.orders.step import Step
from messages.results import ServerSnapshot, StoredFeeData

RESIZE = EffectId(EffectKind.RESIZE, "1")


class Interrupted(NoLedger):
    """The ledger of an order whose resize has ended in this way."""

    def __init__(self, outcome: dict[str, Any] | None) -> None:
        self._effect = Effect(None, time.time(), outcome)

    def effect(self, name: EffectId) -> Effect | None:
        return self._effect if name == RESIZE else None


def step(kind: EffectKind, *, printed: bool = True) -> Step:
    async def act() -> Reply:
        raise AssertionError("a preview calls nothing")

    async def landed(_: object) -> str | None:
        raise AssertionError("a preview calls nothing")

    name = kind.value
    return Step(name=name, effect=EffectId(kind, "1"), act=act, landed=landed, printed=printed)


STEPS = [
    step(EffectKind.UNLOCK, printed=False),
    step(EffectKind.RESIZE),
    step(EffectKind.CONFIRM),
]


def names(ledger: NoLedger) -> list[str]:
    return [one.name for one in remaining_steps(STEPS, Effects(ledger, Deadline.after(1)))]


def test_an_order_that_was_not_begun_has_all_its_printed_steps() -> None:
    assert names(NoLedger()) == ["resize", "confirm"]


def test_a_step_that_is_done_is_not_printed_again() -> None:
    assert names(Interrupted({"status": 202})) == ["confirm"]


def test_a_step_of_unknown_or_refused_outcome_is_still_to_be_done() -> None:
    assert names(Interrupted(None)) == ["resize", "confirm"]
    assert names(Interrupted({"refused": 409})) == ["resize", "confirm"]


def test_a_printed_step_is_plain_json() -> None:
    """Also where what it changes is a snapshot of a server."""
    fees = StoredFeeData.model_validate({})
    before = ServerSnapshot(status="ACTIVE", flavor="S1", disks=[], fee_data=fees)
    (one,) = printed([replace(STEPS[1], before=before)])
    record = one.model_dump(mode="json")
    assert json.loads(json.dumps(record)) == record
    assert (record["number"], record["name"], record["before"]["status"]) == (1, "resize", "ACTIVE")


def test_a_dry_run_names_the_next_step() -> None:
    assert NextSteps(STEPS[1:]).what == "resize:1"
