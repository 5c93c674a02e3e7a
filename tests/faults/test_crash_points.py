"""Workers killed by SIGKILL at each instant, with every kind of effect under way (faults 1..10)."""

import pytest

from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester
from tests.support.dying_worker import Hold, Instant
from tests.support.invariants import await_ends, check
from tests.support.kinds import KINDS, Kind, ask_all
from tests.support.stage import await_held, dying, settled
from tests.support.workshop import Workshop

pytestmark = pytest.mark.slow


def kinds_for(instant: Instant) -> list[Kind]:
    return [kind for kind in KINDS if kind.waits or instant is not Instant.WAITING]


@pytest.mark.parametrize("instant", [one for one in Instant if one is not Instant.EFFECT_NOT_BEGUN])
def test_every_kind_of_effect_is_done_once_though_the_worker_is_killed(
    workshop: Workshop, simulated: SimulatedOpenStack, instant: Instant
) -> None:
    tenant = workshop.tenant()
    asked = ask_all(kinds_for(instant), tenant, simulated)
    # They wait for each other at their instants, and on a busy machine long: no command is to be
    # answered for that. Each may be held in a call, and one tenant does not get all places.
    patient = {"ECS_COMMAND_TIMEOUT": "150", "ECS_OPENSTACK_THREADS": str(2 * len(asked))}
    worker = dying(
        workshop, [Hold(one.message_id, instant, one.effect) for one in asked], **patient
    )
    with Requester(workshop.broker_url) as requester:
        for one in asked:
            one.publish(requester)
        await_held(workshop, worker)
        workshop.worker(**patient)
        await_ends(requester, asked)
        settled(workshop, requester)
        check(requester.heard, asked, tenant, simulated.executed())
        assert requester.depth("ecs.dead") == 0
