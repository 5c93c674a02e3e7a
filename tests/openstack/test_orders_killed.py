"""Orders whose worker is killed, that come again, that are replayed: on the simulated cloud and on
the real one.
"""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.broker import PrivateBroker
from sandbox.requester import Requester, Source
from tests.openstack.conftest import Cloud
from tests.support.dying_worker import Hold, Instant
from tests.support.invariants import await_ends, check
from tests.support.kinds import (
    Ask,
    Asked,
    change,
    new_servers,
    renewal,
    revert,
    taken_away,
    taken_down,
    unsubscribe,
)
from tests.support.names import DEAD_QUEUE
from tests.support.orders import ended, paid, publish
from tests.support.stage import await_held, dying, settled
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology

pytestmark = pytest.mark.slow


@pytest.fixture
def own(broker: PrivateBroker, cloud: Cloud, tmp_path: Path) -> Iterator[Workshop]:
    url = broker.add_vhost(f"killed-{tmp_path.name}")
    declare(url, topology())
    with Workshop(url, cloud, tmp_path) as found:
        yield found


#: Where all can die at once: a worker that hears no confirms (8) comes no further with anything.
TOGETHER = [one for one in Instant if one not in (Instant.EFFECT_NOT_BEGUN, Instant.PUBLISHED)]
#: For each kind of order how it dies at every instant, and what else of it is cut off between call
#: and answer.
DEATHS: dict[str, tuple[Ask, list[Ask]]] = {
    "changeConfigure": (
        change("resize", "resize"),
        [change("extend", "extend"), change("confirm", "confirm"), revert],
    ),
    "renew": (renewal("start", "os-start"), [renewal("renew", "renew"), renewal("mark", "unmark")]),
    "unsubscribe": (
        unsubscribe("unsubscribe", "delete:"),
        [unsubscribe("unlock", "unlock:"), unsubscribe("address", "release:")],
    ),
    "softDown": (
        taken_down("stop", "stopServer", "os-stop"),
        [
            taken_down("mark", "stopServer", "mark"),
            taken_down("resume", "resumeServer", "os-start"),
            unsubscribe("delete", "delete:", unpaid=True),
        ],
    ),
}


def killed(own: Workshop, cloud: Cloud, dies: list[tuple[Ask, Instant]], copies: int = 0) -> None:
    """Ask for all of these, kill the worker when each has come to its instant, send copies, start
    another worker.

    All must end as if nothing had been.
    """
    tenant = own.tenant()
    asked = [ask(tenant, cloud) for ask, _ in dies]
    holds = [
        Hold(one.message_id, instant, one.effect)
        for one, (_, instant) in zip(asked, dies, strict=True)
    ]
    worker = dying(own, holds)
    with Requester(own.broker_url) as requester:
        send(asked, requester)
        eventually(lambda: not worker.alive, 480)
        assert (own.folder / "held").exists()
        for _ in range(copies):
            send(asked, requester)
        own.worker()
        await_ends(requester, asked, 280)
        for _ in range(copies):
            send(asked, requester)
        requester.wait(lambda _: results(requester, asked) >= len(asked) * (2 * copies + 1), 60)
        settled(own, requester)
        check(requester.heard, asked, tenant, None)


def send(asked: list[Asked], requester: Requester) -> None:
    for one in asked:
        one.publish(requester)


def results(requester: Requester, asked: list[Asked]) -> int:
    """Return how many there are, copies and all; what was cut off may have been answered twice."""
    wanted = {one.message_id for one in asked}
    return sum(
        one.source is Source.ORDER_RESULT and one.correlation_id in wanted
        for one in requester.heard
    )


class InAHurry(Requester):
    """Publishes what runs out in its queue."""

    def publish(self, exchange: str, routing_key: str, body: Any, **options: Any) -> str:
        return super().publish(exchange, routing_key, body, expiration=0.001, **options)


