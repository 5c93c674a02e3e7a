"""Paid `new` orders from message to message, on the simulated cloud and on the real one."""

import base64
import json
import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from sandbox.issuer import Issuer
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester
from tests.support.new_orders import (
    NOTHING,
    Records,
    delete_all,
    new,
    ports_of,
    quota,
    records,
    used,
)
from tests.support.orders import carried_out, ended, publish, reported
from tests.support.tenant import Tenant
from tests.support.workshop import Workshop

pytestmark = pytest.mark.slow

UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def before(tenant: Tenant) -> Iterator[Records]:
    """Provide what the tenant had; what comes is taken away after the test."""
    found = records(tenant)
    yield found
    delete_all(tenant, records(tenant) - found)


@pytest.fixture
def admin(cloud: Any) -> Iterator[Tenant]:
    found = Tenant(cloud.clouds_yaml, "admin")
    yield found
    found.close()


def products(result: Any) -> list[list[dict[str, Any]]]:
    """The products of each set."""
    return [one["productList"] for one in result.body["data"]["productSetList"]]


def made_by(result: Any) -> list[str]:
    return [product["instanceId"] for one in products(result) for product in one]


def test_a_server_is_made_as_ordered_with_its_disks_and_paid_for(
    requester: Requester, tenant: Tenant, before: Records
) -> None:
    chosen = {"instanceName": "web", "tags": "blue,green"}
    order = new(tenant, statusTime="2026-11-01 09:30:00", token=Issuer().token(), chosen=chosen)
    result, statuses = carried_out(requester, order)
    assert result.routing_key == "order.new"
    assert reported(result) == (200, "success", True)
    assert statuses == ["accepted", "validating", "creating", "succeeded"]
    (product,) = products(result)[0]
    server_id = product["instanceId"]
    assert product.items() >= order["productList"][0].items()
    assert (product["instanceStatus"], product["before"]) == ("ACTIVE", None)
    assert (product["after"]["status"], product["after"]["flavor"]) == ("ACTIVE", "S1.small.1")
    assert [(one["size"], one["type"]) for one in product["after"]["disks"]] == [
        (2, "SATA"),
        (1, "SSD"),
    ]
    # Two volumes, a server, its fee data.
    assert len(product["requestIds"]) == 4

    made = records(tenant) - before
    assert (made.servers, len(made.volumes), len(made.ports)) == (frozenset([server_id]), 2, 1)
    server = tenant.server(server_id)
    assert (server["name"], server["status"], server["flavor"]["original_name"]) == (
        "web",
        "ACTIVE",
        "S1.small.1",
    )
    assert sorted(server["tags"]) == ["blue", "green"]
    assert all(
        one["delete_on_termination"] for one in server["os-extended-volumes:volumes_attached"]
    )
    system, data = tenant.volumes(server_id)
    assert (system["volume_type"], system["size"], system["bootable"]) == ("SATA", 2, "true")
    assert system["volume_image_metadata"]["image_id"] == tenant.image
    assert (data["volume_type"], data["size"], data["bootable"]) == ("SSD", 1, "false")
    assert {one["metadata"]["order_id"] for one in (system, data)} == {order["orderId"]}

    fees = server["metadata"]
    assert (fees["charge_type"], fees["order_id"]) == ("hourlySettlement", order["orderId"])
    assert (fees["purchase_time"], fees["keycloak_user_id"]) == (
        "2026-11-01 09:30:00",
        order["userId"],
    )
    assert fees["keycloak_user_name"] == "gaoss"
    begin, end = (
        datetime.fromisoformat(fees[name]) for name in ("start_fee_time", "next_fee_time")
    )
    assert 28 <= (end - begin).days <= 31
    told = [
        one.body
        for one in requester.updates_of(result.correlation_id)
        if one.body["resource"] == "server"
    ]
    assert {one["id"] for one in told} == {server_id}
    assert [one["status"] for one in told if one["final"]] == ["ACTIVE"]
    last = requester.last_update_of("order", result.correlation_id)
    assert (last.body["instanceId"], last.body["progress"]) == (server_id, 100)


@pytest.mark.long_on_real
def test_two_sets_of_two_servers_are_four_servers_by_name(
    requester: Requester, tenant: Tenant, before: Records
) -> None:
    order = new(tenant, sets=2, count=2, chosen={"instanceName": "four"})
    result, _ = carried_out(requester, order)
    assert result.body["code"] == 200
    assert [len(one) for one in products(result)] == [2, 2]
    made = records(tenant) - before
    assert (frozenset(made_by(result)), len(made.volumes), len(made.ports)) == (made.servers, 8, 4)
    names = [tenant.server(one)["name"] for one in made_by(result)]
    assert names == ["four-1", "four-2", "four-3", "four-4"]
    finals = [one for one in requester.updates_of(result.correlation_id) if one.is_final]
    assert sorted(one.body["id"] for one in finals if one.body["resource"] == "server") == sorted(
        made.servers
    )


