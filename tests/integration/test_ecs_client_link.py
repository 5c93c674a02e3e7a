"""The client's link: confirms, replies, time-outs, secrets, forks."""

import asyncio
import gc
import logging
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
import uuid
import weakref
from functools import partial
from urllib.parse import unquote, urlsplit

import pytest
from kombu import Connection, Message, Queue

from ecs_client import (
    AsyncEcsClient,
    BrokerRefused,
    BrokerUnavailable,
    ClientClosed,
    EcsClient,
    EcsError,
    NoAnswer,
    Reply,
    Unroutable,
)
from ecs_client.link import Link
from messages.updates import StatusUpdate
from sandbox.broker import PrivateBroker
from tests.support import REPOSITORY
from tests.support.orders import paid
from tests.support.responder import OK, Answers, Responder
from tests.support.waiting import eventually


def test_a_request_carries_what_it_was_given(declared: str) -> None:
    with Responder(declared) as responder, EcsClient(declared, tenant="t", token=lambda: "x") as c:
        c.call(
            "server.list",
            {"pageNo": 2},
            message_id="key-1",
            deadline=2_000_000_000.7,
            traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01",
            tracestate="a=b",
            headers={"x-mine": 1},
            tenant="other",
        )
        (message,) = responder.requests
        assert message.headers == {
            "x-mine": 1,
            "x-ecs-deadline": "2000000000",
            "traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01",
            "tracestate": "a=b",
        }
        assert message.body in (
            '{"operation":"server.list","tenant_id":"other","token":"x","pageNo":2}',
            b'{"operation":"server.list","tenant_id":"other","token":"x","pageNo":2}',
        )
        properties = message.properties
        assert (properties["message_id"], properties["delivery_mode"]) == ("key-1", 2)
        assert (message.content_type, message.content_encoding) == ("application/json", "utf-8")
        assert abs(properties["timestamp"] - time.time()) < 60
        assert properties["correlation_id"] != "key-1"


def test_no_answer_in_time_is_an_error_that_names_the_key_and_a_late_reply_is_dropped(
    declared: str,
) -> None:
    late = threading.Event()

    def answer(message: Message) -> Answers:
        if message.properties["message_id"] == "slow":
            late.wait(20)
        return [(OK, None), (OK, None), (b"{}", "nobody-knows-it")]

    with Responder(declared, answer), EcsClient(declared, tenant="t") as client:
        with pytest.raises(NoAnswer, match="same message_id is safe") as caught:
            client.call("server.list", message_id="slow", timeout=1.0)
        assert caught.value.message_id == "slow"
        late.set()
        assert client.call("server.list").body == OK
        assert client.call("server.list", message_id="slow").body == OK


def test_what_no_exchange_takes_is_unroutable(vhost: str) -> None:
    with EcsClient(vhost, tenant="t") as client:
        with pytest.raises(Unroutable, match=r"no exchange 'ecs\.commands'"):
            client.call("server.list")
        # The link goes on.
        with pytest.raises(Unroutable, match=r"no exchange 'ecs\.orders'"):
            client.orders.submit(paid("renew"))


def test_what_no_queue_takes_comes_back_before_its_ack(declared: str) -> None:
    with Connection(declared) as connection:
        connection.channel().queue_delete("ecs.orders")
        with EcsClient(declared, tenant="t") as client, pytest.raises(Unroutable, match="no queue"):
            client.orders.submit(paid("renew"))


async def test_what_the_broker_refuses_is_refused_to_its_sender_alone(
    broker: PrivateBroker, declared: str
) -> None:
    user = f"user-{uuid.uuid4().hex[:8]}"
    vhost = unquote(urlsplit(declared).path[1:])
    broker.rabbitmqctl("add_user", user, "secret")
    broker.rabbitmqctl("set_permissions", "--vhost", vhost, user, ".*", ".*", ".*")
    topics = ("ecs.commands", r"^server\.list$", ".*")
    broker.rabbitmqctl("set_topic_permissions", "--vhost", vhost, user, *topics)
    url = urlsplit(declared)
    own = url._replace(netloc=f"{user}:secret@{url.hostname}:{url.port}").geturl()
    with Responder(declared):
        async with AsyncEcsClient(own, tenant="t") as client:
            assert (await client.call("server.list")).body == OK
            names = ["server.list"] * 40
            names[20] = "server.show"
            asked = (client.call(one, {"pageNo": n}) for n, one in enumerate(names))
            ended = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(ended.pop(20), Unroutable)
    assert {one.body if isinstance(one, Reply) else one for one in ended} == {OK}
    broker.rabbitmqctl("delete_user", user)


