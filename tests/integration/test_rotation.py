"""docs/operations/rotate.md: passwords and keys are changed under traffic. Every request has its
result, and nothing is dead-lettered.
"""

import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from amqp.exceptions import AccessRefused
from kombu import Connection

from sandbox.broker import PrivateBroker
from sandbox.issuer import USER, Issuer, KeySetServer
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester
from tests.support.traffic import Traffic
from tests.support.workshop import Workshop

FIRST, SECOND = "canary-of-may", "canary-of-june"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture
def own_cloud() -> Iterator[SimulatedOpenStack]:
    with SimulatedOpenStack(pace=0.2) as cloud:
        yield cloud


class Account:
    """A RabbitMQ user of the workers' own; the tests' requester is another one."""

    def __init__(self, broker: PrivateBroker, vhost: str) -> None:
        self.name = f"ecs-{uuid.uuid4().hex[:8]}"
        self._broker, self._vhost = broker, vhost
        self._name_of_vhost = vhost.rpartition("/")[2]
        broker.rabbitmqctl("add_user", self.name, FIRST)
        full = ("^ecs\\.", ".*", ".*")
        broker.rabbitmqctl("set_permissions", "-p", self._name_of_vhost, self.name, *full)

    def url(self, password: str) -> str:
        """The AMQP URL with this password."""
        return self._vhost.replace("guest:guest", f"{self.name}:{password}")

    def change(self, password: str) -> None:
        """Have the broker know another password."""
        self._broker.rabbitmqctl("change_password", self.name, password)

    def drop_connections(self) -> None:
        """Close the user's connections, as a restart of the node would."""
        self._broker.rabbitmqctl("close_all_user_connections", self.name, "rotated")

    def is_let_in(self, password: str) -> bool:
        """Return whether the broker takes the password."""
        try:
            with Connection(self.url(password), connect_timeout=5) as connection:
                connection.connect()
        except AccessRefused:
            return False
        return True


@pytest.fixture
def account(broker: PrivateBroker, vhost: str) -> Iterator[Account]:
    found = Account(broker, vhost)
    yield found
    broker.rabbitmqctl("delete_user", found.name)


