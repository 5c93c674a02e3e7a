"""Results (contract 3, 5): the envelope, and the `data` of each operation and order."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Field,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    model_serializer,
)
from pydantic.json_schema import SkipJsonSchema

from messages.codes import Code
from messages.errors import Refused
from messages.fields import MAX_NAME, NOT_NULL, Answer
from messages.orders import MAX_PRODUCTS, TIME_FORM, Order, OrderSoftDown
from messages.record import record
from messages.secrets import mask
from messages.wire import fits


@record
class Result:
    """The answer to a request; `http` travels as a header, not in the body."""

    code: int | str
    message: str
    data: Any
    http: int
    #: Meant for the requester alone: it goes to the reply queue or nowhere, and is not kept.
    confidential: bool = False

    @property
    def succeeded(self) -> bool:
        """Tell whether the code is one of success."""
        return isinstance(self.code, int)

    def envelope(self) -> dict[str, Any]:
        """Return the body on the wire: `code`, `message`, `data`."""
        return {"code": self.code, "message": self.message, "data": self.data}

    @classmethod
    def of(cls, code: Code, data: Any = None, subject: str | None = None) -> "Result":
        """Return the result with this code's own message. A model in `data` is dumped here, without
        fields that were not set.
        """
        is_model = isinstance(data, BaseModel)
        shown = data.model_dump(mode="json", exclude_unset=True) if is_model else data
        return cls(code.wire, code.text_for(subject), shown, code.http)

    @classmethod
    def refusal(cls, refused: Refused) -> "Result":
        """Return the answer to what was refused: `data` as given, else its reason, else null."""
        data = refused.data
        if data is None and refused.reason is not None:
            data = {"reason": refused.reason}
        return cls.of(refused.code, data, refused.subject)

    def stored(self) -> dict[str, Any]:
        """Return the record that the journal keeps."""
        return {**self.envelope(), "http": self.http}

    @classmethod
    def restored(cls, record: dict[str, Any]) -> "Result":
        """Return the result that the journal kept."""
        return cls(record["code"], record["message"], record["data"], record["http"])


def pruned(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is left of an order's stored result when its request is pruned: what became of
    it, in the same form, without what was ordered and what was changed. Pruned twice is pruned once.
    """
    data = stored["data"]
    if not isinstance(data, dict):
        return dict(stored)
    short = {name: data[name] for name in ("reason",) if name in data} | dict(_in_short(data))
    if "productSetList" in data:
        short["productSetList"] = [
            one | {"productList": [_pruned_server(product) for product in one["productList"]]}
            for one in data["productSetList"]
        ]
    if "instanceList" in data:
        short["instanceList"] = [_pruned_server(one) for one in data["instanceList"]]
    return {**stored, "data": short | {"pruned": True}}


def _pruned_server(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return one server's part of a result with its outcome and its names alone."""
    kept = {name: value for name, value in shown.items() if name in _PRUNED_FIELDS}
    return {**_in_short(shown), **kept, "before": None, "after": None, "requestIds": []}


class ResultHeaders(Answer):
    """Headers of a result."""

    http_status: int = Field(
        alias="x-ecs-http-status",
        description="as the API document gives it",
        json_schema_extra={"enum": [*sorted({code.http for code in Code})]},
    )
    traceparent: Annotated[str | None, NOT_NULL] = Field(None, description="W3C trace context")
    tracestate: Annotated[str | None, NOT_NULL] = None


class DeadLetterHeaders(Answer):
    """Headers of a dead letter: why it could not be handled."""

    code: str = Field(alias="x-ecs-error-code")
    error: str = Field(alias="x-ecs-error")
    origin: str = Field(alias="x-ecs-origin-queue")
    attempts: int = Field(alias="x-ecs-attempts", ge=0)
    failed_at: Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})] = Field(
        alias="x-ecs-failed-at"
    )


# The data of commands' results.


class ServerConsole(Answer):
    """A server's console."""

    console: "ConsoleUrl"


class ConsoleUrl(Answer):
    """The URL of a console; it holds a short-lived token of Nova's."""

    type: str
    url: str


class CreatedImage(Answer):
    """The image that createImage makes."""

    image_id: str