def test_what_a_full_queue_refuses_is_told_at_once(vhost: str) -> None:
    with Connection(vhost) as connection, connection.channel() as channel:
        channel.exchange_declare("ecs.commands", "topic", durable=True, auto_delete=False)
        full = {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "reject-publish"}
        channel.queue_declare("full", durable=True, auto_delete=False, arguments=full)
        channel.queue_bind("full", "ecs.commands", "#")
        refused: list[EcsError] = []
        with EcsClient(vhost, tenant="t", timeout=1.0) as client:
            for _ in range(20):
                try:
                    client.call("server.list")
                except BrokerUnavailable as error:
                    refused.append(error)
                    break
                except NoAnswer:
                    continue  # the queue took it
        assert "refused the message" in str(refused[0])


def test_without_a_broker_a_request_ends_in_time_and_shows_no_password() -> None:
    url = "amqp://someone:hunter2@127.0.0.1:1/"
    with EcsClient(url, tenant="t", broker_timeout=0.5, token="secret-token") as client:
        began = time.monotonic()
        told = "^no broker at 127.0.0.1:1: Connection refused; nothing was sent$"
        with pytest.raises(BrokerUnavailable, match=told) as caught:
            client.call("server.list")
        assert caught.value.is_unsent
        assert time.monotonic() - began < 10
        assert "hunter2" not in str(caught.value) + repr(client)
        assert "secret-token" not in str(caught.value) + repr(client)


def test_a_process_that_has_no_thread_left_connects_as_soon_as_it_has(
    declared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, refusals = threading.Thread.start, iter(range(3))

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "ecs-client-connect" and next(refusals, None) is not None:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with Responder(declared), EcsClient(declared, tenant="t") as client:
        assert client.call("server.list").body == OK


async def test_what_has_ended_is_held_no_longer_however_long_the_broker_is_away() -> None:
    async with AsyncEcsClient("amqp://127.0.0.1:1/", broker_timeout=0.2) as client:
        tracemalloc.start()
        try:
            for number in range(10):
                asked = (client.call("server.list", b"%d" % number * 100_000) for _ in range(20))
                ended = await asyncio.gather(*asked, return_exceptions=True)
                assert {type(one) for one in ended} == {BrokerUnavailable}
            del ended
            gc.collect()
            assert tracemalloc.get_traced_memory()[0] < 5_000_000
        finally:
            tracemalloc.stop()


def test_a_client_that_the_broker_refuses_is_told_at_once_and_works_when_that_is_mended(
    broker: PrivateBroker, declared: str
) -> None:
    user, parts = f"user-{uuid.uuid4().hex[:8]}", urlsplit(declared)
    address = f"{parts.hostname}:{parts.port}"
    own = parts._replace(netloc=f"{user}:secret@{address}").geturl()
    vhost = unquote(parts.path[1:])
    with Responder(declared), EcsClient(own, tenant="t", broker_timeout=300) as client:
        for told, mend in (
            ("refuses this user and password", ("add_user", user, "secret")),
            (
                f"'{vhost}' refused for user",
                ("set_permissions", "--vhost", vhost, user, ".*", ".*", ".*"),
            ),
        ):
            eventually(lambda: told in (client.problem or ""))  # noqa: B023
            with pytest.raises(BrokerRefused, match=f"the broker at {address}.*{told}"):
                client.call("server.list")
            with pytest.raises(BrokerRefused, match=f"the broker at {address}"):
                next(client.updates())
            broker.rabbitmqctl(*mend)
        eventually(lambda: client.problem is None)
        assert client.call("server.list").body == OK
        eventually(lambda: client.updates().wait_until_consuming(10))
    broker.rabbitmqctl("delete_user", user)


def test_a_password_that_is_changed_under_a_client_ends_what_is_asked_and_no_stream(
    broker: PrivateBroker, declared: str, caplog: pytest.LogCaptureFixture
) -> None:
    user, parts = f"user-{uuid.uuid4().hex[:8]}", urlsplit(declared)
    broker.rabbitmqctl("add_user", user, "secret")
    vhost = unquote(parts.path[1:])
    broker.rabbitmqctl("set_permissions", "--vhost", vhost, user, ".*", ".*", ".*")
    own = parts._replace(netloc=f"{user}:secret@{parts.hostname}:{parts.port}").geturl()
    with (
        Responder(declared),
        EcsClient(own, tenant="t", broker_timeout=300) as client,
        client.updates() as updates,
    ):
        assert updates.wait_until_consuming(10)
        assert client.call("server.list").body == OK
        broker.rabbitmqctl("change_password", user, "another")
        # Open connections stay open, until they break.
        assert client.call("server.list").body == OK
        for link in (client._publisher, client._subscriptions):
            link.post(partial(_break, link))
        eventually(lambda: "password" in (client.problem or ""))
        with pytest.raises(BrokerRefused, match="nothing was sent"):
            client.call("server.list")
        assert updates.next(0.2) is None
        assert "it is tried again" in caplog.text
        assert "secret" not in caplog.text
        broker.rabbitmqctl("change_password", user, "secret")
        eventually(lambda: client.problem is None)
        assert client.call("server.list").body == OK
        assert updates.wait_until_consuming(20)
    broker.rabbitmqctl("delete_user", user)


def test_a_virtual_host_that_is_missing_is_told_at_once(broker: PrivateBroker) -> None:
    with (
        EcsClient(broker.url.rstrip("/") + "/nowhere", broker_timeout=300) as client,
        pytest.raises(BrokerRefused, match=r"vhost nowhere not found; nothing was sent"),
    ):
        client.call("server.list")


def test_one_broker_that_may_come_back_is_waited_for(declared: str) -> None:
    wrong = declared.replace("guest:guest", "guest:hunter2")
    with EcsClient(f"{wrong},amqp://127.0.0.1:1/", broker_timeout=0.5) as client:
        with pytest.raises(BrokerUnavailable, match=r"password.*nothing was sent") as caught:
            client.call("server.list")
        assert not isinstance(caught.value, BrokerRefused)
        assert "no broker at 127.0.0.1:1" in str(caught.value)


def test_streams_end_quietly_whatever_is_under_way(declared: str) -> None:
    program = (
        "import sys\n"
        "from ecs_client import EcsClient\n"
        "with EcsClient(sys.argv[1]) as client:\n"
        "    for number in range(20):\n"
        "        with client.results(prefetch=50) as results:\n"
        "            next(results)\n"
        "        with client.updates(id='1') as updates:\n"
        "            updates.wait_until_consuming(10)\n"
        "            if number % 2:\n"
        "                next(updates)\n"
        "        assert results._reader.subscription.epoch == 1\n"
        "    assert client._subscriptions._failures == 0\n"
    )
    with Connection(declared) as connection:
        producer, ended = connection.Producer(), threading.Event()
        for number in range(500):
            producer.publish({"code": number}, exchange="ecs.results", routing_key="order.renew")
        update = StatusUpdate(
            resource="server",
            id="1",
            operation="server.action",
            action=None,
            status="ACTIVE",
            translation=None,
            final=True,
            message_id=None,
            tenant_id="t",
            user_id=None,
            time="2026-11-26T00:00:00.000Z",
        ).model_dump_json()

        def tell() -> None:
            while not ended.wait(0.001):
                producer.publish(update, exchange="ecs.status", routing_key="server.1")

        telling = threading.Thread(target=tell)
        telling.start()
        done = subprocess.run(
            [sys.executable, "-c", program, declared],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        ended.set()
        telling.join()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://u:p@[::1]:5673/v", "amqp://u:***@[::1]:5673/v"),
        ("amqps://u:p@host", "amqps://u:***@host:5671//"),
    ],
)
def test_a_broker_is_shown_as_a_url_without_password(url: str, shown: str) -> None:
    assert shown in repr(EcsClient(url))


