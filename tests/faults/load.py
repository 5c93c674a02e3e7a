"""A mixed load of commands and orders, and the account of what became of each: invariants I1 to I5."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle, islice
from types import TracebackType
from typing import Any

import pika
import psutil
from pika.exceptions import AMQPError

from sandbox.documents import change_configure, new_order_id
from sandbox.worker import WorkerProcess
from tests.tenant import COMPUTE, Tenant

INPUT_QUEUES = ("ecs.servers", "ecs.images", "ecs.orders")
#: Seconds within which the worker works again, and MiB that it may have grown.
RECOVERY, GROWTH = 30.0, 50
#: Seconds for an account that must come to its end; a loaded machine is slow.
_PATIENCE = 90.0


@dataclass(slots=True)
class Input:
    """A request: which server it changes by which action of Nova's log, and what it is answered with."""

    message_id: str
    exchange: str
    routing_key: str
    body: str
    server_id: str | None = None
    action: str | None = None
    #: (resource, id) of what has a final update.
    finals: tuple[tuple[str, str], ...] = ()
    code: Any = 200


@dataclass(slots=True)
class Heard:
    """What came back for one request: (message id, body) of each copy, in order."""

    results: list[tuple[str, bytes]] = field(default_factory=list)
    updates: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


class Load:
    """Sends requests and hears what becomes of them, over queues that outlive the broker; a context manager.

    It talks to the broker itself, not by the way that the worker takes.
    """

    def __init__(self, broker_url: str, tenant: Tenant) -> None:
        self._parameters = pika.URLParameters(broker_url)
        self._parameters.heartbeat = 0
        self._parameters.socket_timeout = self._parameters.stack_timeout = 5
        if "//" in broker_url.partition("@")[2]:
            self._parameters.virtual_host = "/"
        self._connection: Any = None
        self._tenant = tenant
        self._servers: list[str] = []
        self._name = f"load-{uuid.uuid4().hex[:8]}"
        self.inputs: list[Input] = []
        self._heard: dict[str, Heard] = {}

    @property
    def reply_to(self) -> str:
        """The queue that results of commands come to."""
        return f"{self._name}-replies"

    def mix(self, number: int) -> list[Input]:
        """So many requests, each on a server of its own where it changes something; made, not sent."""
        kinds = (self.reboot, self.order, self.stop, self.missing, self.reboot, self.listing)
        chosen = list(islice(cycle(kinds), number))
        changing = sum(kind not in (self.missing, self.listing) for kind in chosen)
        self._servers += self._make_servers(changing)
        return [kind() for kind in chosen]

    def reboot(self) -> Input:
        """A command that changes a server."""
        return self._action({"reboot": {"type": "HARD"}}, "reboot")

    def stop(self) -> Input:
        """Another."""
        return self._action({"os-stop": None}, "stop")

    def order(self) -> Input:
        """A paid order for another flavor."""
        server_id, order_id, message_id = self._server(), new_order_id(), uuid.uuid4().hex
        order = json.loads(change_configure(server_id, self._tenant.image, order_id=order_id))
        order["productList"][0]["itemList"] = order["productList"][0]["itemList"][:3]
        body = json.dumps({"tenant_id": "tenant-a", **order})
        finals = (("order", order_id), ("server", server_id))
        return Input(message_id, "ecs.orders", "order.changeConfigure", body, server_id, "resize", finals)

    def missing(self) -> Input:
        """A command on a server that is not there."""
        return self._command("server.action", code="101.001033", server_id=str(uuid.uuid4()), body={"os-start": None})

    def listing(self) -> Input:
        """A read."""
        return self._command("server.list", searchValue="no-such-name")

    def send(self, *inputs: Input, seconds: float = 60.0) -> None:
        """Publish until each is confirmed, through whatever happens to the broker meanwhile."""
        for one in inputs:
            self.inputs.append(one)
            self._until(lambda one=one: self._publish(one), seconds)  # type: ignore[misc]

    def again(self, one: Input) -> None:
        """Publish one of the inputs once more: a duplicate."""
        self._until(lambda: self._publish(one), 60.0)

    def answered(self) -> int:
        """How many have a result so far."""
        self._listen()
        return sum(bool(self.of(one).results) for one in self.inputs)

    def of(self, one: Input) -> Heard:
        """What was heard for a request."""
        return self._heard.setdefault(one.message_id, Heard())

    def wait_until(self, holds: Callable[[], bool], seconds: float = _PATIENCE) -> None:
        """Hear until something holds."""
        limit = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < limit, f"does not hold after {seconds} s: {self.open_accounts()}"
            self._listen()
            time.sleep(0.05)

    def open_accounts(self) -> list[str]:
        """What is missing still, a line each."""
        missing = []
        for one in self.inputs:
            heard = self.of(one)
            finals = {(body["resource"], body["id"]) for _, body in heard.updates if body["final"]}
            if not heard.results:
                missing.append(f"no result of {one.routing_key} {one.message_id}")
            elif _code(heard) == one.code and not finals >= set(one.finals):
                missing.append(f"no final update of {one.routing_key} {one.message_id}")
        return missing

    def account(self, *, codes: tuple[Any, ...] = ()) -> None:
        """Wait until all is answered, then see that I1, I2 and I3 hold.

        `codes`: what else than its own code a request may be answered with; then it has at most one effect.
        """
        self.wait_until(lambda: not self.open_accounts())
        self.wait_until(lambda: all(self.depth(queue) == 0 for queue in INPUT_QUEUES))
        assert self.depth("ecs.dead") == 0, "something was parked"
        for one in self.inputs:
            heard = self.of(one)
            assert len(set(heard.results)) == 1, f"{one.routing_key} has several results: {set(heard.results)}"
            assert _code(heard) in (one.code, *codes), heard.results[0]
            self._check_effects(one, _code(heard) == one.code)
            _check_updates(one, heard)

    def recovered(self, seconds: float = RECOVERY) -> float:
        """Seconds until a request is answered; it must be within so many (I5)."""
        began = time.monotonic()
        probe = self.missing()
        self.send(probe)
        self.wait_until(lambda: bool(self.of(probe).results), seconds)
        return time.monotonic() - began

    def depth(self, queue: str) -> int:
        """How many messages wait in a queue."""
        with self._channel() as channel:
            return int(channel.queue_declare(queue, passive=True).method.message_count)

    def _check_effects(self, one: Input, succeeded: bool) -> None:
        if one.server_id is not None and one.action is not None:
            actions = self._tenant.actions(one.server_id)
            done = actions.count(one.action)
            assert done == 1 if succeeded else done <= 1, f"{one.routing_key} {one.message_id}: {actions}"
            assert actions.count("confirmResize") <= 1, actions

    def _action(self, body: dict[str, Any], action: str) -> Input:
        server_id = self._server()
        found = self._command("server.action", server_id=server_id, body=body)
        found.server_id, found.action, found.finals = server_id, action, (("server", server_id),)
        return found

    def _command(self, operation: str, *, code: Any = 200, **fields: Any) -> Input:
        body = json.dumps({"operation": operation, "tenant_id": "tenant-a", **fields})
        return Input(uuid.uuid4().hex, "ecs.commands", operation, body, code=code)

    def _server(self) -> str:
        if not self._servers:
            self._servers += self._make_servers(1)
        return self._servers.pop()

    def _make_servers(self, number: int) -> list[str]:
        """As `Tenant.make_servers`, and several loads may share a tenant."""
        if not number:
            return []
        tenant, name = self._tenant, f"{self._name}-{len(self.inputs)}-{uuid.uuid4().hex[:4]}"
        body = {
            "name": name, "flavorRef": tenant.flavors["S1.small.1"], "networks": "none", "imageRef": tenant.image,
            "metadata": {"charge_type": "monthly"}, "min_count": number, "max_count": number,
        }  # fmt: skip
        answer = tenant.connection.compute.post("/servers", json={"server": body}, microversion=COMPUTE)
        assert answer.status_code == 202, answer.text
        limit = time.monotonic() + 60
        while True:
            path = f"/servers/detail?name=^{name}"
            found = tenant.connection.compute.get(path, microversion=COMPUTE).json()["servers"]
            if len(found) == number and all(server["status"] == "ACTIVE" for server in found):
                return [server["id"] for server in found]
            assert time.monotonic() < limit, "the servers are not there"
            time.sleep(0.1)

    def _publish(self, one: Input) -> None:
        with self._channel() as channel:
            channel.confirm_delivery()
            properties = pika.BasicProperties(
                message_id=one.message_id, content_type="application/json", delivery_mode=2,
                timestamp=int(time.time()), reply_to=self.reply_to if one.exchange == "ecs.commands" else None,
            )  # fmt: skip
            channel.basic_publish(one.exchange, one.routing_key, one.body.encode(), properties, mandatory=True)

    def _listen(self) -> None:
        """Take everything that has come; a broker that is away is looked at the next time."""
        with suppress(AMQPError, OSError), self._channel() as channel:
            for queue in (self.reply_to, f"{self._name}-status", f"{self._name}-results"):
                while True:
                    method, properties, body = channel.basic_get(queue)
                    if method is None:
                        break
                    self._hear(queue, properties, body)
                    channel.basic_ack(method.delivery_tag)

    def _hear(self, queue: str, properties: Any, body: bytes) -> None:
        heard = self._heard.setdefault(properties.correlation_id, Heard())
        if queue.endswith("-status"):
            heard.updates.append((properties.message_id, json.loads(body)))
        else:
            heard.results.append((properties.message_id, body))

    @contextmanager
    def _channel(self) -> Iterator[Any]:
        """A channel of the one connection, which is made anew when it is gone."""
        if self._connection is None or self._connection.is_closed:
            self._connection = pika.BlockingConnection(self._parameters)
        channel = self._connection.channel()
        try:
            yield channel
        finally:
            with suppress(AMQPError, OSError):
                channel.close()

    @staticmethod
    def _until(act: Callable[[], None], seconds: float) -> None:
        limit = time.monotonic() + seconds
        while True:
            try:
                return act()
            except (AMQPError, OSError):
                if time.monotonic() > limit:
                    raise
                time.sleep(0.2)

    def open(self) -> "Load":
        """Declare the queues that answers come to."""
        with self._channel() as channel:
            for end in ("replies", "status", "results"):
                channel.queue_declare(f"{self._name}-{end}", durable=True)
            channel.queue_bind(f"{self._name}-status", "ecs.status", "#")
            channel.queue_bind(f"{self._name}-results", "ecs.results", "order.#")
        return self

    def __enter__(self) -> "Load":
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(AMQPError, OSError), self._channel() as channel:
            for end in ("replies", "status", "results"):
                channel.queue_delete(f"{self._name}-{end}")
        with suppress(AMQPError, OSError):
            self._connection.close()


@contextmanager
def memory_flat(worker: WorkerProcess) -> Iterator[None]:
    """I4: the worker is as large afterwards as it was, within 50 MiB."""
    before = _size(worker)
    yield
    grown = (_size(worker) - before) / 2**20
    assert grown < GROWTH, f"the worker has grown by {grown:.0f} MiB"


def _size(worker: WorkerProcess) -> int:
    size: int = psutil.Process(worker.pid).memory_info().rss
    return size


def _code(heard: Heard) -> Any:
    return json.loads(heard.results[0][1])["code"]


def _check_updates(one: Input, heard: Heard) -> None:
    """Copies apart: one final update each, the last."""
    told: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for message_id, body in heard.updates:
        told.setdefault((body["resource"], body["id"]), {}).setdefault(message_id, body)
    for resource, bodies in told.items():
        finals = [body["final"] for body in bodies.values()]
        assert finals.count(True) <= 1, f"{one.routing_key} {resource}: several final updates"
        assert True not in finals[:-1], f"{one.routing_key} {resource}: told on after the end"
    for resource in one.finals:
        assert resource not in told or [body["final"] for body in told[resource].values()][-1]