@pytest.mark.long_on_real
@pytest.mark.timeout(1200)
def test_five_servers_are_five_wherever_the_worker_dies(own: Workshop, cloud: Cloud) -> None:
    """An order of five dies as the third is made; beside it smaller ones, each at an instant of its
    own.
    """
    dies: list[tuple[Ask, Instant]] = [(new_servers("five", "create:3", 5), Instant.CALL_EXECUTED)]
    dies += [(new_servers("two", "create:2", 2), instant) for instant in TOGETHER]
    dies += [
        (new_servers("disk", "volume:2.1", 2), Instant.CALL_EXECUTED),
        (taken_away, Instant.CALL_EXECUTED),
    ]
    killed(own, cloud, dies)


@pytest.mark.long_on_real
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", DEATHS)
def test_an_order_is_carried_out_once_wherever_the_worker_dies(
    own: Workshop, cloud: Cloud, kind: str
) -> None:
    """And though each comes five times."""
    everywhere, others = DEATHS[kind]
    dies = [(everywhere, instant) for instant in TOGETHER] + [
        (one, Instant.CALL_EXECUTED) for one in others
    ]
    killed(own, cloud, dies, copies=2)


@pytest.mark.timeout(300)
def test_orders_that_were_parked_are_carried_out_once_when_they_are_replayed(
    own: Workshop, cloud: Cloud
) -> None:
    """They ran out in the queue; an operator puts them in again, twice, and they come once more."""
    tenant = own.tenant()
    asked = [ask(tenant, cloud) for ask, _ in DEATHS.values()] + [
        new_servers("replayed", "create:1", 2)(tenant, cloud)
    ]
    with InAHurry(own.broker_url, order_results=False) as hurried:
        send(asked, hurried)
    with Requester(own.broker_url) as requester:
        own.worker()
        eventually(lambda: requester.depth(DEAD_QUEUE) == len(asked), 60)
        requester.listen(0.5)
        requester.heard.clear()
        for _ in range(2):
            done = own.command("dead", "replay", "--all", "--yes")
            assert done.returncode == 0, done.stdout + done.stderr
        assert requester.depth(DEAD_QUEUE) == 0
        await_ends(requester, asked, 240)
        send(asked, requester)
        requester.wait(lambda _: results(requester, asked) >= 2 * len(asked), 60)
        settled(own, requester)
        check(requester.heard, asked, tenant, None)


@pytest.mark.long_on_real
@pytest.mark.timeout(300)
def test_a_resize_that_somebody_else_began_while_the_order_waited_is_not_the_orders_own(
    own: Workshop, cloud: Cloud
) -> None:
    """The worker dies before it has resized the second server; then its owner resizes that one."""
    tenant = own.tenant()
    first, second = tenant.make_server(disk=None), tenant.make_server(disk=None)
    order = paid("changeConfigure", first, second)
    for product in order["productList"]:
        product["itemList"] = [{"code": "std_2C4G", "value": "S1.medium.2"}]
    message_id = uuid.uuid4().hex
    worker = dying(
        own,
        [
            Hold(message_id, Instant.CALL_EXECUTED, f"resize:{first}"),
            Hold(message_id, Instant.EFFECT_NOT_BEGUN, f"resize:{second}"),
        ],
    )
    with Requester(own.broker_url) as requester:
        publish(requester, order, message_id=message_id)
        await_held(own, worker)
        tenant.act(second, {"resize": {"flavorRef": tenant.flavors["S1.medium.2"]}})
        tenant.wait(second, lambda one: one["status"] == "VERIFY_RESIZE")
        own.worker()
        result, _ = ended(requester, message_id)
        settled(own, requester)
    assert result.body["code"] == "101.001040"
    assert tenant.server(second)["status"] == "VERIFY_RESIZE"
    assert tenant.actions(second).count("resize") == 1
    assert tenant.actions(first) == ["create", "resize", "revertResize"]
    tenant.act(second, {"confirmResize": None})