@pytest.mark.parametrize(
    "url",
    [
        "http://host/",
        "amqp://user:hunter2/x@host/",
        "amqp://user:hunter2@host:port/",
        "amqp://user:hun#ter2@host/",
        "amqp://host?heartbeat=hunter2",
    ],
)
def test_a_url_that_cannot_be_read_is_told_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="is written amqp://user:password@host") as caught:
        EcsClient(url)
    assert "hun" not in str(caught.value)


def test_one_of_several_brokers_is_enough(declared: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    dead = declared.replace("guest:guest", "guest:hunter2").replace("127.0.0.1", "127.0.0.9")
    with Responder(declared), EcsClient(f"{dead}, {declared}", tenant="t") as client:
        for _ in range(3):
            assert client.call("server.list", {"token": "eyJsecret"}).body == OK
    assert "hunter2" not in caplog.text
    assert "eyJsecret" not in caplog.text


def test_a_closed_client_says_so_and_closing_twice_is_closing_once(declared: str) -> None:
    client = EcsClient(declared, tenant="t")
    failed: list[EcsError] = []

    def ask() -> None:
        try:
            client.call("server.list")
        except EcsError as error:
            failed.append(error)

    waiting = threading.Thread(target=ask)
    waiting.start()
    with Connection(declared) as connection:
        reads = Queue("ecs.reads", no_declare=True)(connection.channel())
        eventually(lambda: reads.get(no_ack=True) is not None)
    client.close()
    client.close()
    waiting.join(10)
    assert [type(one) for one in failed] == [ClientClosed]
    with pytest.raises(ClientClosed):
        client.call("server.list")
    with pytest.raises(ClientClosed):
        next(client.updates())


def test_a_client_that_nobody_has_any_more_ends_its_thread(declared: str) -> None:
    client = EcsClient(declared, tenant="t")
    with Responder(declared):
        client.call("server.list")
    gone = weakref.ref(client)
    before = threading.active_count()
    del client
    gc.collect()
    assert gone() is None
    eventually(lambda: threading.active_count() < before)


def test_a_program_that_closes_nothing_ends_at_once_and_quietly(declared: str) -> None:
    program = (
        "import sys\n"
        "from ecs_client import EcsClient\n"
        "client = EcsClient(sys.argv[1], tenant='t')\n"
        "updates = client.updates()\n"
        "print(client.call('server.list').http_status)\n"
    )
    with Responder(declared):
        done = subprocess.run(
            [sys.executable, "-c", program, declared],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "200\n", "")


def test_a_forked_child_has_a_connection_of_its_own(declared: str) -> None:
    with Responder(declared), EcsClient(declared, tenant="t") as client:
        assert client.call("server.list").body == OK

        def child() -> None:
            os._exit(0 if client.call("server.list").body == OK else 1)

        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join(30)
        assert process.exitcode == 0
        assert client.call("server.list").body == OK


async def test_a_thousand_requests_are_pipelined_and_a_cancelled_one_is_forgotten(
    declared: str,
) -> None:
    with Responder(declared) as responder:
        async with AsyncEcsClient(declared, tenant="t") as client:
            replies = await asyncio.gather(*(client.call("server.list") for _ in range(1000)))
            assert {one.body for one in replies} == {OK}
            assert len({one.properties["reply_to"] for one in responder.requests}) == 1
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await client.call("image.delete", {"image_id": "x"})
            assert (await client.call("server.list")).body == OK


def test_a_result_whose_handling_fails_comes_again(declared: str) -> None:
    with Connection(declared) as connection:
        producer = connection.Producer()
        for number in range(3):
            producer.publish({"code": number}, exchange="ecs.results", routing_key="order.renew")
    with EcsClient(declared) as client:

        def handle() -> None:
            for result in client.results():
                if result.envelope["code"] == 1:
                    raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            handle()
        with client.results(prefetch=1) as results:
            codes = [next(results).envelope["code"] for _ in range(2)]
            results.ack()
        assert sorted(codes) == [1, 2]
        with client.results() as results:
            assert results.next(1.0) is None


def test_what_amqp_cannot_say_is_refused_and_breaks_nothing(declared: str) -> None:
    with Responder(declared) as responder, EcsClient(declared, tenant="t") as client:
        assert client.call("server.list").body == OK
        for options in (
            {"message_id": "x" * 300},
            {"headers": {"a": object()}},
            {"headers": {"x" * 300: "a"}},
            {"tracestate": object()},
        ):
            with pytest.raises(ValueError, match="cannot be written"):
                client.call("server.list", **options)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="cannot be written"):
            client.call("server." + "x" * 300)
        with pytest.raises(ValueError, match="not JSON compliant"):
            client.call("server.list", {"pageNo": float("nan")})
        assert client.call("server.list").body == OK
        assert len({one.properties["reply_to"] for one in responder.requests}) == 1


