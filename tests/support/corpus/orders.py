"""Orders that are wrong: answered with what can be echoed of them, and parked."""

from collections.abc import Iterator

from tests.support.corpus.case import (
    NO_SERVER,
    Case,
    Fate,
    items,
    order,
    order_case,
    product,
    soft_down,
)


def orders() -> Iterator[Case]:
    """Orders that are wrong: answered with what can be echoed of them, and parked."""
    yield from (
        order_case(f"orderStatus {one!r}", order(orderStatus=one), "orderStatus")
        for one in (None, "", 1, True, ["paySuccess"], {})
    )
    yield order_case("an empty order", {}, "orderStatus", kind="unknown")
    unpaid = ("payFail", "PAYSUCCESS", "waitPay", "paySuccess!")
    yield from (
        order_case(f"status {one} asks for nothing", order(orderStatus=one), fate=Fate.IGNORED)
        for one in unpaid
    )
    yield order_case(
        "blanks around words are right",
        order(orderStatus=" paySuccess\t", orderRoute=" ECS "),
        code=NO_SERVER,
    )
    for value in (None, "", "RDS", "ecs", 7, []):
        yield order_case(f"orderRoute {value!r}", order(orderRoute=value), "orderRoute")
        yield order_case(
            f"productLineCode {value!r}", product(productLineCode=value), "productLineCode"
        )
    kinds = {
        "paint": "paint",
        "x/y": "unknown",
        "a.b": "unknown",
        "": "unknown",
        None: "unknown",
        7: "unknown",
        "softDown": "softDown",
        "OrderChangeConfigure": "OrderChangeConfigure",
        "#": "unknown",
        "x" * 65: "unknown",
        "中": "unknown",
    }
    yield from (
        order_case(f"orderType {one!r:.20}", order(orderType=one), "orderType", kind=kind)
        for one, kind in kinds.items()
    )
    for value in (
        None,
        "",
        " ",
        7,
        178549870045495296,
        True,
        [],
        {},
        "x" * 256,
        "a\nb",
        "😀",
        "\u202e1",
    ):
        yield order_case(f"orderId {value!r:.20}", order(orderId=value), "orderId")
    for name, value in (
        ("consoleOrderFlowId", 7),
        ("userId", {"a": 1}),
        ("tenant_id", []),
        ("billType", True),
        ("billType", "😀"),
        ("setCount", "2"),
        ("setCount", 0),
        ("setCount", None),
        ("setCount", True),
        ("setCount", "1.0"),
        ("setCount", 10**30),
        ("productList", None),
        ("productList", []),
        ("productList", {}),
        ("productList", [None]),
        ("productList", ["x"]),
        ("productList", [{}] * 101),
        ("productList", [[]] * 50_000),
    ):
        subject = "productLineCode" if value == [{}] else name
        yield order_case(f"order {name} {value!r:.20}", order(**{name: value}), subject)
    for name, value in (
        ("instanceCount", "2"),
        ("instanceCount", True),
        ("instanceCount", None),
        ("instanceId", None),
        ("instanceId", "x"),
        ("instanceId", {}),
        ("itemList", None),
        ("itemList", {}),
        ("itemList", [None]),
        ("itemList", [{}] * 101),
    ):
        yield order_case(f"product {name} {value!r:.20}", product(**{name: value}), name)
    yield order_case("a server twice", order(productList=order()["productList"] * 2), "instanceId")
    for item, subject in (
        ({"value": "1"}, "code"),
        ({"code": "", "value": "1"}, "code"),
        ({"code": ["CPU"], "value": "1"}, "code"),
        ({"code": "x" * 256, "value": "1"}, "code"),
        ({"code": "CPU", "value": [2]}, "CPU"),
        ({"code": "CPU", "value": True}, "CPU"),
        ({"code": "CPU", "value": 2.0}, "CPU"),
        ({"code": "sys_EBS_SATA", "value": {"x": 1}}, "sys_EBS_SATA"),
        ({"code": "😀", "value": "a\nb"}, "😀"),
        ({"code": "data_EBS_SSD", "value": "1", "instanceId": "x"}, "instanceId"),
    ):
        yield order_case(f"item {item!r:.40}", items(item), subject)
    for name, value in (
        ("flowId", None),
        ("flowId", 7),
        ("flowId", "x" * 241),
        ("instanceList", None),
        ("instanceList", []),
        ("instanceList", {}),
        ("instanceList", [None]),
        ("instanceList", [{}] * 101),
        ("tenant_id", 7),
    ):
        yield order_case(
            f"softDown {name} {value!r:.20}", soft_down(**{name: value}), name, kind="softDown"
        )
    for name, value in (
        ("operateType", "format"),
        ("operateType", None),
        ("productLineCode", "RDS"),
        ("instanceId", "x"),
        ("subFlowId", 7),
    ):
        message = soft_down()
        message["instanceList"][0][name] = value
        yield order_case(f"softDown instance {name} {value!r}", message, name, kind="softDown")
    yield order_case("an order of a server that there is not", order(), code=NO_SERVER)
    yield order_case(
        "text of all kinds comes back",
        order(consoleOrderFlowId="😀שלום'; --", billType="{{7*7}}"),
        code=NO_SERVER,
    )
    yield order_case("any routing key will do", order(), code=NO_SERVER, routing_key="x.#.*")