class TargetOutcome(Answer):
    """The outcome of one of several servers or images."""

    id: str
    code: int | str | None = Field(description="as of a result; null: right, but not begun")
    message: str | None
    reason: str | None = Field(description="why it failed, a word that a program can use")


class FailureData(Answer):
    """The failure of a request. Where it had several targets, each of them is listed."""

    reason: str | None = Field(None, description="a word that a program can use")
    servers: "Annotated[list[TargetOutcome] | None, NOT_NULL]" = None
    images: "Annotated[list[TargetOutcome] | None, NOT_NULL]" = None
    status: Annotated[str | None, NOT_NULL] = Field(None, description="of a batch of images")


class ServerOutcomes(Answer):
    """The outcome of a batch, server by server."""

    servers: list[TargetOutcome]


class ImageOutcomes(Answer):
    """The outcome of a batch, image by image."""

    status: str = Field(description="the numbers of images that were deleted and that were not")
    images: list[TargetOutcome]


class Verdict(StrEnum):
    """The outcome of an order that is expected."""

    CARRIED_OUT = "carried_out"
    REFUSED = "refused"
    #: Something is in the way that passes: the order would be retried.
    RETRIED = "put_off"


class PreviewCheck(Answer):
    """One check of an order."""

    name: str
    instance_id: str | None = Field(alias="instanceId")
    passed: bool
    code: int | str
    message: str
    reason: str | None
    detail: str | None


class PreviewStep(Answer):
    """One step of an order."""

    number: int
    name: str
    instance_id: str | None = Field(alias="instanceId")
    target: str | None = Field(description="the id of a disk, a port or an address")
    before: Any
    after: Any
    can_be_undone: bool = Field(alias="canBeUndone")


class OrderPreview(Answer):
    """The checks and the steps of an order that is not carried out."""

    order_id: str | None = Field(alias="orderId")
    order_type: str = Field(alias="orderType")
    verdict: Verdict
    code: int | str
    message: str
    reason: str | None
    detail: str | None
    checks: list[PreviewCheck]
    steps: list[PreviewStep]
    cannot_be_undone: list[int] = Field(alias="cannotBeUndone", description="numbers of steps")


class RequestState(StrEnum):
    """The state of a request that was begun."""

    RUNNING = "running"
    #: An attempt failed for a reason that may pass, and another one follows.
    WAITING_RETRY = "waiting_retry"
    #: It has its result.
    DONE = "done"


class WaitReason(StrEnum):
    """The kind of thing that a request waits for."""

    #: Its turn at a server, behind another request.
    TURN = "turn"
    #: Its next attempt.
    RETRY = "retry"
    #: The state of a server, an image or a volume.
    RESOURCE = "resource"
    #: A worker: the one that had it is gone, and the broker gives its message to another.
    WORKER = "worker"


class WaitedResource(Answer):
    """The server, image or volume whose state is waited for."""

    kind: Literal["server", "image", "volume"]
    id: str
    status: str = Field(
        description="OpenStack's own word when it was seen last: of a server its task while one is"
        " under way, of a volume its migration"
    )


class WaitsFor(Answer):
    """The reason why a request does not go on now."""

    reason: WaitReason
    message: str = Field(description="the same in words")
    since: str | None = Field(description="UTC")
    until: str | None = Field(
        description="when its next attempt begins, UTC; null while a worker is at it"
    )
    behind: str | None = Field(
        description="of `turn`: the key of the request ahead; null where that is another tenant's"
    )
    cause: str | None = Field(
        description="of `retry`: why the last attempt failed, a word as in `data.reason`"
    )
    resource: WaitedResource | None = Field(description="of `resource`; null where it is not known")


class ShownResult(Answer):
    """The result of a request, as it was answered."""

    code: int | str
    message: str
    data: Any


class ShownRequest(Answer):
    """A request that was begun: an order or a command."""

    key: str
    operation: str = Field(description="a command's, or `order.<orderType>`")
    state: RequestState
    progress: int | None = Field(
        ge=0, le=100, description="percent, as in its last status update; null for a command"
    )
    received_at: str = Field(description="when it first came to a worker, UTC")
    updated_at: str = Field(description="when something was written about it last, UTC")
    waits_for: WaitsFor | None = Field(description="null where it goes on, or is done")
    result: ShownResult | None = Field(
        description="null until it is answered; a command may be answered before it is done"
    )


