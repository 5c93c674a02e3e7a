"""Each kind of order as it comes, read wholly, and every wrong field named as the API names it."""

import base64
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from messages.codes import Code
from messages.errors import Refused
from messages.operations import parse_order
from messages.orders import (
    Operate,
    OrderNew,
    OrderRenew,
    OrderSoftDown,
    OrderType,
    OrderUnsubscribe,
    Term,
    Unit,
    is_paid,
    name_of,
)
from messages.results import (
    InstanceOutcome,
    ProductOutcome,
    order_result,
    soft_down_result,
    unread_order_result,
)
from messages.secrets import MASK
from sandbox.documents import REGION, change_configure

ID = "616fb98f-46ca-475e-917e-2563e5a8cd19"
OTHER = "616fb98f-46ca-475e-917e-2563e5a8cd20"
IMAGE = "da099db5-e180-49c0-a74d-54bbc18fafd4"
#: Of a server that nobody has looked at.
NOTHING_SHOWN = {"before": None, "after": None, "requestIds": []}
SHANGHAI = ZoneInfo("Asia/Shanghai")
NOW = datetime(2026, 11, 23, 10, tzinfo=SHANGHAI)

Change = Callable[[dict[str, Any], dict[str, Any]], Any]


def paid(order_type: str, change: Change = lambda *_: None) -> dict[str, Any]:
    order: dict[str, Any] = json.loads(change_configure(ID, IMAGE, order_id="178549870045495296"))
    order["orderType"] = f"{order_type} "
    change(order, order["productList"][0])
    return order


def new(change: Change = lambda *_: None, **customization: Any) -> dict[str, Any]:
    return paid(
        "new",
        lambda order, one: (order.update(consoleCustomization=customization), change(order, one)),
    )


def several(count: int, **customization: Any) -> dict[str, Any]:
    """An order for so many servers, whose names are numbered."""
    return new(lambda _, one: one.update(instanceCount=str(count)), **customization)


def with_data_disks(count: int, **customization: Any) -> dict[str, Any]:
    """An order for a server with so many data disks."""
    disks = [{"code": "data_EBS_SATA", "value": "1"} for _ in range(count)]
    return new(lambda _, one: one["itemList"].extend(disks), **customization)


def soft_down(**fields: Any) -> dict[str, Any]:
    entry = {
        "subFlowId": "sub-1",
        "operateType": "stopServer",
        "productLineCode": "ECS",
        "productTypeCode": "ECS_std",
        "instanceId": ID,
    }
    return {"region": REGION, "flowId": "flow-1", "instanceList": [entry | fields]}


def refusal(message: dict[str, Any]) -> str | None:
    with pytest.raises(Refused) as caught:
        parse_order(message)
    assert caught.value.code is Code.PARAMETER
    return caught.value.subject


def test_a_new_order_is_read_with_what_the_customer_chose() -> None:
    order = parse_order(
        new(
            lambda order, one: (
                order.update(setCount="2"),
                one.update(instanceCount="3", availableZone=" az-1 "),
            ),
            instanceName="web",
            networkId="",
            subnetId=ID.upper(),
            securityGroups=["web", "ssh", "web"],
            keyName="key",
            tags="a, b",
            adminPass=" p w ",
            userData="#cloud-config\n",
        )
    )
    assert isinstance(order, OrderNew)
    assert (order.sets, order.count, order.term) == (2, 6, Term(1, Unit.HOUR))
    (product,) = order.products
    assert (product.count, product.zone) == (3, "az-1")
    assert [item.code for item in product.items] == [
        "std_2C4G",
        "CPU",
        "memory",
        "image_Windows",
        "sys_EBS_SATA",
    ]
    chosen = order.customization
    assert (chosen.name, chosen.network_id, chosen.subnet_id, chosen.key_name) == (
        "web",
        None,
        ID,
        "key",
    )
    assert (chosen.security_groups, chosen.tags) == (("web", "ssh"), ("a", "b"))
    assert order.secrets.admin_pass is not None
    assert order.secrets.admin_pass.get_secret_value() == " p w "
    assert order.secrets.user_data is not None
    assert base64.b64decode(order.secrets.user_data.get_secret_value()) == b"#cloud-config\n"
    assert order.instance_ids == ()


def jwt(payload: Any) -> str:
    return f"head.{base64.urlsafe_b64encode(json.dumps(payload).encode()).decode().rstrip('=')}.signature"