def test_what_the_customer_chose_is_what_is_made(
    requester: Requester, tenant: Tenant, before: Records
) -> None:
    network, (_, chosen), group, key = furnished(tenant)
    order = new(
        tenant,
        chosen={
            "subnetId": chosen["id"],
            "securityGroups": [group["name"]],
            "keyName": key,
            "adminPass": "canary-pass-1",
            "userData": "#!/bin/sh\necho canary-data\n",
        },
    )
    order["productList"][0]["availableZone"] = "nova"
    result, _ = carried_out(requester, order)
    assert result.body["code"] == 200, result.body
    (server_id,) = made_by(result)
    (port,) = ports_of(tenant, server_id)
    assert (port["network_id"], [one["subnet_id"] for one in port["fixed_ips"]]) == (
        network["id"],
        [chosen["id"]],
    )
    assert port["security_groups"] == [group["id"]]
    tenant.later("network", f"/ports/{port['id']}")
    assert tenant.server(server_id)["key_name"] == key
    shown = result.body["data"]
    assert "canary" not in json.dumps(shown)


def furnished(tenant: Tenant) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any], str]:
    """A network with two subnets, a security group, a key pair of the service account."""

    def post(kind: str, **fields: Any) -> dict[str, Any]:
        answer = tenant.connection.network.post(f"/{kind.replace('_', '-')}s", json={kind: fields})
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()[kind]
        return made

    network = post("network", name="chosen-net")
    tenant.later("network", f"/networks/{network['id']}")
    subnets = [
        post(
            "subnet",
            network_id=network["id"],
            name=f"chosen-{number}",
            ip_version=4,
            cidr=f"10.{number}.0.0/24",
        )
        for number in (71, 72)
    ]
    group = post("security_group", name=f"web-{uuid.uuid4().hex[:6]}")
    tenant.later("network", f"/security-groups/{group['id']}")
    return network, subnets, group, tenant.service_key()


def test_the_tenants_only_network_is_taken_and_of_several_one_must_be_named(
    requester: Requester, tenant: Tenant, before: Records
) -> None:
    network, *_ = furnished(tenant)
    result, statuses = carried_out(requester, new(tenant))
    assert (result.body["code"], result.body["message"]) == (
        "101.001002",
        "参数networkId不符合规范",
    )
    assert reported(result)[1:] == ("fail", False)
    assert statuses == ["accepted", "validating", "failed"]
    assert (records(tenant) - before).servers == frozenset()
    result, _ = carried_out(requester, new(tenant, chosen={"networkId": network["id"]}))
    assert result.body["code"] == 200
    (server_id,) = made_by(result)
    assert [one["network_id"] for one in ports_of(tenant, server_id)] == [network["id"]]


def changed(**fields: str | None) -> list[tuple[str, str]]:
    """The usual items with others; None: without."""
    usual = {"std_1C1G": "S1.small.1", "sys_EBS_SATA": "2"} | fields
    return [(code, value) for code, value in usual.items() if value is not None]


