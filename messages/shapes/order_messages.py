"""Orders, by their type: as the billing system writes them, numbers as texts, blanks around words."""

from collections.abc import Mapping

from messages.orders import MAX_PRODUCTS, OrderType
from messages.orders.items import MAX_ITEMS
from messages.orders.new_servers import MAX_SERVERS
from messages.orders.order import PRODUCT_LINE
from messages.orders.soft_down import Operate
from messages.orders.term import Unit
from messages.shapes.schema import (
    ANYTHING,
    OPTIONAL_WORD,
    WORD,
    Schema,
    described,
    loose,
    nullable,
    number,
    thing,
    things,
)

_NAME = described(WORD, "at most 240 bytes; what the order is known by")
_FACTOR = loose(("impactFactor",), any_case=True)
_ITEM: Schema = {
    "anyOf": [
        thing(
            ("code",),
            code=WORD,
            value=described(ANYTHING, "a flavor, an image, gigabytes; `0`: none"),
            name=ANYTHING,
        ),
        thing(("type",), type=described(_FACTOR, "only a factor of the price: passed over")),
    ]
}
_LINE = loose((PRODUCT_LINE,))


def _product(*, most: int = 1, named: bool = True, items: Schema | None = None) -> Schema:
    """Of at most so many servers; `named`: of one that there is. `items` are read where they are
    given.
    """
    needed = [
        "productLineCode",
        "instanceCount",
        *(["instanceId"] if named else []),
        *(["itemList"] if items else []),
    ]
    return thing(
        needed,
        region=ANYTHING,
        availableZone=ANYTHING if named else OPTIONAL_WORD,
        productLineCode=_LINE,
        productTypeCode=ANYTHING,
        instanceCount=number(1, most),
        instanceId=described(WORD, "a server's id") if named else ANYTHING,
        itemList=items or ANYTHING,
    )


def _order(
    order_type: OrderType, product: Schema, sets: int, needed: tuple[str, ...] = (), **more: Schema
) -> Schema:
    return thing(
        ("orderStatus", "orderType", "orderRoute", "orderId", "setCount", "productList", *needed),
        orderStatus=described(
            WORD, "only `paySuccess` asks for something; any other is acked and counted"
        ),
        orderType=loose((order_type.value,)),
        orderRoute=_LINE,
        orderId=_NAME,
        consoleOrderFlowId=OPTIONAL_WORD,
        userId=described(OPTIONAL_WORD, "the token's `sub`"),
        tenant_id=described(OPTIONAL_WORD, "where publishers are trusted"),
        token=described(ANYTHING, "a signed token, where they are asked for"),
        billType=OPTIONAL_WORD,
        statusTime=described(ANYTHING, "2026-11-23 10:00:00, in the billing time zone"),
        setCount=number(1, sets),
        productList=things(product, 1, MAX_PRODUCTS),
        **more,
    )


_TERM = {"duration": number(1, 10**12 - 1), "durationUnit": loose([unit.value for unit in Unit])}
_CHOSEN = nullable(
    thing(
        instanceName=described(OPTIONAL_WORD, "several servers: name-1, name-2 ..."),
        networkId=OPTIONAL_WORD,
        subnetId=OPTIONAL_WORD,
        securityGroups=ANYTHING,
        keyName=OPTIONAL_WORD,
        adminPass=described(ANYTHING, "kept nowhere"),
        userData=described(ANYTHING, "plain or in base64; kept nowhere"),
        tags=ANYTHING,
        availableZone=OPTIONAL_WORD,
    )
)
_ITEMS = things(_ITEM, 0, MAX_ITEMS)
_INSTANCE = _product()

#: By type; only of what is `paySuccess`.
ORDERS: Mapping[OrderType, Schema] = {
    OrderType.CHANGE_CONFIGURE: _order(OrderType.CHANGE_CONFIGURE, _product(items=_ITEMS), 1),
    OrderType.NEW: _order(
        OrderType.NEW,
        _product(most=MAX_SERVERS, named=False, items=_ITEMS),
        MAX_SERVERS,
        ("duration", "durationUnit"),
        consoleCustomization=_CHOSEN,
        **_TERM,
    ),
    OrderType.RENEW: _order(OrderType.RENEW, _INSTANCE, 1, ("duration", "durationUnit"), **_TERM),
    OrderType.UNSUBSCRIBE: _order(OrderType.UNSUBSCRIBE, _INSTANCE, 1),
}

SOFT_DOWN: Schema = thing(
    ("flowId", "instanceList"),
    region=ANYTHING,
    flowId=_NAME,
    tenant_id=OPTIONAL_WORD,
    instanceList=things(
        thing(
            ("operateType", "productLineCode", "instanceId"),
            subFlowId=OPTIONAL_WORD,
            operateType=loose([operate.value for operate in Operate]),
            productLineCode=_LINE,
            productTypeCode=ANYTHING,
            instanceId=WORD,
        ),
        1,
        MAX_PRODUCTS,
    ),
)
