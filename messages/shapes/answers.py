"""Results, status updates, and what is written on a parked message."""

from messages.codes import Code
from messages.commands import Operation
from messages.order_results import InstanceStatus
from messages.orders import OrderType
from messages.shapes.schema import ANYTHING, Schema, described, nullable, thing, words
from messages.updates import OrderStatus

_TEXT: Schema = {"type": "string"}
_OBJECT: Schema = {"type": "object"}
_NULL: Schema = {"type": "null"}
_COUNT: Schema = {"type": "integer", "minimum": 0}

RESULT_HEADERS: Schema = thing(
    ("x-ecs-http-status",),
    **{
        "x-ecs-http-status": {"type": "integer", "enum": sorted({code.http for code in Code})},
        "traceparent": _TEXT,
        "tracestate": _TEXT,
    },
)
PARKED_HEADERS: Schema = thing(
    ("x-ecs-error-code", "x-ecs-error", "x-ecs-origin-queue", "x-ecs-attempts", "x-ecs-failed-at"),
    **{
        "x-ecs-error-code": _TEXT,
        "x-ecs-error": _TEXT,
        "x-ecs-origin-queue": _TEXT,
        "x-ecs-attempts": _COUNT,
        "x-ecs-failed-at": {"type": "string", "format": "date-time"},
    },
)
_TARGET: Schema = thing(
    ("id", "code", "message", "reason"),
    id=_TEXT,
    code=described(ANYTHING, "as of a result; null: right, but not begun"),
    message=nullable(_TEXT),
    reason=described(nullable(_TEXT), "why it failed, a word that a program can use"),
)
_FAILED = [code for code in Code if isinstance(code.wire, str)]
_DATA: dict[Operation, Schema] = {
    Operation.SERVER_ACTION: described(
        ANYTHING, "null; a console: `url`, `type`; createImage: `image_id`"
    ),
    Operation.SERVER_BATCH_ACTION: thing(("servers",), servers={"type": "array", "items": _TARGET}),
    Operation.SERVER_LIST: thing(
        ("totalCount", "servers"), totalCount=_COUNT, servers={"type": "array", "items": _OBJECT}
    ),
    Operation.SERVER_SHOW: thing(("server",), server=_OBJECT),
    Operation.IMAGE_BATCH_DELETE: thing(
        ("status", "images"), status=_TEXT, images={"type": "array", "items": _TARGET}
    ),
}


def result_of(operation: Operation | None) -> Schema:
    """The envelope that an operation is answered with: `code` is a number of success, or a text."""
    succeeded = thing(
        ("code", "message", "data"),
        code={"type": "integer", "enum": [code.wire for code in Code if code not in _FAILED]},
        message=_TEXT,
        data=_DATA.get(operation, ANYTHING) if operation is not None else ANYTHING,
    )
    failed = thing(
        ("code", "message", "data"),
        code=described(
            words([str(code.wire) for code in _FAILED]),
            "; ".join(f"{code.wire} {code.text.format('xxx')}" for code in _FAILED),
        ),
        message=_TEXT,
        data=described(
            nullable(_OBJECT), "its `reason`, where there is one, is a word that a program can use"
        ),
    )
    return {"oneOf": [succeeded, failed]}


def _order_result() -> Schema:
    product = thing(
        ("instanceId", "instanceStatus", "statusTime"),
        instanceId=nullable(_TEXT),
        instanceStatus=nullable(words(InstanceStatus)),
        statusTime=described(_TEXT, "in the billing time zone"),
        before=described(ANYTHING, "the server as it was: flavor, disks, status, fee data"),
        after=described(ANYTHING, "and as it is"),
        requestIds={"type": "array", "items": _TEXT},
        kept=described(
            _OBJECT, "what stays of a server that is gone: ids by `volumes`, `ports`, `floatingIps`"
        ),
        left=described(
            _OBJECT, "what could not be taken away of a failed `new` order: ids by kind"
        ),
    )
    product_set = thing(
        ("productSetStatus", "resourceChanged", "productList"),
        productSetStatus=words(("success", "fail")),
        resourceChanged=described(
            {"type": "boolean"}, "whether anything of the customer's was left changed"
        ),
        productList={"type": "array", "items": product},
    )
    return thing(
        ("code", "message", "data"),
        code={"enum": [code.wire for code in Code]},
        message=_TEXT,
        data=nullable(
            thing(
                orderId=ANYTHING,
                userId=ANYTHING,
                consoleOrderFlowId=ANYTHING,
                reason=_TEXT,
                productSetList={"type": "array", "items": product_set},
            )
        ),
    )


ORDER_RESULT: Schema = _order_result()

STATUS_UPDATE: Schema = thing(
    (
        "resource",
        "id",
        "operation",
        "action",
        "status",
        "translation",
        "final",
        "message_id",
        "tenant_id",
        "user_id",
        "time",
    ),
    resource=words(("server", "image", "order")),
    id=_TEXT,
    operation=words(
        [
            *(operation.value for operation in Operation),
            *(f"order.{one.value}" for one in OrderType),
        ]
    ),
    action=nullable(_TEXT),
    status=described(
        _TEXT,
        "OpenStack's own word of a server or an image; of an order: "
        + ", ".join(one.value for one in OrderStatus),
    ),
    translation=nullable(_TEXT),
    final=described({"type": "boolean"}, "the last one of this resource for this request"),
    message_id=described(_TEXT, "the request's"),
    tenant_id=described(
        nullable(_TEXT), "the id of the project that it belongs to; null where that is not known"
    ),
    user_id=described(
        nullable(_TEXT), "the request's `user_id`, an order's `userId`; null where it names none"
    ),
    time={"type": "string", "format": "date-time"},
    progress=described({"type": "integer", "minimum": 0, "maximum": 100}, "of orders; never falls"),
    consoleOrderFlowId=ANYTHING,
    instanceId=ANYTHING,
)