@pytest.mark.parametrize(
    ("token", "name"),
    [
        (f"Bearer {jwt({'preferred_username': 'gaoss'})}", "gaoss"),
        (jwt({"preferred_username": 7}), None),
        (jwt({"preferred_username": "gaoss\U0001f600"}), None),
        (jwt([1]), None),
        (jwt({}), None),
        ("a.!!!.c", None),
        ("a.b", None),
        (MASK, None),
        (None, None),
        (7, None),
        ("a." + "x" * 70_000 + ".c", None),
    ],
)
def test_the_users_name_is_what_the_token_calls_him(token: Any, name: str | None) -> None:
    order = parse_order(new() | {"token": token})
    assert isinstance(order, OrderNew)
    assert order.user_name == name


def test_what_is_kept_of_a_new_order_has_no_secrets() -> None:
    order = parse_order(new(adminPass="canary-1", userData="IyBjYW5hcnk="))
    assert "canary" not in repr(order)
    assert "IyBjYW5hcnk=" not in repr(order)
    assert order.ordered["consoleCustomization"] == {"adminPass": MASK, "userData": MASK}


def test_a_secret_that_was_masked_on_the_way_is_known_as_withheld() -> None:
    order = parse_order(new(adminPass=MASK))
    assert isinstance(order, OrderNew)
    assert (order.secrets.withheld, order.secrets.admin_pass) == ("adminPass", None)


@pytest.mark.parametrize(
    ("order", "subject"),
    [
        (new(lambda order, _: order.update(setCount="0")), "setCount"),
        (new(lambda order, _: order.update(setCount="101")), "setCount"),
        (new(lambda order, _: order.update(setCount=None)), "setCount"),
        (new(lambda _, one: one.update(instanceCount="0")), "instanceCount"),
        (new(lambda _, one: one.update(instanceCount="1.0")), "instanceCount"),
        (
            new(lambda order, one: (order.update(setCount="51"), one.update(instanceCount="2"))),
            "instanceCount",
        ),
        (new(lambda order, _: order.update(duration="0")), "duration"),
        (new(lambda order, _: order.update(duration="-1")), "duration"),
        (new(lambda order, _: order.update(duration="876601")), "duration"),
        (new(lambda order, _: order.update(durationUnit="W")), "durationUnit"),
        (new(lambda order, _: order.update(durationUnit=None)), "durationUnit"),
        (new(lambda order, _: order.update(consoleCustomization="x")), "consoleCustomization"),
        (new(lambda _, one: one.update(availableZone=7)), "availableZone"),
        (new(lambda _, one: one.update(productLineCode="RDS")), "productLineCode"),
        (new(lambda _, one: one.update(itemList=None)), "itemList"),
        (
            new(
                lambda _, one: one["itemList"].append(
                    {"code": "data_EBS_SSD", "value": "1", "instanceId": ID}
                )
            ),
            "instanceId",
        ),
        (new(instanceName="web-\U0001f600"), "instanceName"),
        (new(instanceName="we\u200bb"), "instanceName"),
        (new(instanceName="we\ue000b"), "instanceName"),
        (new(instanceName="x" * 249), "instanceName"),
        (several(2, instanceName="x" * 247), "instanceName"),
        (several(100, instanceName="x" * 245), "instanceName"),
        (with_data_disks(10, instanceName="x" * 249), "instanceName"),
        (new(keyName="key\u200b"), "keyName"),
        (new(tags="web,\U0001f600"), "tags"),
        (new(tags=["Web", "web"]), "tags"),
        (paid("new", lambda order, _: order.update(userId="u\U0001f600")), "userId"),
        (paid("new", lambda order, _: order.update(billType="\U0001f600")), "billType"),
        (new(instanceName=["a"]), "instanceName"),
        (new(networkId="net-1"), "networkId"),
        (new(subnetId=4), "subnetId"),
        (new(securityGroups={"name": "web"}), "securityGroups"),
        (new(securityGroups=["web", None]), "securityGroups"),
        (new(securityGroups="web,,ssh"), "securityGroups"),
        (new(keyName=[]), "keyName"),
        (new(tags="a/b"), "tags"),
        (new(tags=[str(number) for number in range(51)]), "tags"),
        (new(adminPass=1), "adminPass"),
        (new(adminPass="a\nb"), "adminPass"),
        (new(adminPass="p" * 256), "adminPass"),
        (new(userData="not base64, not cloud-init"), "userData"),
        (new(userData={"a": 1}), "userData"),
        (new(userData="#" * 60_000), "userData"),
    ],
)
def test_a_wrong_new_order_names_what_is_wrong(order: dict[str, Any], subject: str) -> None:
    assert refusal(order) == subject


