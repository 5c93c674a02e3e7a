"""Commands and orders as they come, each wrong field named as the API names it."""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from messages.codes import Code
from messages.commands import Force, OpenConsole, Power, PowerAction, PowerBatch, task_of
from messages.errors import Refused
from messages.operations import parse_command, parse_order
from messages.orders import (
    ItemKind,
    OrderChangeConfigure,
    OrderType,
    is_paid,
    order_type_of,
)
from messages.results import Result, unread_order_result
from messages.secrets import could_hold_secret, mask, mask_text
from messages.updates import server_update
from messages.wire import decode, loads
from sandbox.documents import change_configure, new_token

ID = "616fb98f-46ca-475e-917e-2563e5a8cd19"
IMAGE = "da099db5-e180-49c0-a74d-54bbc18fafd4"
ACTION = {"operation": "server.action", "server_id": ID}


def action(body: Any) -> dict[str, Any]:
    return ACTION | {"body": body}


@pytest.mark.parametrize(
    ("body", "task"),
    [
        ({"os-start": None}, PowerAction(ID, Power.START, Force.SOFT)),
        ({"os-start": {}}, PowerAction(ID, Power.START, Force.SOFT)),
        ({"os-stop": {"type": "hard"}}, PowerAction(ID, Power.STOP, Force.HARD)),
        ({"reboot": {"type": "Soft"}}, PowerAction(ID, Power.REBOOT, Force.SOFT)),
        ({"os-getVNCConsole": {"type": "noVNC"}}, OpenConsole(ID, "novnc")),
    ],
)
def test_actions_are_read(body: Any, task: Any) -> None:
    assert task_of(parse_command(action(body), "server.action")) == task


def test_ids_are_read_in_any_case() -> None:
    command = parse_command(
        ACTION | {"server_id": ID.upper(), "body": {"os-start": None}}, "server.action"
    )
    assert task_of(command) == PowerAction(ID, Power.START, Force.SOFT)


