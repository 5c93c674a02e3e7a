"""The demo's scenarios: requests as users send them, and what must be observed then."""

import json
import sys
from collections.abc import Callable
from typing import Any

from sandbox.documents import change_configure, new_order_id
from sandbox.requester import Heard, Requester
from workers.demo.environment import TENANT, Environment, environment
from workers.demo.order_lifecycle import OrderLifecycle
from workers.demo.screen import Screen


def next_steps(program: str) -> str:
    """Return what is printed at the end of a demo; `program` is how ecs-worker was called."""
    return f"""
What to do next:

  Try it yourself: everything runs until Ctrl-C, and prints commands to copy (docs/quickstart.md)
    {program} demo --stay
  Run a cloud alone to send requests to, and see what can be sent (docs/how-to/publishers.md)
    {program} simulated-openstack --help
    {program} call --help
  Connect your own RabbitMQ and OpenStack: what is missing is told (docs/operations/install.md)
    {program} check
  See what an operator asks and does (docs/operations/README.md)
    {program} --help
"""


def run_demo(openstack: str) -> bool:
    """Run the demo on a `simulated` or the `real` cloud; return True if all promises held.

    Raises `SandboxError` where a part cannot be started, `TimeoutError` where no answer came.
    """
    screen = Screen()
    with (
        environment(openstack, screen) as running,
        Requester(running.broker.url, on_heard=screen.message) as requester,
    ):
        scenarios = Scenarios(running, requester, screen)
        scenarios.run()
        screen.summary(scenarios.checks)
    program = sys.argv[0]
    screen.text(next_steps(program if program.endswith("ecs-worker") else "ecs-worker"))
    return all(held for _, held in scenarios.checks)


