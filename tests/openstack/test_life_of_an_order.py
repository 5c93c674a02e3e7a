"""A customer's server from purchase to deletion by messages alone, beside the cloud's own records
at every step.
"""

from dataclasses import dataclass, replace
from typing import Any

from sandbox.requester import Heard, Requester
from tests.openstack.test_changes import change
from tests.support.new_orders import NOTHING, new, records
from tests.support.orders import carried_out, paid, product_of, publish, soft_down
from tests.support.tenant import Tenant


@dataclass(frozen=True, slots=True)
class Seen:
    """Holds what Nova, Cinder and Neutron say of the customer's server."""

    status: str
    flavor: str
    disks: tuple[tuple[str, int, str], ...]
    ports: int
    metadata: dict[str, str]


class Customer:
    """Somebody whose orders a billing system sends; every result is compared with the cloud's own
    records.
    """

    def __init__(self, requester: Requester, tenant: Tenant) -> None:
        self._requester = requester
        self.tenant = tenant
        self.server_id = ""
        self.sent: list[tuple[dict[str, Any], Heard]] = []

    def seen(self) -> Seen:
        """The server as it is now."""
        server, disks = self.tenant.server(self.server_id), self.tenant.volumes(self.server_id)
        return Seen(
            server["status"],
            server["flavor"]["original_name"],
            tuple((one["volume_type"], one["size"], one["status"]) for one in disks),
            len([one for one in self.tenant.ports() if one["device_id"] == self.server_id]),
            server["metadata"],
        )

    def sends(self, order: dict[str, Any]) -> dict[str, Any]:
        """Have an order carried out; its product, or instance."""
        result, statuses = carried_out(self._requester, order)
        assert (result.body["code"], statuses[-1]) == (200, "succeeded"), result.body
        self.sent.append((order, result))
        if "instanceList" in order:
            (instance,) = result.body["data"]["instanceList"]
            return dict(instance)
        return product_of(result)

    def foresees(self, order: dict[str, Any]) -> list[str]:
        """The steps of a plan, which must change nothing."""
        message_id = self._requester.command("order.plan", order=order)
        plan = self._requester.result_of(message_id).body["data"]
        assert plan["verdict"] == "carried_out", plan
        return [one["name"] for one in plan["steps"]]


def agree(picture: dict[str, Any] | None, seen: Seen) -> None:
    """Assert that a result shows what the cloud has."""
    assert picture is not None
    assert (picture["status"], picture["flavor"]) == (seen.status, seen.flavor)
    assert [(one["type"], one["size"]) for one in picture["disks"]] == [
        one[:2] for one in seen.disks
    ]
    assert picture["feeData"] == {item: seen.metadata.get(item) for item in picture["feeData"]}


def test_a_server_lives_from_purchase_to_deletion_by_messages_alone(
    requester: Requester, tenant: Tenant
) -> None:
    before = records(tenant)
    customer = Customer(requester, tenant)

    order = new(
        tenant, chosen={"instanceName": "life", "subnetId": tenant.subnet()}, userName="gaoss"
    )
    assert customer.foresees(order) == ["createVolume", "createVolume", "createPort", "create"]
    assert records(tenant) == before
    product = customer.sends(order)
    customer.server_id = product["instanceId"]
    tenant.adopt(customer.server_id)
    bought = customer.seen()
    made = records(tenant) - before
    assert (made.servers, len(made.volumes), len(made.ports)) == ({customer.server_id}, 2, 1)
    assert (bought.status, bought.flavor, bought.ports) == ("ACTIVE", "S1.small.1", 1)
    assert bought.disks == (("SATA", 2, "in-use"), ("SSD", 1, "in-use"))
    assert (bought.metadata["order_id"], bought.metadata["charge_type"]) == (
        order["orderId"],
        "hourlySettlement",
    )
    assert product["before"] is None
    agree(product["after"], bought)

    order = change(customer.server_id, ("std_2C4G", "S1.medium.2"), ("sys_EBS_SATA", "3"))
    assert customer.foresees(order) == ["resize", "extend", "confirm", "feeData"]
    assert customer.seen() == bought
    product = customer.sends(order)
    larger = customer.seen()
    assert (larger.status, larger.flavor) == ("ACTIVE", "S1.medium.2")
    assert larger.disks == (("SATA", 3, "in-use"), ("SSD", 1, "in-use"))
    assert larger.metadata["order_id"] == order["orderId"]
    agree(product["before"], bought)
    agree(product["after"], larger)
    assert set(product["requestIds"]) >= set(
        tenant.request_ids(customer.server_id, "resize", "confirmResize")
    )

    tenant.set_metadata(customer.server_id, next_fee_time="2099-01-31 08:00:00")
    due = customer.seen()
    product = customer.sends(paid("renew", customer.server_id, duration="1", durationUnit="M"))
    renewed = customer.seen()
    assert renewed.metadata["next_fee_time"] == "2099-02-28 08:00:00"
    assert (renewed.status, renewed.flavor, renewed.disks) == (due.status, due.flavor, due.disks)
    agree(product["before"], due)
    agree(product["after"], renewed)

    instance = customer.sends(soft_down((customer.server_id, "stopServer")))
    stopped = customer.seen()
    assert (stopped.status, stopped.metadata["soft_down"]) == ("SHUTOFF", "stopped")
    agree(instance["before"], renewed)
    agree(instance["after"], stopped)

    order = paid("renew", customer.server_id, duration="1", durationUnit="M")
    assert customer.foresees(order) == ["renew", "start", "unmark"]
    product = customer.sends(order)
    again = customer.seen()
    assert (again.status, again.metadata["next_fee_time"]) == ("ACTIVE", "2099-03-31 08:00:00")
    assert "soft_down" not in again.metadata
    agree(product["before"], stopped)
    agree(product["after"], again)

    customer.sends(soft_down((customer.server_id, "stopServer")))
    assert customer.seen().status == "SHUTOFF"
    instance = customer.sends(soft_down((customer.server_id, "resumeServer")))
    resumed = customer.seen()
    # Two more orders were carried out on it: nothing else tells.
    assert (
        len(resumed.metadata["orders"].split(",")) == len(again.metadata["orders"].split(",")) + 2
    )
    named = {**again.metadata, "orders": resumed.metadata["orders"]}
    assert resumed == replace(again, metadata=named)
    agree(instance["after"], resumed)
    assert tenant.actions(customer.server_id) == [
        "create",
        "resize",
        "confirmResize",
        "stop",
        "start",
        "stop",
        "start",
    ]

    product = customer.sends(paid("unsubscribe", customer.server_id))
    assert product["instanceStatus"] == "DELETE"
    agree(product["before"], resumed)
    assert product["after"] is None
    assert records(tenant) - before == NOTHING
    assert tenant.is_gone(customer.server_id)

    # Every order once more: the same results, and nothing comes back to life.
    for order, result in customer.sent:
        assert requester.order_result_of(publish(requester, order)).raw == result.raw
    now = records(tenant)
    assert (now - before, before - now) == (NOTHING, NOTHING)
