"""Tests where results may go: the reply queues that the operator allows, and a console's URL
nowhere else.
"""

import json
import time
import uuid
from collections.abc import Iterator

import pytest
from kombu import Connection, Exchange, Queue

from sandbox.requester import Requester
from tests.support.waiting import eventually
from tests.support.workshop import Workshop

PARAMETER, UNKNOWN = "101.001002", "101.001033"


@pytest.fixture
def listened(workshop: Workshop) -> Iterator[Queue]:
    """A queue bound to all of `ecs.results`, as anybody's who may read there."""
    with Connection(workshop.broker_url) as connection:
        queue = Queue(
            f"listens-{uuid.uuid4().hex}",
            Exchange("ecs.results", "topic", no_declare=True),
            "#",
            durable=True,
        )(connection.channel())
        queue.declare()
        yield queue


def taken(queue: Queue, number: int, seconds: float = 15.0) -> list[str]:
    """Wait for so many messages in a queue, and take them all out; the bodies."""
    found: list[str] = []

    def has_come() -> bool:
        while (message := queue.get(no_ack=True)) is not None:
            body = message.body
            found.append(body if isinstance(body, str) else bytes(body).decode())
        return len(found) >= number

    eventually(has_come, seconds)
    return found


def test_a_reply_queue_that_the_pattern_does_not_allow_is_refused_and_the_message_parked(
    workshop: Workshop, listened: Queue
) -> None:
    workshop.worker(ECS_REPLY_QUEUES=r"requester-[0-9a-f]{32}-replies")
    with Requester(workshop.broker_url) as requester:
        absent = str(uuid.uuid4())
        allowed = requester.command("server.show", server_id=absent)
        assert requester.result_of(allowed).body["code"] == UNKNOWN
        for name in (
            "billing-replies",
            requester.reply_to + "x",
            "x" + requester.reply_to,
            "amq.rabbitmq.reply-to",
        ):
            if name.startswith("amq."):
                continue  # the broker takes it from whoever consumes from it alone
            requester.command("server.show", server_id=absent, reply_to=name)
        answers = taken(listened, 3)
        assert all(PARAMETER in one and "reply_to" in one for one in answers), answers
        eventually(lambda: requester.depth("ecs.dead") == 3)


def test_the_workers_own_queues_take_no_results_though_the_pattern_allows_them(
    workshop: Workshop, listened: Queue
) -> None:
    workshop.worker(ECS_REPLY_QUEUES=".*")
    with Requester(workshop.broker_url) as requester:
        for name in ("ecs.orders", "ecs.dead", "ecs.retry.5"):
            requester.command("server.show", server_id=str(uuid.uuid4()), reply_to=name)
        assert all(PARAMETER in one for one in taken(listened, 3))
        eventually(lambda: requester.depth("ecs.dead") == 3)


def test_a_consoles_url_goes_to_its_reply_queue_or_nowhere(
    workshop: Workshop, listened: Queue
) -> None:
    """Whoever may read `ecs.results` would get into the server."""
    server_id = workshop.tenant().make_server(disk=None)
    workshop.worker()
    console = {"server_id": server_id, "body": {"os-getVNCConsole": {"type": "novnc"}}}
    with Requester(workshop.broker_url) as requester:
        told = requester.result_of(requester.command("server.action", **console)).body
        assert told["code"] == 200
        assert "token" in told["data"]["console"]["url"]
        # Without a queue: refused before Nova is asked.
        requester.command("server.action", reply_to=None, **console)
        (answer,) = taken(listened, 1)
        assert (PARAMETER in answer, "token" in answer) == (True, False)
        # A queue that takes nothing: the URL is not told elsewhere instead.
        with Connection(workshop.broker_url) as connection:
            full = Queue(
                f"full-{uuid.uuid4().hex}",
                durable=True,
                queue_arguments={"x-max-length": 1, "x-overflow": "reject-publish"},
            )(connection.channel())
            full.declare()
            connection.Producer().publish("x", exchange="", routing_key=full.name)
            shown = requester.command("server.show", server_id=server_id, reply_to=full.name)
            requester.command("server.action", reply_to=full.name, **console)
            assert shown
            answers = taken(listened, 1)
            requester.listen(3)
            answers += taken(listened, 0)
        assert [one for one in answers if "console" in one] == []


def test_a_reply_queue_that_is_away_for_a_moment_gets_its_results(workshop: Workshop) -> None:
    """A classic queue is away while its node restarts (fault 75): the broker returns what goes
    there.
    """
    workshop.worker()
    with (
        Requester(workshop.broker_url) as requester,
        Connection(workshop.broker_url) as connection,
    ):
        queue = Queue(f"restarts-{uuid.uuid4().hex}", durable=True)(connection.channel())
        for _ in range(20):
            requester.command("server.show", server_id=str(uuid.uuid4()), reply_to=queue.name)
        eventually(lambda: requester.depth("ecs.reads") == 0)
        time.sleep(1.5)  # it is away for so long
        queue.declare()
        assert all(UNKNOWN in one for one in taken(queue, 20))
        assert "reply.nobody_waits" not in workshop.logs()
        queue.delete()


def test_results_whose_reply_queue_is_gone_go_to_the_results_exchange_and_hold_up_nobody(
    workshop: Workshop, listened: Queue
) -> None:
    workshop.worker(ECS_CONCURRENCY="2")
    with Requester(workshop.broker_url) as requester:
        gone = [
            requester.command("server.show", server_id=str(uuid.uuid4()), reply_to="gone")
            for _ in range(30)
        ]
        after = requester.command("server.show", server_id=str(uuid.uuid4()))
        assert requester.result_of(after).body["code"] == UNKNOWN
        # Answered while they still wait for their queue.
        assert "reply.nobody_waits" not in workshop.logs()
        answers = [
            one for one in taken(listened, len(gone), 60) if json.loads(one)["code"] == UNKNOWN
        ]
        assert len(answers) == len(gone)
        # What is known to be gone is waited for no more.
        requester.command("server.show", server_id=str(uuid.uuid4()), reply_to="gone")
        taken(listened, 1, 5)
