"""The orders of one server, from purchase to deletion, by messages of the billing system alone."""

import json
import uuid
from typing import Any

from sandbox.documents import REGION, change_configure, new_order_id
from sandbox.requester import Requester
from workers.demo.environment import TENANT, Environment
from workers.demo.screen import Screen


class OrderLifecycle:
    """Sends the orders in sequence. `held` is True while each did what it should."""

    def __init__(self, environment: Environment, requester: Requester, screen: Screen) -> None:
        self._environment = environment
        self._requester = requester
        self._screen = screen
        self._server_id = ""
        self.held = True

    def run(self) -> None:
        """Buy, stop, renew and unsubscribe a server."""
        tenant = self._environment.tenant
        before = tenant.resource_ids()
        self._buy()
        self._stop_unpaid()
        self._renew()
        self._screen.request("order.unsubscribe")
        product = self._order_result(self._order("unsubscribe", []))
        self._check(product["instanceStatus"] == "DELETE", "the server is gone")
        self._check(tenant.resource_ids() == before, "no server, disk or port of it is left")

    def _buy(self) -> None:
        items = [("std_1C1G", "S1.small.1"), ("sys_EBS_SATA", "10"), ("data_EBS_SSD", "5")]
        order = self._order("new", [*items, ("image_Linux", self._environment.servers.image)])
        self._screen.request("order.plan of an order.new: the preview")
        message_id = self._requester.command("order.plan", order=order)
        plan = self._requester.result_of(message_id).body["data"]
        steps = ", ".join(step["name"] for step in plan["steps"])
        self._screen.observation(f"{plan['verdict']}: {steps}")
        self._screen.request(
            "order.new: a server with a system disk of 10 GiB and a data disk of 5 GiB, for a month"
        )
        product = self._order_result(order)
        self._server_id = product["instanceId"]
        disks = [f"{one['size']} GiB {one['type']}" for one in product["after"]["disks"]]
        until = product["after"]["feeData"]["next_fee_time"]
        shown = f"a server with {' and '.join(disks)}, paid for until {until}"
        self._check(self._status() == "ACTIVE", shown)

    def _stop_unpaid(self) -> None:
        instance = {
            "subFlowId": "1",
            "operateType": "stopServer",
            "productLineCode": "ECS",
            "productTypeCode": "ECS_std",
            "instanceId": self._server_id,
        }
        self._screen.request("order.softDown stopServer: the customer has not paid")
        message = {"region": REGION, "flowId": uuid.uuid4().hex, "instanceList": [instance]}
        message_id = self._requester.order(json.dumps(message), "order.softDown")
        (result,) = self._requester.order_result_of(message_id).body["data"]["instanceList"]
        held = result["result"] == "success" and self._status() == "SHUTOFF"
        self._check(held, f"the server is {result['instanceStatus']}")

    def _renew(self) -> None:
        self._screen.request("order.renew: another month")
        product = self._order_result(self._order("renew", []))
        before, after = (product[when]["feeData"]["next_fee_time"] for when in ("before", "after"))
        shown = f"paid for until {after} instead of {before}, and it runs again"
        self._check(self._status() == "ACTIVE", shown)

    def _order(self, order_type: str, items: list[tuple[str, str]]) -> dict[str, Any]:
        order: dict[str, Any] = json.loads(
            change_configure(self._server_id, self._environment.servers.image)
        )
        order |= {
            "orderType": order_type,
            "orderId": new_order_id(),
            "tenant_id": TENANT,
            "durationUnit": "M",
            "consoleCustomization": {"instanceName": "shop"},
        }
        order["productList"][0]["itemList"] = [
            {"code": code, "value": value, "name": code} for code, value in items
        ]
        return order

    def _order_result(self, order: dict[str, Any]) -> dict[str, Any]:
        """Send an order, and return its product in the result."""
        message_id = self._requester.order(json.dumps(order), f"order.{order['orderType']}")
        result = self._requester.order_result_of(message_id).body
        self._requester.last_update_of("order", message_id)
        self.held &= result["code"] == 200
        product: dict[str, Any] = result["data"]["productSetList"][0]["productList"][0]
        return product

    def _status(self) -> str:
        return str(self._environment.tenant.server(self._server_id)["status"])

    def _check(self, held: bool, text: str) -> None:
        self.held &= held
        self._screen.observation(text)