def replace(file: Path, text: str) -> None:
    """Write a file anew, so that nobody reads half of it."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o600)
    new.replace(file)


def everything_is_answered(traffic: Traffic, requester: Requester) -> None:
    everything = [*traffic.reads, *traffic.reboots, *traffic.tags, *traffic.orders]
    requester.wait(lambda _: all(map(traffic.answers, everything)), 60)
    for message_id, server_id in traffic.reboots.items():
        requester.last_update_of("server", message_id, resource_id=server_id)
    codes = {one: {answer.body["code"] for answer in traffic.answers(one)} for one in everything}
    assert codes == {one: {200} for one in everything}
    for one in (*traffic.reboots, *traffic.tags, *traffic.orders):
        assert len({answer.properties["message_id"] for answer in traffic.answers(one)}) == 1
    assert [requester.depth(one) for one in ("ecs.dead", "ecs.undelivered")] == [0, 0]


def nothing_was_done_twice(traffic: Traffic, shop: Workshop, servers: list[str]) -> None:
    for server_id in servers:
        asked = [one for one in traffic.reboots.values() if one == server_id]
        assert shop.tenant().actions(server_id) == ["create", *["reboot"] * len(asked)]


def test_the_brokers_password_is_changed_in_its_file_without_a_restart(
    vhost: str, own_cloud: SimulatedOpenStack, tmp_path: Path, account: Account
) -> None:
    secret = tmp_path / "broker-url"
    replace(secret, account.url(FIRST))
    with Workshop(vhost, own_cloud, tmp_path) as shop:
        del shop.settings["ECS_BROKER_URL"]
        shop.settings["ECS_BROKER_URL_FILE"] = str(secret)
        servers = shop.tenant().make_servers(4)
        renewed = [shop.tenant().make_server(disk=None) for _ in range(3)]
        worker = shop.worker()
        with Requester(vhost) as requester:
            traffic = Traffic(requester, servers, renewed)
            traffic.renew()
            traffic.until(lambda: len(requester.heard) > 20, 30)
            # The connections that there are stay: the broker asks for a password at log-in alone.
            account.change(SECOND)
            assert not account.is_let_in(FIRST)
            traffic.renew()
            heard = len(requester.heard)
            traffic.until(lambda: len(requester.heard) > heard + 20, 30)
            replace(secret, account.url(SECOND))
            account.drop_connections()
            lost = "connection.down"
            traffic.until(lambda: lost in shop.logs() and not worker.problems(), 60)
            traffic.renew()
            for _ in range(3):
                traffic.ask()
            everything_is_answered(traffic, requester)
        nothing_was_done_twice(traffic, shop, servers)
        assert "ACCESS_REFUSED" not in shop.logs()
        assert shop.command("check").returncode == 0
        assert not [one for one in (FIRST, SECOND) if one in shop.logs()]


def test_the_brokers_password_is_changed_by_replacing_the_workers(
    vhost: str, own_cloud: SimulatedOpenStack, tmp_path: Path, account: Account
) -> None:
    with Workshop(vhost, own_cloud, tmp_path) as shop:
        shop.settings["ECS_BROKER_URL"] = account.url(FIRST)
        servers = shop.tenant().make_servers(4)
        renewed = [shop.tenant().make_server(disk=None) for _ in range(2)]
        old = [shop.worker(), shop.worker()]
        with Requester(vhost) as requester:
            traffic = Traffic(requester, servers, renewed)
            traffic.renew()
            traffic.until(lambda: len(requester.heard) > 20, 30)
            account.change(SECOND)
            shop.settings["ECS_BROKER_URL"] = account.url(SECOND)
            for one in old:
                new = shop.worker(wait=False)
                traffic.until(lambda new=new: not new.problems(), 60)
                one.signal(signal.SIGTERM)
                traffic.until(lambda one=one: not one.alive, 60)
            traffic.renew()
            account.drop_connections()
            for _ in range(5):
                traffic.ask()
            everything_is_answered(traffic, requester)
        nothing_was_done_twice(traffic, shop, servers)


class Bearers(Traffic):
    """Traffic of a user who shows a token with each request."""

    def __init__(self, issuer: Issuer, *given: Any) -> None:
        super().__init__(*given)
        self._issuer = issuer
        self.kids: dict[str, int] = {}

    def fields(self) -> dict[str, Any]:
        """A fresh token, signed with the key that the issuer signs with now."""
        self.kids[self._issuer.kid] = self.kids.get(self._issuer.kid, 0) + 1
        token = self._issuer.token(project="tenant-a")
        return {"tenant": None, "user_id": USER, "token": token}


@pytest.mark.parametrize("source", ["file", "url"])
def test_the_signing_keys_are_changed_with_an_overlap(
    vhost: str, own_cloud: SimulatedOpenStack, tmp_path: Path, source: str
) -> None:
    issuer = Issuer()
    with KeySetServer(issuer) as server, Workshop(vhost, own_cloud, tmp_path) as shop:
        file = issuer.write(tmp_path / "keys.json")
        shop.settings |= {
            "ECS_TRUST_PUBLISHERS": "false",
            "ECS_JWT_JWKS": str(file) if source == "file" else server.url,
        }
        servers = shop.tenant().make_servers(4)
        worker = shop.worker()
        with Requester(vhost) as requester:
            traffic = Bearers(issuer, requester, servers, [])
            traffic.until(lambda: len(requester.heard) > 20, 30)
            first = issuer.kid
            # 1. The new key is in the set beside the old one, which signs on.
            second = issuer.rotate()
            issuer.kid = first
            replace(file, issuer.key_set().decode())
            traffic.until(lambda: traffic.kids[first] > 40, 30)
            # 2. The new key signs; what was signed with the old one is still on its way.
            waiting = [requester.command("server.list", **traffic.fields()) for _ in range(5)]
            issuer.kid = second
            traffic.until(lambda: traffic.kids.get(second, 0) > 20, 60)
            requester.wait(lambda _: all(map(traffic.answers, waiting)), 30)
            everything_is_answered(traffic, requester)
            # 3. Once no token of the old key counts any more, it leaves the set. Workers notice
            # within ten minutes; those that are started now know it at once.
            old_token = issuer.token(kid=first, project="tenant-a")
            del issuer.keys[first]
            replace(file, issuer.key_set().decode())
            new = shop.worker()
            worker.signal(signal.SIGTERM)
            traffic.until(lambda: not worker.alive, 60)
            everything_is_answered(traffic, requester)
            known = {"tenant": None, "user_id": USER}
            refused = requester.command("server.list", token=old_token, **known)
            assert requester.result_of(refused).body["code"] == "101.001401"
            assert not new.problems()
        nothing_was_done_twice(traffic, shop, servers)
        assert old_token not in shop.logs()
