"""`ecs-worker call` and `ecs-worker order` before a real broker, a real worker and the simulated
cloud.
"""

import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from kombu import Connection

from ecs_client import BrokerUnavailable
from sandbox.broker import PrivateBroker
from sandbox.openstack import SimulatedOpenStack
from tests.support.orders import paid
from tests.support.responder import Responder
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology
from workers.cli.call import _failed
from workers.settings import load_publisher_settings

#: Neither journal nor cloud nor authentication need to be configured.
ALONE = {"ECS_JOURNAL_URL": "mysql://", "OS_CLOUD": "", "ECS_TRUST_PUBLISHERS": ""}


@pytest.fixture(scope="module")
def shop(
    broker: PrivateBroker, simulated: SimulatedOpenStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workshop]:
    """One worker for all tests of this module."""
    folder = tmp_path_factory.mktemp("call")
    url = broker.add_vhost(folder.name)
    declare(url, topology())
    with Workshop(url, simulated, folder) as found:
        found.worker()
        yield found


def run(shop: Workshop, *words: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    return shop.command(*words, **ALONE | settings)


def test_a_call_prints_the_envelope_and_ends_with_0_or_5(shop: Workshop) -> None:
    asked = ("call", "server.list", "--tenant", "tenant-a", "-p", "pageSize=5")
    done = run(shop, *asked, "-o", "json")
    (envelope,) = json.loads(done.stdout)
    assert (done.returncode, envelope["code"], done.stderr) == (0, 200, "")
    table = run(shop, *asked, "--message-id", "my-key")
    assert "200 OK" in table.stdout
    assert "my-key" in table.stdout
    missing = ("call", "server.show", "-p", f"server_id={uuid.uuid4()}", "--tenant", "tenant-a")
    failed = run(shop, *missing, "-o", "jsonl")
    assert (failed.returncode, json.loads(failed.stdout)["code"]) == (5, "101.001033")


def test_a_body_is_json_or_a_file_and_one_key_is_one_request(shop: Workshop) -> None:
    server_id = shop.tenant().make_server(disk=None)
    (shop.folder / "body.json").write_text('{"reboot": {"type": "SOFT"}}')
    asked = ("call", "server.action", "-p", f"server_id={server_id}", "--tenant", "tenant-a")
    keyed = (*asked, "--message-id", uuid.uuid4().hex)
    first = run(shop, *keyed, "--body", "body.json", "-o", "jsonl")
    again = run(shop, *keyed, "--body", '{"reboot": {"type": "SOFT"}}', "-o", "jsonl")
    assert (first.returncode, first.stdout) == (0, again.stdout)
    assert shop.tenant().actions(server_id).count("reboot") == 1


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("call", "server.list", "-p", "pageSize"), "-p takes name=value, not pageSize"),
        (("call", "server.list", "-p", "token=x"), "ECS_TOKEN or --token-file"),
        (("call", "server.list", "--body", "no-file"), "nor the name of a file with JSON: no-file"),
        (("call", "server.list", "--body", "{"), "--body is no JSON: Expecting"),
        (("call", "server.list", "--body", "x" * 5000), "File name too long"),
        (("call", "server.lst"), "no operation server.lst; did you mean server.list"),
        (("call", "nothing"), "there are server.action, server.batch_action, "),
        (("call", "order.renew"), "ecs-worker order FILE"),
        (("order", "no-file"), "no-file cannot be read"),
    ],
)
def test_what_cannot_be_sent_is_told_before_anything_is_sent(
    shop: Workshop, words: tuple[str, ...], complaint: str
) -> None:
    done = run(shop, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr


def test_without_a_broker_or_an_answer_it_is_told_what_to_do(shop: Workshop, vhost: str) -> None:
    asked = [
        "call",
        "server.list",
        "--tenant",
        "tenant-a",
        "--message-id",
        "my-key",
        "--timeout",
        "1",
    ]
    url = "amqp://someone:hunter2@127.0.0.1:1/"
    away = run(shop, *asked, ECS_BROKER_URL=url, ECS_TOKEN="secret-token")
    text = "ECS_BROKER_URL: no broker at 127.0.0.1:1: Connection refused; nothing was sent"
    assert (away.returncode, away.stdout, away.stderr.strip()) == (4, "", text)
    nobody = run(shop, *asked, ECS_BROKER_URL=vhost)
    assert nobody.returncode == 4
    assert "no exchange 'ecs.commands'" in nobody.stderr
    assert "Nothing was done (ECS_NAMESPACE: ecs)" in nobody.stderr
    declare(vhost, topology())
    silent = run(shop, *asked, ECS_BROKER_URL=vhost)
    assert silent.returncode == 4
    assert "no answer came in time" in silent.stderr
    assert "--message-id my-key" in silent.stderr


def test_the_url_that_counts_where_none_is_set_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ECS_BROKER_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    error = BrokerUnavailable("no broker at 127.0.0.1:5672; nothing was sent", is_unsent=True)
    told = str(_failed(error, load_publisher_settings(), ""))
    assert "Neither the environment nor .env here sets it" in told
    monkeypatch.setenv("ECS_BROKER_URL", "amqp://127.0.0.1/")
    assert "default" not in str(_failed(error, load_publisher_settings(), ""))


@pytest.mark.parametrize("words", [("call", "server.list"), ("order", "order.json")])
def test_a_wrong_password_ends_a_command_at_once(shop: Workshop, words: tuple[str, ...]) -> None:
    (shop.folder / "order.json").write_text(json.dumps(paid("renew")))
    parts = urlsplit(shop.broker_url)
    address = f"{parts.hostname}:{parts.port}"
    url = parts._replace(netloc=f"guest:hunter2@{address}").geturl()
    # Far from the time limit of the broker, which is 10 s.
    done = run(shop, *words, ECS_BROKER_URL=url)
    text = f"ECS_BROKER_URL: the broker at {address} refuses this user and password"
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.strip() == f"{text}; nothing was sent"


def ordered(shop: Workshop, order: Any, *words: str) -> "subprocess.CompletedProcess[str]":
    (shop.folder / "order.json").write_text(order if isinstance(order, str) else json.dumps(order))
    return run(shop, "order", "order.json", "-o", "jsonl", *words)


def test_an_order_is_followed_on_stderr_and_its_result_is_on_stdout(shop: Workshop) -> None:
    server_id = shop.tenant().make_server(disk=None)
    order = paid("unsubscribe", server_id)
    done = ordered(shop, order)
    result = json.loads(done.stdout)
    assert (done.returncode, result["code"]) == (0, 200), done.stderr
    assert result["data"]["orderId"] == order["orderId"]
    told = [line.split()[3] for line in done.stderr.splitlines()]
    assert (told[0], told[-1]) == ("accepted", "succeeded")
    assert done.stderr.splitlines()[-1].endswith("100%")


def test_an_order_that_fails_ends_with_5_and_what_is_none_with_2(shop: Workshop) -> None:
    failed = ordered(shop, paid("renew", str(uuid.uuid4())))
    assert (failed.returncode, json.loads(failed.stdout)["code"]) == (5, "101.001033")
    unpaid = paid("renew") | {"orderStatus": "unpaid"}
    nameless = paid("renew") | {"orderId": "x" * 300}
    for wrong in ("{", "[]", "{}", unpaid, nameless):
        done = ordered(shop, wrong)
        assert (done.returncode, done.stdout) == (2, "")
        assert "order.json" in done.stderr


def test_an_order_whose_updates_are_not_heard_still_has_its_result(
    shop: Workshop, vhost: str
) -> None:
    declare(vhost, topology())
    with Connection(vhost) as connection, Responder(vhost, queues=("orders",)):
        connection.default_channel.exchange_delete("ecs.status")
        (shop.folder / "order.json").write_text(json.dumps(paid("renew")))
        done = run(shop, "order", "order.json", "-o", "jsonl", ECS_BROKER_URL=vhost)
    assert (done.returncode, json.loads(done.stdout)["code"]) == (0, 200), done.stderr
    assert "no exchange 'ecs.status'" in done.stderr