@pytest.mark.parametrize(
    ("items", "chosen", "refused"),
    [
        (changed(std_1C1G="S9.gigantic"), {}, "std_1C1G"),
        (changed(std_1C1G="0"), {}, "itemList"),
        (changed(CPU="2"), {}, "CPU"),
        (changed(memory="4"), {}, "memory"),
        (changed(sys_EBS_SATA="0"), {}, "sys_EBS"),
        (changed(sys_EBS_SSD="2"), {}, "sys_EBS_SSD"),
        (changed(sys_EBS_SATA=None, sys_EBS_GOLD="2"), {}, "sys_EBS_GOLD"),
        (changed(sys_EBS_SATA="two"), {}, "sys_EBS_SATA"),
        (changed(data_EBS_GOLD="2"), {}, "data_EBS_GOLD"),
        (changed(image_Windows=UNKNOWN), {}, "image_Linux"),
        (changed(), {"networkId": UNKNOWN}, "networkId"),
        (changed(), {"networkId": "external"}, "networkId"),
        (changed(), {"subnetId": UNKNOWN}, "subnetId"),
        (changed(), {"securityGroups": ["nobody"]}, "securityGroups"),
        (changed(), {"keyName": "nobody's"}, "keyName"),
        (changed(), {"availableZone": "mars"}, "availableZone"),
        (changed(), {"adminPass": "***"}, "adminPass"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is(
    requester: Requester,
    tenant: Tenant,
    before: Records,
    items: Any,
    chosen: dict[str, Any],
    refused: str,
) -> None:
    if chosen.get("networkId") == "external":
        listed = tenant.connection.network.get("/networks").json()["networks"]
        chosen = {"networkId": next(one["id"] for one in listed if one["router:external"])}
    result, statuses = carried_out(requester, new(tenant, *items, chosen=chosen))
    assert (result.body["code"], result.body["message"]) == (
        "101.001002",
        f"参数{refused}不符合规范",
    )
    assert reported(result)[1:] == ("fail", False)
    assert [(one["instanceId"], one["instanceStatus"]) for one in products(result)[0]] == [
        (None, None)
    ]
    assert statuses == ["accepted", "validating", "failed"]
    assert records(tenant) - before == NOTHING


def test_whose_servers_they_are_to_be_must_be_said(requester: Requester, tenant: Tenant) -> None:
    order = new(tenant)
    del order["tenant_id"]
    message_id = publish(requester, order)
    result = requester.order_result_of(message_id)
    assert (result.body["code"], result.body["message"]) == (
        "101.001002",
        "参数tenant_id不符合规范",
    )


@pytest.mark.parametrize(
    ("service", "most"),
    [
        ("compute", {"instances": 1}),
        ("compute", {"cores": 1}),
        ("compute", {"ram": 1024}),
        ("block_storage", {"volumes": 3}),
        ("block_storage", {"gigabytes": 5}),
        ("block_storage", {"gigabytes_SSD": 1}),
    ],
)
def test_what_the_quota_does_not_allow_is_refused_before_anything_is_made(
    requester: Requester,
    tenant: Tenant,
    before: Records,
    admin: Tenant,
    service: str,
    most: dict[str, int],
) -> None:
    """Room for one, two ordered."""
    with quota(
        tenant,
        admin,
        service,
        **{name: used(tenant, service, name) + room for name, room in most.items()},
    ):
        result, _ = carried_out(requester, new(tenant, count=2))
    assert (result.body["code"], result.body["data"]["reason"]) == ("101.001040", "quota")
    assert reported(result)[1:] == ("fail", False)
    assert records(tenant) - before == NOTHING


@pytest.mark.once_on_real
@pytest.mark.parametrize(
    ("point", "match", "reason"),
    [
        ("volume.create_volume", "five-2-data1", "volume_failed"),
        ("volume.clone_image", "five-5-system", "volume_failed"),
        ("virt.spawn", "five-4", "create_failed"),
    ],
)
def test_one_of_five_that_cannot_be_made_leaves_none(
    requester: Requester,
    tenant: Tenant,
    before: Records,
    cloud: Any,
    point: str,
    match: str,
    reason: str,
) -> None:
    cloud.fault(point, match=match, error="it is full", times=20)
    order = new(tenant, count=5, chosen={"instanceName": "five"})
    result, statuses = carried_out(requester, order)
    assert (result.body["code"], result.body["data"]["reason"]) == ("101.001040", reason)
    assert reported(result)[1:] == ("fail", False)
    assert statuses == ["accepted", "validating", "creating", "reverting", "failed"]
    assert len(products(result)[0]) == 5
    for product in products(result)[0]:
        gone = (product["instanceId"] is None) == (product["instanceStatus"] is None)
        assert gone
        assert product["instanceStatus"] in (None, "DELETE")
    assert records(tenant) - before == NOTHING
    finals = [one.body for one in requester.updates_of(result.correlation_id) if one.is_final]
    assert {one["status"] for one in finals if one["resource"] == "server"} <= {"DELETED"}


def test_a_flavor_that_no_host_has_room_for_leaves_nothing(
    requester: Requester, tenant: Tenant, before: Records
) -> None:
    items = (("std_huge", "too-big-for-any-host"), ("sys_EBS_SATA", "2"))
    result, _ = carried_out(requester, new(tenant, *items))
    assert (result.body["code"], result.body["data"]["reason"]) == ("101.001040", "no_host")
    assert reported(result)[1:] == ("fail", False)
    assert records(tenant) - before == NOTHING


def test_why_a_server_is_in_error_is_told_though_nova_writes_it_down_later(
    requester: Requester, tenant: Tenant, before: Records, simulated: SimulatedOpenStack, cloud: Any
) -> None:
    if cloud is not simulated:
        pytest.skip("how long the real Nova takes to write it down is not to be chosen")
    cloud.fault("nova.write_fault", match="late-fault", delay=2, times=1)
    items = (("std_huge", "too-big-for-any-host"), ("sys_EBS_SATA", "2"))
    result, _ = carried_out(requester, new(tenant, *items, chosen={"instanceName": "late-fault"}))
    assert (result.body["code"], result.body["data"]["reason"]) == ("101.001040", "no_host")
    assert records(tenant) - before == NOTHING


@pytest.mark.long_on_real
def test_what_cannot_be_taken_away_again_is_told(
    requester: Requester, tenant: Tenant, before: Records, cloud: Any
) -> None:
    cloud.fault("virt.spawn", match="stuck-2", error="it is full", times=20)
    cloud.fault("virt.destroy", match="stuck-1", error="it does not go", times=20)
    result, _ = carried_out(requester, new(tenant, count=2, chosen={"instanceName": "stuck"}))
    cloud.clear_faults()
    assert (result.body["code"], reported(result)[1:]) == ("101.001040", ("fail", True))
    first, second = products(result)[0]
    left = records(tenant) - before
    assert left.servers == {first["instanceId"]}
    assert (first["instanceStatus"], second["instanceStatus"]) == ("ERROR", "DELETE")
    assert (set(first["left"]["servers"]), set(first["left"]["volumes"])) == (
        left.servers,
        left.volumes,
    )
    assert "left" not in second


def test_an_order_that_comes_often_makes_its_servers_once(
    requester: Requester, tenant: Tenant, before: Records
) -> None:
    order = new(tenant, count=2)
    messages = [
        publish(requester, order | {"statusTime": f"2026-11-23 10:00:0{number}"})
        for number in range(8)
    ]
    results = [requester.order_result_of(one, 120) for one in messages]
    assert {one.raw for one in results} == {results[0].raw}
    assert results[0].body["code"] == 200
    other = new(tenant, count=3, orderId=order["orderId"])
    refused, _ = requester.order_result_of(publish(requester, other)), None
    assert (refused.body["code"], refused.body["data"]["reason"]) == (
        "101.001002",
        "conflicting_duplicate",
    )
    made = records(tenant) - before
    assert made.servers == frozenset(made_by(results[0]))
    assert len(made.volumes) == 4


def test_secrets_reach_the_server_and_nothing_else(
    requester: Requester, tenant: Tenant, before: Records, admin: Tenant, cloud: Any, shop: Workshop
) -> None:
    password, data = f"pw-{uuid.uuid4().hex}", f"#cloud-config\n# {uuid.uuid4().hex}\n"
    encoded = base64.b64encode(data.encode()).decode()
    chosen = {"instanceName": "secret", "adminPass": password, "userData": data}
    # Nova is away for longer than an order's call is tried again: the order is put off, and holds
    # its secrets.
    cloud.fault("api.nova", match="POST .*/servers$", error="away", status=503)
    order = new(tenant, chosen=chosen)
    message_id = publish(requester, order)
    requester.wait(
        lambda one: one.body.get("status") == "waiting_retry" and one.body["id"] == order["orderId"]
    )
    assert all(requester.depth(f"ecs.retry.{seconds}") == 0 for seconds in (5, 30, 120))
    cloud.clear_faults()
    result, _ = ended(requester, message_id)
    assert result.body["code"] == 200
    (server_id,) = made_by(result)
    assert admin.server(server_id)["OS-EXT-SRV-ATTR:user_data"] == encoded

    # What Nova will not take, it repeats in its refusal.
    refusal = f"Invalid input for field/attribute user_data. Value: {encoded}, {password}"
    cloud.fault("api.nova", match="POST .*/servers$", error=refusal, status=400, times=1)
    result, _ = carried_out(requester, new(tenant, chosen=chosen))
    assert (result.body["code"], result.body["data"]["reason"]) == (
        "101.001040",
        "refused_by_cloud",
    )

    # What is parked is kept without them.
    refused = publish(requester, order | {"billType": "monthly"})
    requester.order_result_of(refused)
    (parked,) = requester.dead_letters_of([refused])
    assert parked["consoleCustomization"] == {
        "adminPass": "***",
        "instanceName": "secret",
        "userData": "***",
    }
    everything = (
        shop.logs() + shop.journal_dump() + "".join(one.raw.decode() for one in requester.heard)
    )
    for secret in (password, data.split("# ")[1].strip(), encoded[:40]):
        assert secret not in everything + json.dumps(parked)
