"""`make faults` for some seconds: that it strikes, and that it counts."""

import random
from collections.abc import Iterator

import pytest

from tests.faults.campaign.phases import PHASES, Phase
from tests.faults.campaign.run import Campaign
from tests.faults.campaign.site import Site

pytestmark = pytest.mark.slow

SEED = 20


@pytest.fixture(scope="module")
def campaign() -> Iterator[Campaign]:
    with Campaign(pace=0.1) as found:
        yield found


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.name)
def test_a_few_seconds_of_every_fault_cost_nothing(campaign: Campaign, phase: Phase[Site]) -> None:
    row, broken = campaign.run_phase(phase, 5.0, random.Random(SEED))
    assert broken == []
    assert row.injected
    assert row.results
    assert row.inputs == row.results + row.parked
    assert (row.duplicate_effects, row.lost) == (0, 0)
