"""The life of an order: a customer's server from purchase to deletion, by messages of the billing
system alone.
"""

import json
import uuid
from typing import Any

from sandbox.documents import REGION, change_configure, new_order_id
from sandbox.requester import Requester
from workers.demo.screen import Screen
from workers.demo.stage import Stage


class Life:
    """The orders of one server, in their order. `held` tells whether each did what it should."""

    def __init__(self, stage: Stage, requester: Requester, screen: Screen) -> None:
        self._stage = stage
        self._requester = requester
        self._screen = screen
        self._server_id = ""
        self.held = True

    def live(self) -> None:
        """All of it."""
        before = self._stage.tenant.everything()
        self._buy()
        self._miss_a_payment()
        self._pay_again()
        self._leave()
        self._see(
            self._stage.tenant.everything() == before,
            "nothing of it is left: no server, no disk, no port",
        )

    def _buy(self) -> None:
        order = self._order(
            "new", [("std_1C1G", "S1.small.1"), ("sys_EBS_SATA", "10"), ("data_EBS_SSD", "5")]
        )
        order["productList"][0]["itemList"].append(_item("image_Linux", self._stage.servers.image))
        self._screen.sent("order.plan of an order.new: what would it do?")
        message_id = self._requester.command("order.plan", order=order)
        plan = self._requester.result_of(message_id).body["data"]
        self._screen.note(f"{plan['verdict']}: {', '.join(step['name'] for step in plan['steps'])}")
        self._screen.sent(
            "order.new: one server with a system disk of 10 GiB and a data disk of 5 GiB, for a month"
        )
        product = self._carry_out(order)
        self._server_id = product["instanceId"]
        disks = [f"{one['size']} GiB {one['type']}" for one in product["after"]["disks"]]
        until = product["after"]["feeData"]["next_fee_time"]
        self._see(
            self._status() == "ACTIVE",
            f"a server with {' and '.join(disks)}, paid for until {until}",
        )

    def _miss_a_payment(self) -> None:
        instance = {
            "subFlowId": "1",
            "operateType": "stopServer",
            "productLineCode": "ECS",
            "productTypeCode": "ECS_std",
            "instanceId": self._server_id,
        }
        self._screen.sent("order.softDown stopServer: the customer has not paid")
        message = {"region": REGION, "flowId": uuid.uuid4().hex, "instanceList": [instance]}
        message_id = self._requester.order(json.dumps(message), "order.softDown")
        (told,) = self._requester.order_result_of(message_id).body["data"]["instanceList"]
        self._see(
            told["result"] == "success" and self._status() == "SHUTOFF",
            f"the server is {told['instanceStatus']}",
        )

    def _pay_again(self) -> None:
        self._screen.sent("order.renew: another month")
        product = self._carry_out(self._order("renew", []))
        dates = [product[when]["feeData"]["next_fee_time"] for when in ("before", "after")]
        self._see(
            self._status() == "ACTIVE",
            f"paid for until {dates[1]} instead of {dates[0]}, and it runs again",
        )

    def _leave(self) -> None:
        self._screen.sent("order.unsubscribe")
        product = self._carry_out(self._order("unsubscribe", []))
        self._see(product["instanceStatus"] == "DELETE", "the server is gone")

    def _order(self, order_type: str, items: list[tuple[str, str]]) -> dict[str, Any]:
        order: dict[str, Any] = json.loads(
            change_configure(self._server_id, self._stage.servers.image)
        )
        order |= {
            "orderType": order_type,
            "orderId": new_order_id(),
            "tenant_id": "tenant-a",
            "durationUnit": "M",
        }
        order["consoleCustomization"] = {"instanceName": "shop"}
        order["productList"][0]["itemList"] = [_item(code, value) for code, value in items]
        return order

    def _carry_out(self, order: dict[str, Any]) -> dict[str, Any]:
        message_id = self._requester.order(json.dumps(order), f"order.{order['orderType']}")
        result = self._requester.order_result_of(message_id).body
        self._requester.last_update_of("order", message_id)
        self.held &= result["code"] == 200
        product: dict[str, Any] = result["data"]["productSetList"][0]["productList"][0]
        return product

    def _status(self) -> str:
        return str(self._stage.tenant.server(self._server_id)["status"])

    def _see(self, held: bool, what: str) -> None:
        self.held &= held
        self._screen.note(what)


def _item(code: str, value: str) -> dict[str, str]:
    return {"code": code, "value": value, "name": code}
