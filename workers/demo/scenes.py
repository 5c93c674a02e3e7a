"""What happens in the demo, scene by scene: requests as users send them, and what must be seen
then.
"""

import json
from collections.abc import Callable
from typing import Any

from sandbox.documents import change_configure, new_order_id
from sandbox.requester import Heard, Requester
from workers.demo.life import Life
from workers.demo.screen import Screen
from workers.demo.stage import Stage


class Play:
    """The scenes in their order. `checks` tells of each promise whether it held."""

    def __init__(self, stage: Stage, requester: Requester, screen: Screen) -> None:
        self._stage = stage
        self._requester = requester
        self._screen = screen
        self._order = change_configure(stage.servers.web, stage.servers.image)
        self._order_result: Heard | None = None
        self.checks: list[tuple[str, bool]] = []

    def perform(self) -> None:
        """All scenes."""
        scenes: tuple[Callable[[], None], ...] = (
            self.list_servers,
            self.refuse_unpaid,
            self.stop_and_start,
            self.reboot_batch,
            self.open_console,
            self.make_image,
            self.resize_paid,
            self.repeat_order,
            self.refuse_order,
            self.live_and_leave,
            self.park_rubbish,
            self.survive_kill,
        )
        for scene in scenes:
            self._screen.title(scene.__doc__ or "")
            scene()

    def list_servers(self) -> None:
        """A person opens the page of servers, and searches it."""
        listed = self._ask("server.list", sortField="name", sortOrder="ascend")
        for one in listed["servers"]:
            self._screen.note(
                f"{one['name']}, {one['translation']}, {one['flavor']['original_name']}, "
                f"system disk {one['root_volume']['size']} GiB, {one['feeData']['chargetype'] or 'not paid for'}"
            )
        found = self._ask(
            "server.list", searchField="name", searchValue=listed["servers"][0]["name"]
        )
        right = (listed["totalCount"], len(listed["servers"]), found["totalCount"]) == (3, 3, 1)
        self._check("a page of servers is listed and searched", right)

    def refuse_unpaid(self) -> None:
        """The console stops a server that nobody has paid for."""
        result = self._act(self._stage.servers.unpaid, {"os-stop": None})
        self._check(
            "os-stop of an unpaid server is refused with 101.001014", result["code"] == "101.001014"
        )

    def stop_and_start(self) -> None:
        """The console stops a server and starts it again."""
        web = self._stage.servers.web
        for action, end in (("os-stop", "SHUTOFF"), ("os-start", "ACTIVE")):
            result = self._act(web, {action: None}, follow=True)
            status = self._stage.tenant.server(web)["status"]
            self._check(
                f"{action} is answered 200 and ends in {end}",
                result["code"] == 200 and status == end,
            )

    def reboot_batch(self) -> None:
        """The console reboots two servers at once."""
        ids = [self._stage.servers.web, self._stage.servers.database]
        self._screen.sent("server.batch_action reboot HARD of two servers")
        message_id = self._requester.command(
            "server.batch_action",
            body={"reboot": {"type": "HARD", "servers": [{"id": one} for one in ids]}},
        )
        result = self._requester.result_of(message_id).body
        for one in ids:
            self._requester.last_update_of("server", message_id, resource_id=one)
        accepted = [one["code"] for one in result["data"]["servers"]]
        self._check("a batch tells of each of its servers", accepted == [200, 200])

    def open_console(self) -> None:
        """A person wants to see a server's screen."""
        result = self._act(self._stage.servers.web, {"os-getVNCConsole": {"type": "novnc"}})
        self._check(
            "the console's URL comes", str(result["data"]["console"]["url"]).startswith("http")
        )

    def make_image(self) -> None:
        """A person makes an image of a server, finds it in the list, and deletes it."""
        self._screen.sent('server.action {"createImage": {"name": "web-golden", …}}')
        message_id = self._requester.command(
            "server.action",
            server_id=self._stage.servers.web,
            body={"createImage": {"name": "web-golden", "description": "before the resize"}},
        )
        image_id = self._requester.result_of(message_id).body["data"]["image_id"]
        ended = self._requester.last_update_of("image", message_id).body["status"]
        listed = self._ask("image.list_private", tag="ECS")["images"]
        for one in listed:
            self._screen.note(f"image {one['name']}, {one['translation']}, {one['description']}")
        self._screen.sent(f"image.delete {image_id[:8]}")
        deleting = self._requester.command("image.delete", image_id=image_id)
        gone = self._requester.last_update_of("image", deleting).body["status"]
        right = (ended, [one["id"] for one in listed], gone) == ("active", [image_id], "deleted")
        self._check("an image is made, listed and deleted", right)

    def resize_paid(self) -> None:
        """The billing system sends a paid order: more CPUs, more memory, a larger system disk."""
        self._screen.sent(
            "order.changeConfigure: S1.small.1 → S1.medium.2, system disk 40 → 60 GiB"
        )
        message_id = self._requester.order(self._with_tenant(self._order))
        self._order_result = self._requester.order_result_of(message_id)
        self._requester.last_update_of("order", message_id)
        web = self._stage.servers.web
        flavor = self._stage.tenant.server(web)["flavor"]["original_name"]
        size = self._stage.tenant.volume_size(web)
        self._screen.note(f"the server has flavor {flavor}, its disk {size} GiB")
        done = self._order_result.body["code"] == 200 and flavor == "S1.medium.2" and size == 60
        self._check("a paid order is carried out: flavor and disk", done)

    def repeat_order(self) -> None:
        """The billing system sends the same order twice more: it did not hear the answer."""
        assert self._order_result is not None
        same = []
        for _ in range(2):
            self._screen.sent("the same order.changeConfigure again")
            again = self._requester.order_result_of(
                self._requester.order(self._with_tenant(self._order))
            )
            same.append(again.raw == self._order_result.raw)
        actions = self._stage.tenant.actions(self._stage.servers.web)
        self._screen.note(f"Nova's action log of the server: {', '.join(actions)}")
        self._check("a repeated order gets the very same result", all(same))
        self._check(
            "and is not carried out again",
            actions.count("resize") == actions.count("confirmResize") == 1,
        )

    def refuse_order(self) -> None:
        """A paid order names a flavor that does not exist."""
        order = json.loads(
            change_configure(self._stage.servers.database, self._stage.servers.image)
        )
        order["productList"][0]["itemList"][0]["value"] = "S9.gigantic"
        self._screen.sent("order.changeConfigure to S9.gigantic")
        result = self._requester.order_result_of(
            self._requester.order(self._with_tenant(json.dumps(order)))
        ).body
        data = result["data"]["productSetList"][0]
        untouched = "resize" not in self._stage.tenant.actions(self._stage.servers.database)
        self._check(
            "an order that cannot be done is refused before anything is touched",
            data["productSetStatus"] == "fail" and data["resourceChanged"] is False and untouched,
        )

    def live_and_leave(self) -> None:
        """A customer's server from purchase to deletion, by orders alone: new, softDown, renew,
        unsubscribe.
        """
        life = Life(self._stage, self._requester, self._screen)
        life.live()
        self._check(
            "a server is bought, stopped when unpaid, renewed and given back, and leaves nothing",
            life.held,
        )

    def park_rubbish(self) -> None:
        """Somebody publishes what is no order at all."""
        self._screen.sent("order.changeConfigure: '{\"orderId\": '")
        self._requester.order_result_of(self._requester.order('{"orderId": '))
        self._requester.listen(0.5)
        parked = self._requester.depth("ecs.dead")
        self._screen.note(f"{parked} message parked in ecs.dead")
        self._check("rubbish is answered and parked, not lost", parked == 1)

    def survive_kill(self) -> None:
        """The worker is killed in the middle of an order, and another goes on."""
        database = self._stage.servers.database
        order = json.loads(
            change_configure(database, self._stage.servers.image, order_id=new_order_id())
        )
        # The server has a local disk, which comes with the flavor.
        order["productList"][0]["itemList"] = order["productList"][0]["itemList"][:3]
        self._screen.sent("order.changeConfigure: S1.small.1 → S1.medium.2")
        message_id = self._requester.order(self._with_tenant(json.dumps(order)))
        self._requester.wait(lambda one: _tells(one, message_id, "resizing"))
        self._requester.listen(0.7)
        self._stage.worker.kill()
        self._screen.note("SIGKILL to the worker")
        self._stage.start_another_worker()
        self._screen.note("another worker has started")
        self._requester.order_result_of(message_id)
        self._requester.last_update_of("order", message_id)
        results = [
            one
            for one in self._requester.heard
            if one.correlation_id == message_id and "productSetList" in str(one.body.get("data"))
        ]
        server, actions = self._stage.tenant.server(database), self._stage.tenant.actions(database)
        self._screen.note(
            f"flavor {server['flavor']['original_name']}, Nova's action log: {', '.join(actions)}"
        )
        done = server["flavor"]["original_name"] == "S1.medium.2" and actions.count("resize") == 1
        self._check(
            "a worker's death loses nothing and does nothing twice", done and len(results) == 1
        )

    def _act(self, server_id: str, body: dict[str, Any], *, follow: bool = False) -> dict[str, Any]:
        self._screen.sent(f"server.action {json.dumps(body)} on {server_id[:8]}")
        message_id = self._requester.command("server.action", server_id=server_id, body=body)
        result = self._requester.result_of(message_id).body
        if follow and result["code"] == 200:
            self._requester.last_update_of("server", message_id)
        return result

    def _ask(self, operation: str, **fields: Any) -> Any:
        """The data of an answer."""
        self._screen.sent(f"{operation} {json.dumps(fields)}")
        return self._requester.result_of(self._requester.command(operation, **fields)).body["data"]

    def _check(self, what: str, held: bool) -> None:
        self.checks.append((what, held))

    @staticmethod
    def _with_tenant(order: str) -> str:
        """Publishers are trusted here: the order says whose it is. Its token is left as it is."""
        return order.replace("{", '{\n\t"tenant_id": "tenant-a",', 1)


def _tells(one: Heard, message_id: str, status: str) -> bool:
    return one.body.get("message_id") == message_id and one.body.get("status") == status
