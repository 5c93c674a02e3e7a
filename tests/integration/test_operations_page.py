"""docs/reference/operations.md: each operation with a request and its answer as they went over the
wire.

The page is made here and compared with the one in the repository, so that it cannot rot; `make
docs` writes it anew.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from messages.commands import Operation
from sandbox.broker import PrivateBroker
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester
from tests.support import REPOSITORY
from tests.support.furnished import furnish
from tests.support.orders import paid
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology

PAGE = REPOSITORY / "docs" / "reference" / "operations.md"
HEAD = """# Operations

Each operation with a request, published to `ecs.commands` with the operation as routing key, and its answer on
`reply_to`. A test sends them to a worker on the simulated OpenStack and compares this page with what it hears (`make
docs` writes it anew); ids, times and addresses are replaced by others of their kind. What the fields mean:
[Messages](messages.md).
"""
#: What differs from run to run, and what stands for the Nth of its kind.
_VARYING: tuple[tuple[str, Callable[[int], str]], ...] = (
    (
        r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        lambda n: f"{n:08x}-0000-4000-8000-{n:012x}",
    ),
    (r"\b[0-9a-f]{56}\b", lambda n: f"{n:056x}"),
    (r"\b[0-9a-f]{32}\b", lambda n: f"{n:032x}"),
    (r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d", lambda _: "2026-11-23T10:00:00"),
    (r"(?<=T10:00:00)\.\d{3}(?=Z)", lambda _: ".123"),
    (r'(?<="statusTime": )"[^"]*"', lambda _: '"2026-11-23 18:00:00"'),
    (r"fa:16:3e:[0-9a-f:]{8}", lambda n: f"fa:16:3e:00:00:{n:02x}"),
    (r"http://127\.0\.0\.1:\d+", lambda _: "https://console.example"),
)


@pytest.fixture
def shop(broker: PrivateBroker, tmp_path: Path) -> Iterator[Workshop]:
    """A cloud of its own: nothing but what is made here is in it."""
    url = broker.add_vhost(tmp_path.name)
    declare(url, topology())
    with SimulatedOpenStack(pace=0.3) as cloud, Workshop(url, cloud, tmp_path) as found:
        found.worker()
        yield found


class Talk:
    """Holds what was said and answered, as the page shows it."""

    def __init__(self, requester: Requester) -> None:
        self._requester = requester
        self.sections: list[str] = []
        self.operations: set[str] = set()

    def say(self, title: str, operation: str, *, final: str | None = None, **fields: Any) -> Any:
        """Send it, wait for its end where it has one; returns the answer's data."""
        message_id = self._requester.command(operation, **fields)
        answer = self._requester.result_of(message_id)
        if final is not None:
            self._requester.last_update_of(final, message_id)
        request = {"operation": operation, "tenant_id": "tenant-a", **fields}
        told = [one.body for one in self._requester.updates_of(message_id)][-1:] if final else []
        parts = [f"## {title}", _block(request), "is answered", _block(answer.body)]
        parts += (
            ["and at last, on `ecs.status`,", _block(told[0] | {"message_id": "…"})] if told else []
        )
        self.sections.append("\n\n".join(parts))
        self.operations.add(operation)
        return answer.body["data"]


def test_the_page_shows_what_goes_over_the_wire(shop: Workshop) -> None:
    tenant = shop.tenant()
    made = furnish(tenant)
    server_id = made.server_id
    with Requester(shop.broker_url) as requester:
        talk = Talk(requester)
        talk.say(
            "A page of servers",
            "server.list",
            pageNo=1,
            pageSize=10,
            searchField="name",
            searchValue="furn",
        )
        talk.say("One server", "server.show", server_id=server_id)
        talk.say(
            "Stop", "server.action", server_id=server_id, body={"os-stop": None}, final="server"
        )
        talk.say(
            "Start", "server.action", server_id=server_id, body={"os-start": None}, final="server"
        )
        reboot = {"reboot": {"type": "SOFT"}}
        talk.say("Reboot", "server.action", server_id=server_id, body=reboot, final="server")
        batch = {"reboot": {"type": "HARD", "servers": [{"id": server_id}]}}
        talk.say("Reboot several", "server.batch_action", body=batch, final="server")
        console = {"os-getVNCConsole": {"type": "novnc"}}
        talk.say("A console", "server.action", server_id=server_id, body=console)
        talk.say(
            "Tags, the whole new set",
            "server.tags.update",
            server_id=server_id,
            tags="web,frontend",
        )
        talk.say("A server's tags", "server.tags.list", server_id=server_id)
        body = {"createImage": {"name": "my-image", "description": "before the update"}}
        image = talk.say(
            "Make an image", "server.action", server_id=server_id, body=body, final="image"
        )["image_id"]
        talk.say("A page of images", "image.list", page=1, pageSize=10, visibility="private")
        talk.say("All private images with a tag", "image.list_private", tag="ECS")
        talk.say("One image", "image.show", image_id=image)
        patch = [
            {"op": "add", "path": "/name", "value": "renamed"},
            {"op": "remove", "path": "/description"},
        ]
        talk.say("Change an image", "image.update", image_id=image, body=patch)
        ids = [{"id": image}, {"id": tenant.image}]
        talk.say("Delete several images", "image.batch_delete", body={"images": ids}, final="image")
        body["createImage"]["name"] = "another"
        again = requester.command("server.action", server_id=server_id, body=body)
        other = requester.result_of(again).body["data"]["image_id"]
        requester.last_update_of("image", again)
        talk.say("Delete an image", "image.delete", image_id=other, final="image")
        order = paid(
            "renew", server_id, orderId="178549870045495296", duration="1", durationUnit="M"
        )
        tenant.set_metadata(server_id, next_fee_time="2099-01-31 08:30:00")
        talk.say(
            "What an order would do",
            "order.plan",
            order={key: order[key] for key in order if key != "token"},
        )
        stopped = requester.order(json.dumps(order), "order.renew")
        requester.last_update_of("order", stopped)
        talk.say("How far an order is", "order.show", key=order["orderId"])
        talk.say(
            "What is not there", "server.show", server_id="616fb98f-46ca-475e-917e-2563e5a8cd19"
        )
    assert talk.operations == {one.value for one in Operation}
    page = HEAD + "\n" + settled("\n\n".join(talk.sections)) + "\n"
    if os.environ.get("ECS_WRITE_DOCS"):
        PAGE.write_text(page, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page, "the page is out of date: make docs"


def _block(value: Any) -> str:
    return "```json\n" + json.dumps(value, ensure_ascii=False, indent=2) + "\n```"


def settled(text: str) -> str:
    """The same text whatever the run: the Nth thing of a kind is always called the same."""
    text = re.sub(r'"time": "[^"]*"', '"time": "2026-11-23T10:00:00.123Z"', text)
    for pattern, name in _VARYING:
        known: dict[str, str] = {}
        for match in re.findall(pattern, text):
            known.setdefault(match, name(len(known) + 1))
        text = re.sub(pattern, lambda found, known=known: known[found[0]], text)  # type: ignore[misc]
    return text