@pytest.mark.parametrize(
    ("message", "subject"),
    [
        (action({}), "body"),
        (action(None), "body"),
        (action([]), "body"),
        (action({"os-start": None, "os-stop": None}), "body"),
        (action({"os-start": [1]}), "os-start"),
        (action({"reboot": {"type": "WARM"}}), "type"),
        (action({"reboot": {"type": 1}}), "type"),
        (action({"os-getVNCConsole": {}}), "type"),
        (ACTION | {"server_id": None, "body": {"os-start": None}}, "server_id"),
        (ACTION | {"server_id": ID + "0", "body": {"os-start": None}}, "server_id"),
        (ACTION | {"server_id": f"{ID}\n", "body": {"os-start": None}}, "server_id"),
        (ACTION | {"operation": "server.list"}, "operation"),
        (ACTION | {"tenant_id": 7, "body": {"os-start": None}}, "tenant_id"),
        (ACTION | {"tenant_id": "x" * 256, "body": {"os-start": None}}, "tenant_id"),
    ],
)
def test_a_wrong_command_names_what_is_wrong(message: dict[str, Any], subject: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_command(message, "server.action")
    assert (caught.value.code, caught.value.subject) == (Code.PARAMETER, subject)


def batch(servers: Any) -> dict[str, Any]:
    return {"operation": "server.batch_action", "body": {"os-stop": {"servers": servers}}}


def test_a_batch_is_read() -> None:
    ids = [f"{number:08x}{ID[8:]}" for number in range(100)]
    command = parse_command(batch([{"id": one} for one in ids]), "server.batch_action")
    assert task_of(command) == PowerBatch(tuple(ids), Power.STOP, Force.SOFT)


@pytest.mark.parametrize(
    ("servers", "subject"),
    [
        (None, "servers"),
        ([], "servers"),
        ({}, "servers"),
        ([ID], "servers"),
        ([{"id": ID}, {"id": ID}], "servers"),
        ([{"id": ID}, {"id": ID.upper()}], "servers"),
        ([{"id": 1}], "id"),
        ([{}], "id"),
        ([{"id": f"{number:08x}{ID[8:]}"} for number in range(101)], "servers"),
    ],
)
def test_a_wrong_batch_names_what_is_wrong(servers: Any, subject: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_command(batch(servers), "server.batch_action")
    assert caught.value.subject == subject


# Orders.


def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(change_configure(ID, IMAGE, order_id="178549870045495296"))
    return found


def test_the_documents_order_is_read_with_its_quirks() -> None:
    order = parse_order(document())
    assert isinstance(order, OrderChangeConfigure)
    assert order.order_type is OrderType.CHANGE_CONFIGURE
    assert (order.name, order.bill_type, order.tenant) == (
        "178549870045495296",
        "hourlySettlement",
        None,
    )
    (product,) = order.products
    assert product.instance_id == ID
    assert [(item.code, item.kind, item.value, item.volume_type) for item in product.items] == [
        ("std_2C4G", ItemKind.OTHER, "S1.medium.2", None),
        ("CPU", ItemKind.CPU, "2", None),
        ("memory", ItemKind.MEMORY, "4", None),
        ("image_Windows", ItemKind.IMAGE, IMAGE, None),
        # The item of value "0" means none.
        ("sys_EBS_SATA", ItemKind.SYSTEM_DISK, "60", "SATA"),
    ]


def changed(change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> dict[str, Any]:
    order = document()
    change(order, order["productList"][0])
    return order


@pytest.mark.parametrize(
    "factor",
    [
        {"code": "osType", "name": "操作系统", "value": "Linux", "type": "impactFactor"},
        {"code": "std_2C4G", "value": "S1.large.2", "type": " ImpactFactor "},
        {"code": "CPU", "value": "16", "type": "impactFactor"},
        {"code": "sys_EBS_SSD", "value": "500", "type": "impactFactor"},
        {"value": ["a", 1], "type": "impactFactor"},
    ],
)
def test_a_factor_of_the_price_is_no_item(factor: dict[str, Any]) -> None:
    plain = parse_order(document())
    order = parse_order(changed(lambda _, one: one["itemList"].insert(0, factor)))
    assert isinstance(plain, OrderChangeConfigure)
    assert isinstance(order, OrderChangeConfigure)
    assert order.products[0].items == plain.products[0].items


@pytest.mark.parametrize("kind", [None, "", "product", 7, ["impactFactor"], "impactFactors"])
def test_an_item_of_another_type_is_one(kind: Any) -> None:
    item = {"code": "data_EBS_SSD", "value": "5", "type": kind}
    order = parse_order(changed(lambda _, one: one["itemList"].append(item)))
    assert isinstance(order, OrderChangeConfigure)
    assert order.products[0].items[-1].code == "data_EBS_SSD"


@pytest.mark.parametrize(
    ("order", "subject"),
    [
        (changed(lambda order, _: order.update(orderRoute="RDS")), "orderRoute"),
        (changed(lambda order, _: order.update(orderType="paint")), "orderType"),
        (changed(lambda order, _: order.update(setCount="2")), "setCount"),
        (changed(lambda order, _: order.update(setCount="-1")), "setCount"),
        (changed(lambda order, _: order.update(orderId=None)), "orderId"),
        (changed(lambda order, _: order.update(orderId=17)), "orderId"),
        (changed(lambda order, _: order.update(productList=[])), "productList"),
        (changed(lambda order, _: order.update(productList="x")), "productList"),
        (changed(lambda order, one: order.update(productList=[one, one])), "instanceId"),
        (changed(lambda _, one: one.update(instanceCount="2")), "instanceCount"),
        (changed(lambda _, one: one.update(instanceCount=True)), "instanceCount"),
        (changed(lambda _, one: one.update(instanceId="x")), "instanceId"),
        (changed(lambda _, one: one.update(productLineCode="RDS")), "productLineCode"),
        (changed(lambda _, one: one.update(itemList=None)), "itemList"),
        (changed(lambda _, one: one["itemList"].append({"value": "1"})), "code"),
        (changed(lambda _, one: one["itemList"].append({"code": "CPU", "value": [2]})), "CPU"),
    ],
)
def test_a_wrong_order_names_what_is_wrong(order: dict[str, Any], subject: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_order(order)
    assert caught.value.subject == subject


def test_only_what_is_paid_asks_for_something() -> None:
    assert is_paid({"orderStatus": " paySuccess "})
    assert not any(
        is_paid({"orderStatus": one}) for one in ("payFail", "PAYSUCCESS", "paySuccess2")
    )
    assert is_paid({"instanceList": None})


@pytest.mark.parametrize("status", ["", " ", None, 1, True, ["paySuccess"]])
def test_an_order_that_does_not_say_whether_it_is_paid_is_wrong(status: Any) -> None:
    with pytest.raises(Refused) as caught:
        is_paid({"orderStatus": status})
    assert caught.value.subject == "orderStatus"


def test_an_order_type_is_a_routing_key_or_unknown() -> None:
    assert order_type_of(document()) == "changeConfigure"
    assert order_type_of({"instanceList": []}) == "softDown"
    assert [order_type_of({"orderType": one}) for one in ("a.b", "#", "", None, "x" * 65)] == [
        "unknown"
    ] * 5


# What must not be kept.


def test_secrets_are_masked_at_any_depth() -> None:
    token = new_token()
    masked = mask(
        {
            "token": token,
            "a": [{"adminPass": "p", "note": f"see {token}."}],
            "b": {"PASSWORD": 1, "token": None},
        }
    )
    assert masked == {
        "token": "***",
        "a": [{"adminPass": "***", "note": "see ***."}],
        "b": {"PASSWORD": "***", "token": None},
    }
    assert mask_text("nothing in here") == "nothing in here"
    assert could_hold_secret(b'{"Token": "')
    assert could_hold_secret(new_token().encode())
    assert not could_hold_secret(b'{"orderId": ')


def test_an_unread_order_is_echoed_without_its_secrets() -> None:
    order = document()
    order["productList"][0]["token"] = order["token"]
    result = unread_order_result(
        order, Refused(Code.PARAMETER, "orderRoute"), datetime(2026, 11, 23, 10, tzinfo=UTC)
    )
    assert order["token"] not in json.dumps(result.data)
    product = result.data["productSetList"][0]["productList"][0]
    assert (product["instanceId"], product["instanceStatus"], product["statusTime"]) == (
        ID,
        None,
        "2026-11-23 10:00:00",
    )


# The codes and the words.


def test_codes_have_the_documents_words() -> None:
    assert Result.refusal(Refused(Code.PARAMETER, "server_id")) == Result(
        "101.001002", "参数server_id不符合规范", None, 400
    )
    assert Result.refusal(Refused(Code.SERVER_UNKNOWN, ID)).message == f"云服务器{ID}不存在"
    assert Result.refusal(Refused(Code.IDENTITY)).http == 401
    assert Result.of(Code.OK) == Result(200, "OK", None, 200)


@pytest.mark.parametrize(
    ("status", "task", "word", "translation"),
    [
        ("ACTIVE", None, "ACTIVE", "运行中"),
        ("SHUTOFF", "powering-on", "powering-on", "开机中"),
        ("ACTIVE", "rebooting", "rebooting", "运行中"),
        ("VERIFY_RESIZE", None, "VERIFY_RESIZE", "变更规格待确认"),
        ("SOMETHING_NEW", None, "SOMETHING_NEW", None),
    ],
)
def test_a_server_is_told_in_openstacks_word_and_the_documents(
    status: str, task: str | None, word: str, translation: str | None
) -> None:
    update = server_update(ID, "os-start", status, task, final=False)
    assert (update.status, update.translation) == (word, translation)
    assert server_update(ID, None, status, task, final=True).status == status


@pytest.mark.parametrize(
    "odd",
    ['{"a": 1, "a": 2}', "NaN", "1e999", "9" * 65, "1] x", "[" * 5000, '"\\x"'],
    ids=["twice", "nan", "range", "digits", "more", "deep", "escape"],
)
def test_a_body_of_very_many_values_is_read_as_any_other(odd: str) -> None:
    """It is read value by value, so that the loop has its turn in between."""
    many = "[]," * 100_000
    assert decode(f'{{"a": [{many} 1]}}'.encode(), None, None)["a"][-1] == 1
    with pytest.raises(Refused) as refused:
        decode(f'{{"a": [{many} {odd}]}}'.encode(), None, None)
    assert refused.value.subject == "body"


def test_no_body_is_read_in_one_call_that_lasts() -> None:
    """Another thread has its turn at a function's entry: of a list of lists read by the one in C
    there is none.
    """
    text, calls = '{"a": [' + "[]," * 300_000 + "[]]}", 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        loads(text)
    finally:
        sys.setprofile(None)
    assert calls > 300_000