# The data of orders' results.


class InstanceStatus(StrEnum):
    """The billing system's words for a server's state."""

    ACTIVE = "ACTIVE"
    STOP = "STOP"
    ERROR = "ERROR"
    PENDING_CREATE = "PENDING_CREATE"
    DELETE = "DELETE"


_INSTANCE_STATUS = {
    "ACTIVE": InstanceStatus.ACTIVE,
    "SHUTOFF": InstanceStatus.STOP,
    "STOPPED": InstanceStatus.STOP,
    "ERROR": InstanceStatus.ERROR,
    "BUILD": InstanceStatus.PENDING_CREATE,
    "DELETED": InstanceStatus.DELETE,
    "SOFT_DELETED": InstanceStatus.DELETE,
}


def instance_status(status: str | None) -> InstanceStatus | None:
    """Return a server's status in the billing system's words; None where there is no instance.

    A server that runs in any state between (VERIFY_RESIZE, REBOOT, PAUSED ...) exists and is in
    use: ACTIVE.
    """
    return None if status is None else _INSTANCE_STATUS.get(status.upper(), InstanceStatus.ACTIVE)


class Disk(Answer):
    """A disk of a server; a local system disk has neither id nor type."""

    id: str | None
    size: int | None = Field(description="GiB")
    type: str | None


class StoredFeeData(Answer):
    """A server's billing information, as its metadata have it."""

    charge_type: str | None = None
    start_fee_time: str | None = None
    next_fee_time: str | None = None
    purchase_time: str | None = None
    order_id: str | None = None


class ServerSnapshot(Answer):
    """A server before or after an order."""

    status: str = Field(description="Nova's word")
    flavor: str | None
    disks: list[Disk] = Field(description="the system disk first")
    fee_data: StoredFeeData = Field(alias="feeData")


class ResourceIds(Answer):
    """Ids of resources, by kind."""

    servers: list[str] = Field([])
    volumes: list[str] = Field([])
    ports: list[str] = Field([])
    floating_ips: list[str] = Field([], alias="floatingIps")


_Echoed = Annotated[Any, WithJsonSchema({"type": ["string", "null"]})]


