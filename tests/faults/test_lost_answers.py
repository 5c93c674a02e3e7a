"""Every kind of effect with every answer lost on its way (faults 46..48, 52): done once, and told
as it is.
"""

import re
from typing import Any

import pytest

from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester
from tests.support.invariants import await_ends, check
from tests.support.kinds import FEW, Asked, Kind, ask_all, unsubscribe
from tests.support.stage import dying, settled
from tests.support.workshop import Workshop

pytestmark = pytest.mark.slow

#: Not of a locked server: whether its deletion was refused, or is still to come, nobody could tell.
UNSUBSCRIBE = Kind("unsubscribe", unsubscribe("unsubscribe", "delete:", locked=False))
SPOILED = [kind for kind in FEW if kind.name != "unsubscribe"] + [UNSUBSCRIBE]
#: Of transport: a time-out that a test can wait for.
QUICK = {"call_timeout": 1.5}


def spoil(cloud: SimulatedOpenStack, asked: Asked, **fault: Any) -> None:
    """Spoil the answer of each call that the request makes to change something, once."""
    for pattern in asked.calls:
        found = re.fullmatch(r"(\w+) (\w+) (\S+?)( .*)?\$?", pattern)
        assert found is not None
        service, method, path = found[1], found[2], found[3].removesuffix("$")
        cloud.fault(f"api.{service}", match=f"^{method} {path}", times=1, **fault)


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500, "error": "database is away", "after": True},
        {"status": 500, "error": "database is away"},
        {"status": 503, "error": "overloaded", "retry_after": "1"},
        {"status": 504, "error": "gateway time-out", "after": True},
        {"answer": "html", "after": True},
        {"answer": "hangup", "after": True},
        {"delay": 4, "after": True},
        {"delay": 4},
    ],
    ids=lambda fault: "-".join(
        str(fault.get(name)) for name in ("status", "answer", "delay", "after")
    ),
)
def test_an_effect_whose_answer_is_lost_is_done_once(
    workshop: Workshop, simulated: SimulatedOpenStack, fault: Any
) -> None:
    tenant = workshop.tenant()
    asked = ask_all(SPOILED, tenant, simulated)
    for one in asked:
        spoil(simulated, one, **fault)
    dying(workshop, [], cloud=QUICK)
    with Requester(workshop.broker_url) as requester:
        for one in asked:
            one.publish(requester)
        await_ends(requester, asked)
        settled(workshop, requester)
        check(requester.heard, asked, tenant, simulated.executed())
        assert requester.depth("ecs.dead") == 0