@pytest.mark.parametrize(
    "order",
    [
        new(instanceName="x" * 248),
        several(2, instanceName="x" * 246),
        several(100, instanceName="x" * 244),
        with_data_disks(9, instanceName="x" * 248),
        with_data_disks(10, instanceName="x" * 248),
        new(instanceName=" 云服务器\u3000甲 \ufe0f"),
        new(tags="\u200f,web"),
    ],
)
def test_a_name_that_the_cloud_takes_with_what_is_appended_is_taken(order: dict[str, Any]) -> None:
    assert isinstance(parse_order(order), OrderNew)


def test_renew_and_unsubscribe_are_read() -> None:
    renewed = parse_order(
        paid("renew", lambda order, _: order.update(duration="3", durationUnit="m"))
    )
    assert isinstance(renewed, OrderRenew)
    assert (renewed.instance_ids, renewed.term) == ((ID,), Term(3, Unit.MONTH))
    # What an instance was made of is not looked at when it goes.
    ended = parse_order(paid("unsubscribe", lambda _, one: one.update(itemList=None)))
    assert isinstance(ended, OrderUnsubscribe)
    assert ended.instance_ids == (ID,)


@pytest.mark.parametrize("order_type", ["renew", "unsubscribe"])
@pytest.mark.parametrize(
    ("change", "subject"),
    [
        (lambda order, _: order.update(setCount="2"), "setCount"),
        (lambda _, one: one.update(instanceCount="2"), "instanceCount"),
        (lambda _, one: one.update(instanceId=""), "instanceId"),
        (lambda order, one: order.update(productList=[one, one]), "instanceId"),
        (lambda order, _: order.update(productList=None), "productList"),
        (lambda order, _: order.update(orderId=" "), "orderId"),
    ],
)
def test_an_order_on_servers_names_what_is_wrong(
    order_type: str, change: Change, subject: str
) -> None:
    assert refusal(paid(order_type, change)) == subject


def test_soft_down_is_told_by_its_instances() -> None:
    message = soft_down()
    assert is_paid(message)
    order = parse_order(message)
    assert isinstance(order, OrderSoftDown)
    assert (order.order_type, order.name, name_of(message)) == (
        OrderType.SOFT_DOWN,
        "flow-1",
        "flow-1",
    )
    (instance,) = order.instances
    assert (instance.instance_id, instance.operate, instance.sub_flow_id) == (
        ID,
        Operate.STOP,
        "sub-1",
    )


@pytest.mark.parametrize(
    ("message", "subject"),
    [
        (soft_down() | {"flowId": None}, "flowId"),
        (soft_down() | {"instanceList": []}, "instanceList"),
        (soft_down() | {"instanceList": "x"}, "instanceList"),
        (soft_down() | {"instanceList": [soft_down()["instanceList"][0]] * 2}, "instanceId"),
        (soft_down(operateType="paint"), "operateType"),
        (soft_down(operateType=None), "operateType"),
        (soft_down(instanceId="x"), "instanceId"),
        (soft_down(productLineCode="RDS"), "productLineCode"),
        (soft_down(subFlowId=3), "subFlowId"),
        (paid("softDown"), "orderType"),
    ],
)
def test_a_wrong_soft_down_names_what_is_wrong(message: dict[str, Any], subject: str) -> None:
    assert refusal(message) == subject


# Terms.