class _ServerResult(Answer):
    """An object of the order as it came, with the outcome of one server."""

    #: The object as it came, which is dumped with the fields.
    ordered: SkipJsonSchema[Mapping[str, Any]] = Field(exclude=True)
    instance_status: InstanceStatus | None = Field(
        alias="instanceStatus", description="null where there is no instance"
    )
    status_time: str = Field(alias="statusTime", description="in the billing time zone")
    before: ServerSnapshot | None
    after: ServerSnapshot | None
    request_ids: list[str] = Field(
        alias="requestIds", description="OpenStack's, of the calls that changed the server"
    )
    kept: Annotated[ResourceIds | None, NOT_NULL] = Field(
        None, description="resources that stay of a server that is gone"
    )
    left: Annotated[ResourceIds | None, NOT_NULL] = Field(
        None, description="resources that a failed `new` order could not take away"
    )

    @model_serializer(mode="wrap")
    def _with_ordered(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {**self.ordered, **dump(self)}


class ProductResult(_ServerResult):
    """A product as it was ordered, with the outcome of one server."""

    instance_id: _Echoed = Field(alias="instanceId")


class ProductSet(Answer):
    """A set of an order: a product for each server."""

    status: Literal["success", "fail"] = Field(alias="productSetStatus")
    changed: bool = Field(
        alias="resourceChanged", description="anything of the customer's was left changed"
    )
    bill_type: _Echoed = Field(alias="billType")
    order_type: str | None = Field(alias="orderType")
    duration: Any
    duration_unit: _Echoed = Field(alias="durationUnit")
    products: list[ProductResult] = Field(alias="productList")


class OrderOutcome(Answer):
    """The outcome of an order: a product set for each set."""

    user_id: _Echoed = Field(alias="userId")
    flow_id: _Echoed = Field(alias="consoleOrderFlowId")
    order_id: _Echoed = Field(alias="orderId")
    reason: Annotated[str | None, NOT_NULL] = Field(
        None, description="why it failed, a word that a program can use"
    )
    pruned: Annotated[Literal[True] | None, NOT_NULL] = Field(
        None, description="the request was pruned since: the answer to a repeat is shortened"
    )
    sets: list[ProductSet] = Field(alias="productSetList")


class InstanceResult(_ServerResult):
    """An instance of a softDown as it came, with its outcome."""

    instance_id: _Echoed = Field(None, alias="instanceId")
    result: Literal["success", "fail"]
    code: int | str
    message: str
    reason: str | None = Field(description="why it failed, a word that a program can use")


class SoftDownOutcome(Answer):
    """A softDown message as it came, with the outcome of each instance."""

    ordered: SkipJsonSchema[Mapping[str, Any]] = Field(exclude=True)
    instances: list[InstanceResult] = Field(alias="instanceList")
    reason: Annotated[str | None, NOT_NULL] = Field(
        None, description="why it failed, a word that a program can use"
    )
    pruned: Annotated[Literal[True] | None, NOT_NULL] = Field(
        None, description="the request was pruned since: the answer to a repeat is shortened"
    )

    @model_serializer(mode="wrap")
    def _with_ordered(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {**self.ordered, **dump(self)}


# Making orders' results.

#: Fields that are given back of an order, of its products and of a softDown's instances where all
#: of it would be too much.
_SHORT_FIELDS = frozenset(
    {
        "userId",
        "consoleOrderFlowId",
        "orderId",
        "billType",
        "duration",
        "durationUnit",
        "flowId",
        "region",
        "availableZone",
        "productLineCode",
        "productTypeCode",
        "instanceCount",
        "subFlowId",
        "operateType",
        "instanceId",
    }
)
#: Fields of a server's outcome that stay when its request is pruned.
_PRUNED_FIELDS = frozenset(
    {"instanceStatus", "statusTime", "result", "code", "message", "reason", "kept", "left"}
)


@record
class ProductOutcome:
    """The outcome of one server.

    `ordered` is the product that it belongs to, `status` Nova's (None: there is none), `changed`
    tells whether anything of the customer's was left changed; `before` and `after` show the server
    (None: there was or is none), `request_ids` are OpenStack's of the calls that changed it, and
    `more` may hold `kept` and `left`: ids of resources by kind.
    """

    ordered: Mapping[str, Any]
    instance_id: str | None
    status: str | None
    changed: bool
    before: ServerSnapshot | Mapping[str, Any] | None = None
    after: ServerSnapshot | Mapping[str, Any] | None = None
    request_ids: Sequence[str] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


@record
class InstanceOutcome:
    """The outcome of one instance of a softDown: Nova's status (None: there is none), and why it
    failed.

    The rest is as in `ProductOutcome`.
    """

    status: str | None
    failure: Refused | None = None
    before: ServerSnapshot | Mapping[str, Any] | None = None
    after: ServerSnapshot | Mapping[str, Any] | None = None
    request_ids: Sequence[str] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


def order_result(
    order: Order, sets: Sequence[Sequence[ProductOutcome]], failure: Refused | None, now: datetime
) -> Result:
    """Return the order's result; `now` is in the billing time zone."""
    return _order_result(order.ordered, order.order_type, sets, failure, now)


def soft_down_result(
    order: OrderSoftDown, outcomes: Sequence[InstanceOutcome], now: datetime
) -> Result:
    """Return the result of a softDown: each instance has its own; the code is that of the first
    that failed.
    """
    failure = next((one.failure for one in outcomes if one.failure is not None), None)
    ordered = [one.ordered for one in order.instances]
    pairs = list(zip(ordered, outcomes, strict=True))
    return _soft_down_result(order.ordered, pairs, failure, now)


def unread_order_result(
    message: Mapping[str, Any], failure: Refused, now: datetime, *, changed: bool = False
) -> Result:
    """Return the failing result of an order that could not be read, or ended unforeseen: what can
    be echoed of it is.
    """
    if "instanceList" in message:
        instances = [
            (one, InstanceOutcome(None, failure)) for one in _objects(message, "instanceList")
        ]
        return _soft_down_result(message, instances, failure, now)
    outcomes = [
        ProductOutcome(product, product.get("instanceId"), None, changed=changed)
        for product in _objects(message, "productList")
    ]
    named = message.get("orderType")
    order_type = named.strip() if isinstance(named, str) else None
    return _order_result(message, order_type, [outcomes], failure, now)


def _objects(message: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """At most as many as an order may have: an echo must not be many times as large as its order."""
    listed = message.get(name)
    if not isinstance(listed, list):
        return []
    return [one for one in listed[:MAX_PRODUCTS] if isinstance(one, dict)]


#: The part of an object of the message that is given back.
_Echo = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def _in_short(ordered: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields that an order is known by, where they are no longer than a word."""
    return {
        name: value for name, value in ordered.items() if name in _SHORT_FIELDS and _is_short(value)
    }


def _is_short(value: Any) -> bool:
    return len(value) <= MAX_NAME if isinstance(value, str) else not isinstance(value, (dict, list))


def _order_result(
    message: Mapping[str, Any],
    order_type: str | None,
    sets: Sequence[Sequence[ProductOutcome]],
    failure: Refused | None,
    now: datetime,
) -> Result:
    def data(echo: _Echo) -> OrderOutcome:
        echoed = echo(message)
        return OrderOutcome(
            user_id=echoed.get("userId"),
            flow_id=echoed.get("consoleOrderFlowId"),
            order_id=echoed.get("orderId"),
            **_reason(failure),
            sets=[
                ProductSet(
                    status="fail" if failure else "success",
                    changed=any(outcome.changed for outcome in outcomes),
                    bill_type=echoed.get("billType"),
                    order_type=order_type if _is_short(order_type) else None,
                    duration=echoed.get("duration"),
                    duration_unit=echoed.get("durationUnit"),
                    products=[
                        ProductResult(
                            ordered=echo(outcome.ordered),
                            instance_id=outcome.instance_id
                            if _is_short(outcome.instance_id)
                            else None,
                            **_record(outcome, now),
                        )
                        for outcome in outcomes
                    ],
                )
                for outcomes in sets
            ],
        )

    return _envelope(data, failure)


def _soft_down_result(
    message: Mapping[str, Any],
    instances: Sequence[tuple[Mapping[str, Any], InstanceOutcome]],
    failure: Refused | None,
    now: datetime,
) -> Result:
    def data(echo: _Echo) -> SoftDownOutcome:
        return SoftDownOutcome(
            ordered=echo(message),
            instances=[
                InstanceResult(
                    ordered=echo(ordered),
                    result="fail" if outcome.failure else "success",
                    **_verdict(outcome.failure),
                    **_record(outcome, now),
                )
                for ordered, outcome in instances
            ],
            **_reason(failure),
        )

    return _envelope(data, failure)


def _record(outcome: ProductOutcome | InstanceOutcome, now: datetime) -> dict[str, Any]:
    """Fields that every outcome of a server has; they settle disputes."""
    return {
        "instanceStatus": instance_status(outcome.status),
        "statusTime": now.strftime(TIME_FORM),
        "before": outcome.before,
        "after": outcome.after,
        "requestIds": list(outcome.request_ids),
        **outcome.more,
    }


def _reason(failure: Refused | None) -> dict[str, Any]:
    return {"reason": failure.reason} if failure and failure.reason else {}


def _verdict(failure: Refused | None) -> dict[str, Any]:
    """Code, message and reason of one of several."""
    result = Result.refusal(failure) if failure else Result.of(Code.OK)
    return {
        "code": result.code,
        "message": result.message,
        "reason": failure.word if failure else None,
    }


def _envelope(
    data: Callable[[_Echo], OrderOutcome | SoftDownOutcome], failure: Refused | None
) -> Result:
    """The data as ordered, or in short: a hundred servers may each give back a large product."""

    def shown(echo: _Echo) -> Any:
        return mask(data(echo).model_dump(mode="json", exclude_unset=True))

    found = shown(lambda ordered: ordered)
    if not fits(found):
        found = shown(_in_short)
    return Result.of(
        failure.code if failure else Code.OK, found, failure.subject if failure else None
    )
