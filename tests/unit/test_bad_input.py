"""Every message of the corpus as intake reads it: what is wrong is named, what is right is a
request.
"""

import time
from dataclasses import replace
from typing import Any

import pytest

from messages.codes import Code
from messages.errors import Refused
from sandbox.documents import REGION
from tests.support import amqp
from tests.support.corpus import Case, Fate, cases
from tests.support.names import queue_for
from workers.amqp.envelope import Envelope
from workers.pipeline.exits import Ignored, Rejected
from workers.pipeline.parsing import parse
from workers.request import Request

CASES = [case for case in cases() if case.fate is not Fate.UNROUTABLE]
#: Seconds of CPU time for one message, on a slow machine; quadratic time would take
#: minutes.
LIMIT = 5.0


def envelope(case: Case, **more: Any) -> Envelope:
    queue = queue_for(case.exchange, case.routing_key)
    given = {"content_type": "application/json", "message_id": "m-1", **case.properties, **more}
    return amqp.delivered(queue, case.exchange, case.routing_key, case.body, given)


def test_no_two_cases_are_the_same() -> None:
    names = [case.name for case in cases()]
    assert sorted({name for name in names if names.count(name) > 1}) == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_wrong_is_named_and_what_is_right_is_a_request(case: Case) -> None:
    started = time.process_time()
    found: Any
    try:
        found = parse(envelope(case), REGION)
    except Rejected as unfit:
        found = unfit
    except Ignored:
        found = None
    assert time.process_time() - started < LIMIT
    if case.fate is Fate.IGNORED:
        assert found is None
    elif case.fate in (Fate.RIGHT, Fate.NOBODYS):
        assert isinstance(found, Request), getattr(found, "refused", None)
        assert found.operation == case.operation
    else:
        assert isinstance(found, Rejected)
        assert (found.refused.code, found.refused.subject) == (Code.PARAMETER, case.subject)
        assert (found.operation, found.is_order) == (case.operation, case.is_order)


def test_forged_counters_count_only_where_they_can_come_from() -> None:
    headers = {"x-ecs-attempts": amqp.integer(3), "x-ecs-first-seen": amqp.integer(1_700_000_000)}
    for exchange, counted in (("ecs.commands", 0), ("ecs.orders", 0), ("", 3)):
        found = amqp.delivered("ecs.orders", exchange, "ecs.orders", b"{}", {"headers": headers})
        found = replace(found, arrived=1_800_000_000.0)
        assert found.attempts == counted
        assert found.first_seen == (1_700_000_000.0 if counted else 1_800_000_000.0)


def test_a_refusal_is_one_of_the_contracts_own_words() -> None:
    assert Code.PARAMETER.text_for("server_id") == "参数server_id不符合规范"
    assert Refused(Code.PARAMETER, "x").code.http == 400
