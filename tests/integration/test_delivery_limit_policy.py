"""The look for the policy that lifts RabbitMQ 4's delivery limit: by the probe, `check` and the
start of a worker.

Where the broker is RabbitMQ 4 (`ECS_SANDBOX_RABBITMQ`), it is asked as it is. RabbitMQ 3 has no
limit unless a policy sets one, and refuses the one that lifts it; a proxy has it say that it is
version 4. What differs: its default stands for the documented policy there, and a policy of 20 for
version 4's default.
"""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from kombu import Connection

from sandbox.broker import PrivateBroker
from tests.support.giving_back import limit_deliveries
from tests.support.names import NAMES
from tests.support.proxy import Proxy, Way
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.amqp.delivery_limit import has_delivery_limit, policy_command
from workers.amqp.topology import topology

pytestmark = pytest.mark.slow

#: The first digit of the version in Connection.Start: a field of a table, whose value is a long
#: string.
_VERSION = re.compile(rb"(\x07versionS....)\d", re.DOTALL)


async def as_version_4(way: Way, data: bytes) -> bytes:
    """Let the server say that it is of version 4."""
    return _VERSION.sub(rb"\g<1>4", data) if way is Way.DOWN else data


@dataclass(frozen=True)
class Limited:
    """A virtual host of a broker that says it is RabbitMQ 4; `direct` and `url` lead to it, the
    second by way of what it says.
    """

    broker: PrivateBroker
    direct: str
    url: str

    @property
    def is_4(self) -> bool:
        """Tell whether it is."""
        with Connection(self.direct) as connection:
            version = str(connection.connection.server_properties["version"])
        return int(version.partition(".")[0]) >= 4

    def limit(self) -> None:
        """Have it give up on what was given back 20 times."""
        if not self.is_4:
            limit_deliveries(self.broker, self.direct)

    def lift(self) -> None:
        """Set the policy that is advised, or on RabbitMQ 3 what comes to the same."""
        if self.is_4:
            program, *words = shlex.split(policy_command(self.url, NAMES))
            assert program == "rabbitmqctl"
            self.broker.rabbitmqctl(*words)
        else:
            self.broker.rabbitmqctl("clear_policy", "--vhost", self.vhost, "limit")

    @property
    def vhost(self) -> str:
        return self.direct.rpartition("/")[2]

    def queues(self) -> set[str]:
        """The names of all queues."""
        words = ("list_queues", "--vhost", self.vhost, "--no-table-headers", "name")
        return set(self.broker.rabbitmqctl(*words).split())


@pytest.fixture
def limited(broker: PrivateBroker, declared: str) -> Iterator[Limited]:
    with Proxy(broker.port) as proxy:
        proxy.tamper = as_version_4
        yield Limited(broker, declared, proxy.url_of(declared))


def test_the_probe_finds_a_limit_and_leaves_nothing_behind(limited: Limited) -> None:
    limited.limit()
    assert has_delivery_limit(limited.url, NAMES) is True
    limited.lift()
    assert has_delivery_limit(limited.url, NAMES) is False
    assert limited.queues() == {one.name for one in topology().queues}


def test_a_broker_before_version_4_has_no_limit_of_its_own(limited: Limited) -> None:
    """And its administrator's is his own: only the version is asked for."""
    limited.limit()
    assert has_delivery_limit(limited.direct, NAMES) is limited.is_4


def test_check_names_the_command_that_lifts_the_limit(limited: Limited, workshop: Workshop) -> None:
    def found() -> list[dict[str, str]]:
        done = workshop.command("check", "-o", "json", ECS_BROKER_URL=limited.url)
        rows: list[dict[str, str]] = json.loads(done.stdout)
        assert {one["result"] for one in rows if one["check"] == "broker"} == {"ok"}
        return [one for one in rows if one["check"] == "delivery limit"]

    limited.limit()
    (warning,) = found()
    assert warning["result"] == "warning"
    assert policy_command(limited.url, NAMES) in warning["advice"]
    limited.lift()
    assert found() == []


def test_a_worker_says_at_its_start_where_there_is_a_limit(
    limited: Limited, workshop: Workshop
) -> None:
    def told() -> list[dict[str, str]]:
        lines = workshop.logs().splitlines()
        return [json.loads(one) for one in lines if '"event":"broker.delivery_limit"' in one]

    limited.limit()
    workshop.worker(ECS_BROKER_URL=limited.url)
    eventually(lambda: bool(told()), 60)
    (line,) = told()
    assert (line["level"], line["set"]) == ("warning", policy_command(limited.url, NAMES))
