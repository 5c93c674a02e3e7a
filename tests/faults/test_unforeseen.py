"""Errors that nobody foresaw, in handlers, on the way to them and in what the cloud answers: each
has its one result.

Each message is parked as well, and the next is handled as ever.
"""

import json
import uuid
from collections import Counter
from collections.abc import Iterator

import pytest

from sandbox.broker import PrivateBroker
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester, Source
from tests.support.orders import paid, publish
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology

pytestmark = pytest.mark.slow

INTERNAL = ("101.001040", {"reason": "internal"})


@pytest.fixture(scope="module")
def failing(
    broker: PrivateBroker, simulated: SimulatedOpenStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workshop]:
    folder = tmp_path_factory.mktemp("failing")
    url = broker.add_vhost(folder.name)
    declare(url, topology())
    with Workshop(url, simulated, folder) as workshop:
        workshop.worker(module="tests.support.failing_worker", ECS_RETRY_DELAYS="1")
        yield workshop


def parked(requester: Requester, number: int) -> None:
    eventually(lambda: requester.depth("ecs.dead") == number, 90)
    requester.listen(1.0)
    assert "hunter2" not in json.dumps(requester.take_all("ecs.dead"))


def results(requester: Requester, message_id: str) -> list[tuple[object, object]]:
    """Code and data of every result of a request."""
    return [
        (one.body["code"], one.body["data"])
        for one in requester.heard
        if one.source is not Source.STATUS and one.correlation_id == message_id
    ]


@pytest.mark.parametrize("how", ["raises", "unwritable", "half a pair", "unwritable update"])
def test_a_command_has_one_result_and_is_parked(failing: Workshop, how: str) -> None:
    with Requester(failing.broker_url) as requester:
        fields = {"server_id": str(uuid.uuid4()), "tags": how}
        message_id = requester.command("server.tags.update", **fields)
        requester.result_of(message_id, 60)
        parked(requester, 1)
        assert results(requester, message_id) == [INTERNAL]
        # The same when it comes again, and nobody is asked twice.
        requester.command("server.tags.update", message_id=message_id, **fields)
        eventually(
            lambda: len(results(requester, message_id)) == 2 or bool(requester.listen(0.2)), 60
        )
        assert set(map(str, results(requester, message_id))) == {str(INTERNAL)}
        assert requester.depth("ecs.dead") == 0


def test_a_read_has_one_result_and_is_parked(failing: Workshop) -> None:
    with Requester(failing.broker_url) as requester:
        sent = [
            requester.command("server.list", searchValue=how) for how in ("raises", "half a pair")
        ]
        for message_id in sent:
            requester.result_of(message_id, 60)
        parked(requester, 2)
        assert [results(requester, one) for one in sent] == [[INTERNAL], [INTERNAL]]


def test_every_log_line_of_a_request_has_its_five_fields(failing: Workshop) -> None:
    with Requester(failing.broker_url) as requester:
        fields = {"server_id": str(uuid.uuid4()), "tags": "raises"}
        sent = [
            requester.command("server.tags.update", **fields),
            requester.command("server.tags.update", server_id="none"),
            requester.command("server.list", searchValue="raises"),
            publish(requester, paid("renew", str(uuid.uuid4()), orderRoute="RDS")),
        ]
        for message_id in sent:
            requester.wait(lambda one, wanted=message_id: one.correlation_id == wanted, 60)
        parked(requester, 3)
    lines = [json.loads(line) for line in failing.logs().splitlines()]
    for message_id in sent:
        own = [one for one in lines if one.get("message_id") == message_id]
        assert own
        for line in own:
            assert {"request", "operation", "tenant", "attempt"} <= line.keys(), line


def test_what_was_answered_stays_the_answer(failing: Workshop) -> None:
    with Requester(failing.broker_url) as requester:
        fields = {"server_id": str(uuid.uuid4()), "tags": "answered"}
        message_id = requester.command("server.tags.update", **fields)
        parked(requester, 1)
        # It is run again for its course, and may tell the same again: as a copy, known by its id.
        assert set(map(str, results(requester, message_id))) == {str((200, {"first": True}))}
        heard = [one for one in requester.heard if one.correlation_id == message_id]
        assert (
            len({one.properties["message_id"] for one in heard if one.source is Source.REPLY}) == 1
        )


@pytest.mark.parametrize("how", ["raises", "unwritable"])
def test_an_order_has_one_result_and_its_final_update(failing: Workshop, how: str) -> None:
    with Requester(failing.broker_url) as requester:
        order = paid("renew", str(uuid.uuid4()), billType=how, duration="1", durationUnit="M")
        message_id = publish(requester, order)
        result = requester.order_result_of(message_id, 90).body
        assert (result["code"], result["data"]["reason"]) == ("101.001040", "internal")
        assert requester.last_update_of("order", message_id).body["status"] == "failed"
        parked(requester, 1)
        assert len(results(requester, message_id)) == 1
        told = Counter(one.is_final for one in requester.updates_of(message_id))
        assert told[True] == 1
        assert told[False] >= 1


@pytest.mark.parametrize(
    ("operation", "match", "fields"),
    [
        ("server.show", "GET .*/servers/", {"server_id": str(uuid.uuid4())}),
        ("image.list", "GET .*/images", {}),
        ("image.delete", "GET .*/images/", {"image_id": str(uuid.uuid4())}),
        (
            "server.action",
            "GET .*/servers",
            {"server_id": str(uuid.uuid4()), "body": {"os-stop": None}},
        ),
    ],
)
def test_a_cloud_that_answers_in_another_shape_has_one_result(
    failing: Workshop,
    simulated: SimulatedOpenStack,
    operation: str,
    match: str,
    fields: dict[str, object],
) -> None:
    for api in ("api.nova", "api.glance"):
        simulated.fault(api, match=match, answer="another")
    with Requester(failing.broker_url) as requester:
        message_id = requester.command(operation, **fields)
        result = requester.result_of(message_id, 60).body
        assert result["code"] == "101.001040"
        simulated.clear_faults()
        well = requester.command("server.list", searchValue="well")
        assert requester.result_of(well, 60).body["data"] == {"well": True}
        requester.listen(1.0)
        assert len(results(requester, message_id)) == 1
        was_internal = result["data"]["reason"] == "internal"
        eventually(lambda: requester.depth("ecs.dead") == int(was_internal))
        requester.take_all("ecs.dead")