class Scenarios:
    """Runs the scenarios in sequence. `checks` has each promise, and whether it held."""

    def __init__(self, running: Environment, requester: Requester, screen: Screen) -> None:
        self._running = running
        self._tenant, self._servers = running.tenant, running.servers
        self._requester = requester
        self._screen = screen
        self._order = change_configure(self._servers.web, self._servers.image)
        self._order_result: Heard | None = None
        self.checks: list[tuple[str, bool]] = []

    def run(self) -> None:
        """Run all."""
        scenarios: tuple[tuple[str, Callable[[], None]], ...] = (
            ("A user lists servers, and searches them.", self.list_servers),
            ("The console stops a server that is not paid for.", self.refuse_unpaid),
            ("The console stops a server and starts it again.", self.stop_and_start),
            ("The console reboots two servers at once.", self.reboot_batch),
            ("A user opens a server's console.", self.open_console),
            ("A user makes an image of a server, lists it, and deletes it.", self.make_image),
            ("The billing system sends a paid order: a larger flavor and disk.", self.resize_paid),
            ("The billing system repeats the order twice.", self.repeat_order),
            ("A paid order names a flavor that does not exist.", self.refuse_order),
            ("Orders buy, stop, renew and delete a server.", self.order_lifecycle),
            ("A publisher sends a malformed order.", self.dead_letter_malformed),
            ("The worker is killed during an order, and another resumes it.", self.survive_kill),
        )
        for title, scenario in scenarios:
            self._screen.title(title)
            scenario()

    def list_servers(self) -> None:
        listed = self._ask("server.list", sortField="name", sortOrder="ascend")
        for one in listed["servers"]:
            paid = one["feeData"]["chargetype"] or "not paid for"
            self._screen.observation(
                f"{one['name']}, {one['translation']}, {one['flavor']['original_name']}, "
                f"system disk {one['root_volume']['size']} GiB, {paid}"
            )
        name = listed["servers"][0]["name"]
        found = self._ask("server.list", searchField="name", searchValue=name)
        counts = (listed["totalCount"], len(listed["servers"]), found["totalCount"])
        self._check("a page of servers is listed and searched", counts == (3, 3, 1))

    def refuse_unpaid(self) -> None:
        code = self._act(self._servers.unpaid, {"os-stop": None})["code"]
        promise = "os-stop of an unpaid server is refused with 101.001014"
        self._check(promise, code == "101.001014")

    def stop_and_start(self) -> None:
        web = self._servers.web
        for action, end in (("os-stop", "SHUTOFF"), ("os-start", "ACTIVE")):
            result = self._act(web, {action: None}, follow=True)
            held = result["code"] == 200 and self._tenant.server(web)["status"] == end
            self._check(f"{action} is answered 200 and ends in {end}", held)

    def reboot_batch(self) -> None:
        ids = [self._servers.web, self._servers.database]
        self._screen.request("server.batch_action reboot HARD of two servers")
        body = {"reboot": {"type": "HARD", "servers": [{"id": one} for one in ids]}}
        message_id = self._requester.command("server.batch_action", body=body)
        result = self._requester.result_of(message_id).body
        for one in ids:
            self._requester.last_update_of("server", message_id, resource_id=one)
        accepted = [one["code"] for one in result["data"]["servers"]]
        self._check("a batch answers for each of its servers", accepted == [200, 200])

    def open_console(self) -> None:
        result = self._act(self._servers.web, {"os-getVNCConsole": {"type": "novnc"}})
        url = str(result["data"]["console"]["url"])
        self._check("the console's URL is answered", url.startswith("http"))

    def make_image(self) -> None:
        body = {"createImage": {"name": "web-golden", "description": "before the resize"}}
        self._screen.request(f"server.action {json.dumps(body)}")
        message_id = self._requester.command(
            "server.action", server_id=self._servers.web, body=body
        )
        image_id = self._requester.result_of(message_id).body["data"]["image_id"]
        ended = self._requester.last_update_of("image", message_id).body["status"]
        listed = self._ask("image.list_private", tag="ECS")["images"]
        for one in listed:
            text = f"image {one['name']}, {one['translation']}, {one['description']}"
            self._screen.observation(text)
        self._screen.request(f"image.delete {image_id[:8]}")
        deleting = self._requester.command("image.delete", image_id=image_id)
        gone = self._requester.last_update_of("image", deleting).body["status"]
        right = (ended, [one["id"] for one in listed], gone) == ("active", [image_id], "deleted")
        self._check("an image is made, listed and deleted", right)

    def resize_paid(self) -> None:
        self._screen.request(
            "order.changeConfigure: S1.small.1 → S1.medium.2, system disk 40 → 60 GiB"
        )
        message_id = self._send_order(self._order)
        self._order_result = self._requester.order_result_of(message_id)
        self._requester.last_update_of("order", message_id)
        web = self._servers.web
        flavor = self._tenant.server(web)["flavor"]["original_name"]
        size = self._tenant.volume_size(web)
        self._screen.observation(f"the server has flavor {flavor}, its disk {size} GiB")
        done = self._order_result.body["code"] == 200 and flavor == "S1.medium.2" and size == 60
        self._check("a paid order is carried out: flavor and disk", done)

    def repeat_order(self) -> None:
        assert self._order_result is not None
        same = []
        for _ in range(2):
            self._screen.request("the same order.changeConfigure again")
            result = self._requester.order_result_of(self._send_order(self._order))
            same.append(result.raw == self._order_result.raw)
        actions = self._tenant.actions(self._servers.web)
        self._screen.observation(f"Nova's action log of the server: {', '.join(actions)}")
        self._check("a repeated order gets the very same result", all(same))
        once = actions.count("resize") == actions.count("confirmResize") == 1
        self._check("and is not carried out again", once)

    def refuse_order(self) -> None:
        database = self._servers.database
        order = json.loads(change_configure(database, self._servers.image))
        order["productList"][0]["itemList"][0]["value"] = "S9.gigantic"
        self._screen.request("order.changeConfigure to S9.gigantic")
        message_id = self._send_order(json.dumps(order))
        result = self._requester.order_result_of(message_id).body["data"]["productSetList"][0]
        refused = result["productSetStatus"] == "fail" and result["resourceChanged"] is False
        self._check(
            "an order that cannot be carried out is refused before anything is changed",
            refused and "resize" not in self._tenant.actions(database),
        )

    def order_lifecycle(self) -> None:
        lifecycle = OrderLifecycle(self._running, self._requester, self._screen)
        lifecycle.run()
        promise = "a server is bought, stopped when unpaid, renewed and deleted; nothing is left"
        self._check(promise, lifecycle.held)

    def dead_letter_malformed(self) -> None:
        self._screen.request("order.changeConfigure: '{\"orderId\": '")
        self._requester.order_result_of(self._requester.order('{"orderId": '))
        self._requester.listen(0.5)
        depth = self._requester.depth("ecs.dead")
        self._screen.observation(f"{depth} dead letter in ecs.dead")
        self._check("a malformed message is answered and dead-lettered, not lost", depth == 1)

    def survive_kill(self) -> None:
        database = self._servers.database
        order = json.loads(change_configure(database, self._servers.image, order_id=new_order_id()))
        # The server has a local disk, which comes with the flavor.
        order["productList"][0]["itemList"] = order["productList"][0]["itemList"][:3]
        self._screen.request("order.changeConfigure: S1.small.1 → S1.medium.2")
        message_id = self._send_order(json.dumps(order))
        self._requester.wait(
            lambda one: (
                one.body.get("message_id") == message_id and one.body.get("status") == "resizing"
            )
        )
        self._requester.listen(0.7)
        self._running.worker.kill()
        self._screen.observation("SIGKILL to the worker")
        self._running.start_another_worker()
        self._screen.observation("another worker has started")
        self._requester.order_result_of(message_id)
        self._requester.last_update_of("order", message_id)
        results = [
            one
            for one in self._requester.heard
            if one.correlation_id == message_id and "productSetList" in str(one.body.get("data"))
        ]
        flavor = self._tenant.server(database)["flavor"]["original_name"]
        actions = self._tenant.actions(database)
        self._screen.observation(f"flavor {flavor}, Nova's action log: {', '.join(actions)}")
        once = flavor == "S1.medium.2" and actions.count("resize") == 1 and len(results) == 1
        self._check("a worker's death loses nothing and repeats nothing", once)

    def _act(self, server_id: str, body: dict[str, Any], *, follow: bool = False) -> dict[str, Any]:
        """Send a server's action, and return its result; `follow` waits for the final update."""
        self._screen.request(f"server.action {json.dumps(body)} on {server_id[:8]}")
        message_id = self._requester.command("server.action", server_id=server_id, body=body)
        result = self._requester.result_of(message_id).body
        if follow and result["code"] == 200:
            self._requester.last_update_of("server", message_id)
        return result

    def _ask(self, operation: str, **fields: Any) -> Any:
        """Send a read, and return the data of its result."""
        self._screen.request(f"{operation} {json.dumps(fields)}")
        return self._requester.result_of(self._requester.command(operation, **fields)).body["data"]

    def _send_order(self, order: str) -> str:
        """Send an order with its tenant, as publishers are trusted here; return its message id."""
        return self._requester.order(order.replace("{", f'{{\n\t"tenant_id": "{TENANT}",', 1))

    def _check(self, promise: str, held: bool) -> None:
        self.checks.append((promise, held))