def test_a_subscription_that_amqp_cannot_say_is_refused_and_breaks_no_other(declared: str) -> None:
    with EcsClient(declared) as client, client.updates() as updates:
        assert updates.wait_until_consuming(10)
        for wrong in ("x" * 300, "\ud800"):
            with pytest.raises(ValueError, match=r"longer than 255 bytes|surrogates"):
                client.updates(id=wrong)
            with pytest.raises(ValueError, match=r"longer than 255 bytes|surrogates"):
                next(client.orders.follow(wrong))
        assert updates.next(0.5) is None
        assert updates._reader.subscription.epoch == 1


def test_what_is_not_there_to_be_consumed_is_told(vhost: str) -> None:
    with EcsClient(vhost) as client:
        with pytest.raises(BrokerUnavailable, match=r"no queue 'ecs\.order-results'"):
            next(client.results())
        with pytest.raises(BrokerUnavailable, match=r"no exchange 'ecs\.status'"):
            next(client.updates())


def test_a_broken_link_publishes_again_what_is_unanswered_under_the_same_key(declared: str) -> None:
    answered = threading.Event()

    def answer(message: Message) -> Answers:
        return [(OK, None)] if answered.is_set() else []

    with Responder(declared, answer) as responder, EcsClient(declared, tenant="t") as client:
        thread = threading.Thread(target=client.call, args=("server.list",))
        thread.start()
        eventually(lambda: len(responder.requests) == 1)
        answered.set()
        link = client._publisher
        link.post(partial(_break, link))
        thread.join(20)
        assert not thread.is_alive()
        first, *rest = (one.properties for one in responder.requests)
        assert {one["message_id"] for one in rest} == {first["message_id"]}
        assert rest[0]["reply_to"] != first["reply_to"]


def _break(link: Link) -> None:
    link.connection.sock.shutdown(socket.SHUT_RDWR)