@pytest.mark.parametrize(
    ("begin", "term", "end"),
    [
        ("2026-11-23 10:00:00", Term(1, Unit.HOUR), "2026-11-23 11:00:00"),
        ("2026-12-31 23:30:00", Term(2, Unit.DAY), "2027-01-02 23:30:00"),
        ("2026-11-23 10:00:00", Term(3, Unit.MONTH), "2027-02-23 10:00:00"),
        # The end of a month stays one, and does not creep away from it.
        ("2027-01-31 08:00:00", Term(1, Unit.MONTH), "2027-02-28 08:00:00"),
        ("2027-02-28 08:00:00", Term(1, Unit.MONTH), "2027-03-31 08:00:00"),
        ("2027-01-30 08:00:00", Term(1, Unit.MONTH), "2027-02-28 08:00:00"),
        ("2028-02-29 08:00:00", Term(1, Unit.YEAR), "2029-02-28 08:00:00"),
        ("2026-12-15 08:00:00", Term(13, Unit.MONTH), "2028-01-15 08:00:00"),
    ],
)
def test_terms_end_where_a_calendar_says(begin: str, term: Term, end: str) -> None:
    begun = datetime.fromisoformat(begin).replace(tzinfo=SHANGHAI)
    assert term.after(begun) == datetime.fromisoformat(end).replace(tzinfo=SHANGHAI)


def test_an_hour_is_an_hour_when_the_clocks_are_put_back() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    begin = datetime(2026, 10, 25, 2, 30, tzinfo=berlin)  # the first of two half past two
    assert Term(1, Unit.HOUR).after(begin).strftime("%H:%M %Z") == "02:30 CET"
    assert Term(1, Unit.DAY).after(begin).strftime("%H:%M %Z") == "02:30 CET"


# Results.


def test_a_new_orders_result_has_a_set_for_each_set_and_a_product_for_each_server() -> None:
    order = parse_order(
        new(lambda order, one: (order.update(setCount="2"), one.update(instanceCount="2")))
    )
    assert isinstance(order, OrderNew)
    ordered = order.products[0].ordered
    sets = [
        [ProductOutcome(ordered, f"{number}-{one}", "ACTIVE", changed=True) for one in range(2)]
        for number in range(2)
    ]
    data = order_result(order, sets, None, NOW).data
    assert [one["orderType"] for one in data["productSetList"]] == ["new", "new"]
    ids = [
        [product["instanceId"] for product in one["productList"]] for one in data["productSetList"]
    ]
    assert ids == [["0-0", "0-1"], ["1-0", "1-1"]]
    assert {one["productSetStatus"] for one in data["productSetList"]} == {"success"}


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ("BUILD", "PENDING_CREATE"),
        ("DELETED", "DELETE"),
        ("SHUTOFF", "STOP"),
        ("ERROR", "ERROR"),
        (None, None),
    ],
)
def test_instances_are_told_in_the_billing_systems_words(
    status: str | None, word: str | None
) -> None:
    order = parse_order(paid("unsubscribe"))
    outcome = ProductOutcome({}, ID, status, changed=True)
    (product,) = order_result(order, [[outcome]], None, NOW).data["productSetList"][0][
        "productList"
    ]
    assert product == {
        "instanceId": ID,
        "instanceStatus": word,
        "statusTime": "2026-11-23 10:00:00",
        **NOTHING_SHOWN,
    }


def test_a_soft_downs_result_is_its_message_with_what_became_of_each() -> None:
    message = soft_down()
    message["instanceList"].append(
        message["instanceList"][0] | {"instanceId": OTHER, "operateType": "delete"}
    )
    order = parse_order(message)
    assert isinstance(order, OrderSoftDown)
    unknown = Refused(Code.SERVER_UNKNOWN, OTHER)
    result = soft_down_result(
        order, [InstanceOutcome("SHUTOFF"), InstanceOutcome(None, unknown)], NOW
    )
    assert (result.code, result.message) == ("101.001033", f"云服务器{OTHER}不存在")
    first, second = result.data["instanceList"]
    assert first == message["instanceList"][0] | {
        "result": "success",
        "code": 200,
        "message": "OK",
        "reason": None,
        "instanceStatus": "STOP",
        "statusTime": "2026-11-23 10:00:00",
        **NOTHING_SHOWN,
    }
    assert (second["result"], second["code"], second["instanceStatus"]) == (
        "fail",
        "101.001033",
        None,
    )
    assert (result.data["flowId"], result.data["region"]) == ("flow-1", "cn-north-3")


def test_an_unread_soft_down_is_answered_in_its_own_shape() -> None:
    result = unread_order_result(
        soft_down(operateType="paint"), Refused(Code.PARAMETER, "operateType"), NOW
    )
    assert (result.code, result.data["flowId"]) == ("101.001002", "flow-1")
    (instance,) = result.data["instanceList"]
    assert (instance["result"], instance["instanceStatus"], instance["instanceId"]) == (
        "fail",
        None,
        ID,
    )
