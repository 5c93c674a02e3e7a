"""Sends the messages whose way is traced to a worker on the simulated cloud, one after another."""

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.broker import PrivateBroker
from sandbox.documents import change_configure, new_order_id
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology

#: Seconds that a message may take.
_LIMIT = 60.0
#: Where the way of a request into its own work begins.
WORK = ("handlers/servers/", "handlers/images/", "handlers/orders/")


@dataclass(frozen=True)
class Entered:
    """A function that was entered for the first time."""

    file: str
    function: str


@dataclass(frozen=True)
class Outside:
    """A write to the journal or the broker, or a call to the cloud. `kind` says to which."""

    kind: str
    text: str


@dataclass(frozen=True)
class Figures:
    """Holds how much of the product a message meets.

    Functions and files that are entered, and how often the next function is in a file that was
    left before.
    """

    functions: int
    files: int
    returns: int


@dataclass(frozen=True)
class Way:
    """A message's way, in order."""

    title: str
    events: tuple[Entered | Outside, ...]

    @property
    def entered(self) -> tuple[Entered, ...]:
        return tuple(one for one in self.events if isinstance(one, Entered))

    @property
    def figures(self) -> Figures:
        return count(self.entered)

    @property
    def before_work(self) -> Figures:
        """Return what is met before the handler's own folder is."""
        names = [one.file.startswith(WORK) for one in self.entered]
        return count(self.entered[: names.index(True)])


def count(entered: tuple[Entered, ...]) -> Figures:
    """The figures of some functions, in the order in which they are entered."""
    files: set[str] = set()
    returns, last = 0, ""
    for one in entered:
        returns += one.file != last and one.file in files
        files.add(one.file)
        last = one.file
    return Figures(len(entered), len(files), returns)


def trace() -> tuple[Way, ...]:
    """The ways of a read, an action and an order. Starts a broker, a cloud and a worker: seconds."""
    with (
        tempfile.TemporaryDirectory() as name,
        PrivateBroker() as broker,
        SimulatedOpenStack(pace=0.3) as cloud,
    ):
        url = broker.add_vhost("trace")
        declare(url, topology())
        with Workshop(url, cloud, Path(name)) as workshop:
            return _trace(workshop, Path(name) / "trace")


def _trace(workshop: Workshop, target: Path) -> tuple[Way, ...]:
    tenant = workshop.tenant()
    server = tenant.make_server(disk=10)
    target.touch()
    workshop.worker(module="tests.trace.worker", ECS_TRACE_FILE=str(target))
    listing = {"pageNo": 1, "pageSize": 10}
    with Requester(workshop.broker_url) as requester:

        def ended() -> str:
            """The message that was sent has been acked: wait for its line."""
            expected, limit = len(ways) + 1, time.monotonic() + _LIMIT
            # The last line is whole once what is behind it is empty.
            while len(lines := target.read_text("utf-8").split("\n")[:-1]) < expected:
                assert time.monotonic() < limit, workshop.logs()[-2000:]
                time.sleep(0.02)
            return lines[-1]

        ways: list[str] = []
        # The first one finds nothing in any cache.
        for _ in range(2):
            requester.command("server.list", **listing)
            ways.append(ended())
        for action in ("os-stop", "os-start"):
            requester.command("server.action", server_id=server, body={action: None})
            ways.append(ended())
        requester.order(change_configure(server, tenant.image, order_id=new_order_id()))
        ways.append(ended())
    _, read, stop, _, order = ways
    return (
        _way("server.list", read),
        _way("server.action os-stop", stop),
        _way("order.changeConfigure", order),
    )


def _way(title: str, line: str) -> Way:
    return Way(title, tuple(_event(one) for one in json.loads(line)["events"]))


def _event(one: dict[str, Any]) -> Entered | Outside:
    if "kind" in one:
        return Outside(one["kind"], one["text"])
    return Entered(one["file"], one["function"])
