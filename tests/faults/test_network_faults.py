"""Network faults 28 to 34: between the worker and its broker, and between the worker and its database."""

from collections.abc import Iterator

import pytest

from sandbox.broker import PrivateBroker
from tests.faults.load import Load
from tests.faults.proxy import ACK, Proxy, Reset, Way
from tests.workshop import Workshop


@pytest.fixture
def proxy(broker: PrivateBroker) -> Iterator[Proxy]:
    """The network between the worker and its broker."""
    with Proxy(broker.port) as found:
        yield found


@pytest.fixture
def shop(workshop: Workshop, proxy: Proxy) -> Workshop:
    """A workshop whose workers reach the broker through the proxy."""
    workshop.settings["ECS_BROKER_URL"] = f"{proxy.url_of(workshop.broker_url)}?heartbeat=2"
    return workshop


@pytest.fixture
def load(shop: Workshop) -> Iterator[Load]:
    with Load(shop.broker_url, shop.tenant()) as found:
        yield found


async def _pass(_: Way, data: bytes) -> bytes:
    return data


@pytest.mark.parametrize("when", ["before", "after"])
def test_28_a_reset_beside_an_ack_costs_nothing(shop: Workshop, proxy: Proxy, load: Load, when: str) -> None:
    cut = []

    async def cut_at_ack(way: Way, data: bytes) -> bytes:
        found = ACK.search(data)
        if way is Way.UP and found is not None and len(cut) < 3:
            cut.append(found)
            raise Reset(data[: found.start() if when == "before" else found.end()])
        return data

    shop.worker()
    proxy.tamper = cut_at_ack
    load.send(*load.mix(12))
    load.wait_until(lambda: len(cut) == 3)
    load.recovered()
    load.account()
