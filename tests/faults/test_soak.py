"""Thousands of requests of every kind leave the worker as large as it was (66, I4)."""

import json
import uuid
from collections.abc import Iterator
from itertools import cycle, islice

import pytest

from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester, Source
from tests.support.invariants import MEMORY, resident_megabytes
from tests.support.tenant import Tenant
from tests.support.waiting import eventually
from tests.support.workshop import Workshop

pytestmark = pytest.mark.slow

ROUNDS, ROUND = 6, 400


def requests(tenant: Tenant, servers: list[str]) -> Iterator[tuple[str, bytes]]:
    """Endlessly: reads, refusals, rubbish, duplicates, and actions on a few servers; each with its
    routing key.
    """
    own = {"tenant_id": "tenant-a"}
    missing = {"operation": "server.action", "body": {"os-start": None}} | own
    kinds = cycle(range(8))
    for kind, server_id in zip(kinds, cycle(servers), strict=False):
        operation, body = {
            0: ("server.list", {"operation": "server.list", "pageSize": 100} | own),
            1: ("image.list", {"operation": "image.list"} | own),
            2: ("server.show", {"operation": "server.show", "server_id": server_id} | own),
            3: ("server.action", missing | {"server_id": str(uuid.uuid4())}),
            4: (
                "server.tags.update",
                {"operation": "server.tags.update", "server_id": server_id, "tags": "a,b"} | own,
            ),
            5: ("server.action", {"operation": "server.action", "server_id": "x" * 60_000} | own),
            6: ("server.list", {"operation": "server.list", "tenant_id": uuid.uuid4().hex}),
            7: (
                "image.update",
                {"operation": "image.update", "image_id": tenant.image, "body": []} | own,
            ),
        }[kind]
        yield operation, json.dumps(body).encode()


def test_memory_is_flat(workshop: Workshop, simulated: SimulatedOpenStack) -> None:
    tenant = workshop.tenant()
    servers = tenant.make_servers(10)
    worker = workshop.worker(ECS_LOG_LEVEL="warning")
    endless = requests(tenant, servers)
    sizes = []
    with Requester(workshop.broker_url) as requester:
        for _ in range(ROUNDS):
            before, sent = len(requester.heard), 0
            for operation, body in islice(endless, ROUND):
                message_id = requester.publish(
                    "ecs.commands", operation, body, reply_to=requester.reply_to
                )
                if sent % 10 == 0:  # twice: a duplicate
                    requester.publish(
                        "ecs.commands",
                        operation,
                        body,
                        reply_to=requester.reply_to,
                        message_id=message_id,
                    )
                    sent += 1
                sent += 1

            def answered(before: int = before) -> int:
                requester.listen(0.05)
                return sum(one.source is Source.REPLY for one in requester.heard[before:])

            eventually(lambda sent=sent, answered=answered: answered() >= sent, 90)  # type: ignore[misc]
            sizes.append(resident_megabytes(worker.pid))
    print(f"\nafter each {ROUND} requests: {[round(size) for size in sizes]} MB")
    # The first rounds fill caches and pools.
    assert sizes[-1] - sizes[1] < MEMORY / 2
