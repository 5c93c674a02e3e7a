"""Whole messages, mutated: right ones of every kind, with odd things put into JSON, bytes and
properties.
"""

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from sandbox.documents import change_configure
from tests.support import amqp
from tests.support.corpus.case import (
    ID,
    IMAGE,
    action,
    command,
    ids,
    order,
    product,
    show,
    soft_down,
)
from tests.support.corpus.commands import TEXTS
from tests.support.names import queue_for

_KEYS = ("os-start", "os-stop", "reboot", "os-getVNCConsole", "createImage")


@dataclass(slots=True)
class Message:
    """Holds what is sent."""

    exchange: str
    routing_key: str
    body: bytes
    properties: dict[str, Any] = field(default_factory=dict)

    @property
    def queue(self) -> str:
        """Return where the broker puts it."""
        return queue_for(self.exchange, self.routing_key)


def samples(server_id: str = ID) -> list[tuple[str, str, dict[str, Any]]]:
    """A right message of every kind: exchange, routing key, body."""
    options: dict[str, Any] = {
        "os-start": None,
        "os-stop": {"type": "SOFT"},
        "reboot": {"type": "HARD"},
        "os-getVNCConsole": {"type": "novnc"},
        "createImage": {"name": "image", "description": "", "metadata": {"a": "b"}},
    }
    found = [action({name: options[name]}) | {"server_id": server_id} for name in _KEYS] + [
        command("server.batch_action", body={name: {"servers": [{"id": server_id}, *ids(3)]}})
        for name in _KEYS[:3]
    ]
    found += [
        show(server_id=server_id),
        command("server.tags.list", server_id=server_id),
        command("server.tags.update", server_id=server_id, tags="a, b,c"),
        command(
            "server.list",
            pageNo=1,
            pageSize="10",
            searchField="name",
            searchValue="x",
            sortField="name",
            sortOrder="ascend",
        ),
        command(
            "image.list",
            page="1",
            pageSize=100,
            searchValue="",
            sortField="createTime",
            sortOrder="descend",
            visibility="public",
        ),
        command("image.list_private", tag="ECS"),
        command("image.show", image_id=IMAGE),
        command("image.delete", image_id=IMAGE),
        command("image.batch_delete", body={"images": ids(4)}),
        command(
            "image.update",
            image_id=IMAGE,
            body=[
                {"op": "replace", "path": "/name", "value": "x"},
                {"op": "remove", "path": "/system"},
            ],
        ),
    ]
    found.append(command("order.plan", order=order()))
    found.append(command("order.show", key="178549870045495296"))
    commands = [("ecs.commands", str(one["operation"]), one) for one in found]
    orders = [
        json.loads(change_configure(server_id, IMAGE))
        | {"tenant_id": "tenant-a", "orderType": kind}
        for kind in ("changeConfigure ", "renew", "unsubscribe", "new")
    ]
    orders[-1]["consoleCustomization"] = {
        "instanceName": "web",
        "adminPass": "Secret-1",
        "userData": "#cloud-config\n",
        "tags": "a,b",
        "networkId": ID,
        "securityGroups": ["default"],
        "keyName": "key",
    }
    orders += [
        soft_down(),
        product(itemList=[{"code": "data_EBS_SSD", "value": "20", "instanceId": ID}]),
    ]
    return commands + [("ecs.orders", "order.x", one) for one in orders]


_ODD: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    1.0,
    -0.0,
    1e308,
    101,
    10**12,
    10**30,
    -(2**63),
    "",
    " ",
    "0",
    "1",
    "-1",
    "1.0",
    "yes",
    "null",
    "***",
    [],
    {},
    [[]],
    [None],
    [{}],
    {"": ""},
    {"a": None},
    {"id": ID},
    [ID],
    ID,
    ID.upper(),
    f" {ID} ",
    f"{ID}\n",
    "x" * 255,
    "x" * 256,
    "x" * 70_000,
    "9" * 300,
    "paySuccess",
    "ECS",
    "SOFT",
    "novnc",
    "H",
    "Y",
    "2099-01-01 00:00:00",
    "__class__",
    "\x1b[2J",
    "a\r\nb",
    "\x7f",
    "{}{0}%s",
    "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.",
    *TEXTS,
)
_NAMES = (
    "operation",
    "tenant_id",
    "user_id",
    "userId",
    "token",
    "server_id",
    "image_id",
    "body",
    "servers",
    "images",
    "id",
    "type",
    "name",
    "metadata",
    "tags",
    "pageNo",
    "page",
    "pageSize",
    "searchField",
    "searchValue",
    "sortField",
    "sortOrder",
    "visibility",
    "tag",
    "order",
    "orderId",
    "orderStatus",
    "orderType",
    "orderRoute",
    "setCount",
    "productList",
    "itemList",
    "code",
    "value",
    "instanceId",
    "instanceCount",
    "instanceList",
    "flowId",
    "duration",
    "durationUnit",
    "consoleCustomization",
    "adminPass",
    "userData",
    *_KEYS,
    "__proto__",
    "",
)
_BYTES = (
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b",",
    b":",
    b"\\",
    b"\\u",
    b"\\ud800",
    b"\\u0000",
    b"\x00",
    b"\xff",
    b"\xc3",
    b"\xef\xbb\xbf",
    b"NaN",
    b"-",
    b"e9",
    b"0",
    b"\n",
    b"\x1b",
    b"true",
    b"null",
    b"/*",
    "😀".encode(),
    "\u202e".encode(),
    b"[" * 500,
    b'{"a":' * 40,
)


def mutated(random: Random, right: list[tuple[str, str, dict[str, Any]]]) -> Message:
    """One message; a few are left right."""
    exchange, routing_key, body = random.choice(right)
    body = copy.deepcopy(body)
    for _ in range(random.choice((0, 1, 1, 1, 2, 3, 5))):
        _mutate_json(random, body)
    raw = json.dumps(body, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
    if random.random() < 0.3:
        raw = _mutate_bytes(random, raw)
    message = Message(exchange, routing_key, raw, {"content_type": "application/json"})
    if random.random() < 0.3:
        _mutate_properties(random, message)
    return message


def stream(seed: int, number: int, server_id: str = ID) -> Iterator[Message]:
    """So many messages; the same for the same seed."""
    random, right = Random(seed), samples(server_id)
    for _ in range(number):
        yield mutated(random, right)


def _nodes(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a document: the object or list that it is in, and its key or index."""
    places = (
        list(value.items() if isinstance(value, dict) else enumerate(value))
        if isinstance(value, dict | list)
        else []
    )
    return [(value, key) for key, _ in places] + [
        place for _, inner in places for place in _nodes(inner)
    ]


def _mutate_json(random: Random, body: dict[str, Any]) -> None:
    nodes = _nodes(body)
    if not nodes:
        return
    inside, key = random.choice(nodes)
    random.choice(
        (_replace, _replace, _delete, _insert, _rename, _repeat, _nest, _twist, _exchange)
    )(random, inside, key, nodes)


def _replace(random: Random, inside: Any, key: Any, _: Any) -> None:
    inside[key] = copy.deepcopy(random.choice(_ODD))


def _delete(_random: Random, inside: Any, key: Any, _: Any) -> None:
    del inside[key]


def _insert(random: Random, inside: Any, key: Any, _: Any) -> None:
    odd = copy.deepcopy(random.choice(_ODD))
    if isinstance(inside, dict):
        inside[random.choice(_NAMES)] = odd
    else:
        inside.insert(key, odd)


def _rename(random: Random, inside: Any, key: Any, _: Any) -> None:
    if isinstance(inside, dict):
        name = random.choice((str(key).upper(), f" {key}", f"{key}\u200b", random.choice(_NAMES)))
        inside[name] = inside.pop(key)


def _repeat(random: Random, inside: Any, key: Any, _: Any) -> None:
    if isinstance(inside[key], list):
        inside[key] *= random.choice((0, 2, 120))
    elif isinstance(inside[key], str):
        inside[key] *= random.choice((2, 300))


def _nest(random: Random, inside: Any, key: Any, _: Any) -> None:
    for _level in range(random.choice((1, 2, 40))):
        inside[key] = [inside[key]] if random.random() < 0.5 else {"a": inside[key]}


def _twist(random: Random, inside: Any, key: Any, _: Any) -> None:
    """The same in another type, or with something odd in the middle."""
    value = inside[key]
    if isinstance(value, str):
        middle = random.randrange(len(value) + 1)
        inside[key] = (
            value[:middle]
            + random.choice(("\u0000", "\ud800", "\n", "\u202e", "😀", " ", "\x1b", "'"))
            + value[middle:]
        )
    elif isinstance(value, bool | int | float):
        inside[key] = random.choice((str(value), [value], float(value)))
    elif value is not None:
        inside[key] = json.dumps(value)


def _exchange(random: Random, inside: Any, key: Any, nodes: list[tuple[Any, Any]]) -> None:
    """Two values change places, unless one is within the other."""
    other, other_key = random.choice(nodes)
    inside[key], other[other_key] = copy.deepcopy(other[other_key]), copy.deepcopy(inside[key])


def _mutate_bytes(random: Random, raw: bytes) -> bytes:
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(raw) + 1)
        end = min(len(raw), at + random.choice((0, 1, 1, 2, 20)))
        put = random.choice(
            (b"", random.choice(_BYTES), bytes([random.randrange(256)]), raw[at:end] * 2)
        )
        raw = raw[:at] + put + raw[end:]
    return raw[: random.randrange(len(raw) + 1)] if random.random() < 0.1 else raw


_VALUES: tuple[Callable[[Random], bytes], ...] = (
    lambda random: amqp.text(random.choice(TEXTS)),
    lambda random: amqp.text(random.randbytes(30)),
    lambda random: amqp.octets(random.randbytes(9)),
    lambda random: amqp.integer(random.choice((0, -1, 7, 2**62, 1_700_000_000))),
    lambda _: amqp.boolean(True),
    lambda _: amqp.nothing(),
    lambda random: amqp.double(random.choice((0.0, -1.5, 1e300))),
    lambda _: amqp.decimal(-1, 200),
    lambda _: amqp.moment(2**60),
    lambda _: amqp.moment(0),
    lambda random: amqp.deep(random.choice((1, 7, 9, 300, 5000))),
    lambda _: amqp.text("x" * 40_000),
    lambda random: amqp.array(amqp.nested({random.randbytes(3): amqp.integer(1)}), amqp.text("x")),
)
_HEADERS = (
    "x-ecs-deadline",
    "x-ecs-attempts",
    "x-ecs-first-seen",
    "x-ecs-routing-key",
    "x-ecs-pass",
    "x-ecs-origin-queue",
    "x-death",
    "x-first-death-queue",
    "x-delivery-count",
    "traceparent",
    "tracestate",
    "CC",
    "BCC",
    "ecs-retry-delay",
    "authorization",
    "compression",
    b"\xff\xfe",
    "",
)
_PROPERTIES: dict[str, tuple[Any, ...]] = {
    "content_type": (
        None,
        "",
        "text/plain",
        "application/x-python-serialize",
        "application/json; charset=utf-8",
        b"\xff",
    ),
    "content_encoding": ("utf-8", "gzip", "", b"\xff"),
    "message_id": (None, "", " ", "x" * 255, b"\xff" * 255, "\x1b", "😀", "a.b"),
    "reply_to": (
        "",
        "ecs.orders",
        "ecs.retry.9",
        "nobody",
        "ECS.ORDERS",
        "x" * 255,
        b"\xff",
        "amq.rabbitmq.reply-to.x",
    ),
    "timestamp": (0, 1, 1_700_000_000, 2**63, 2**64 - 1),
    "type": ("x" * 255, b"\xff", "order.new"),
    "priority": (0, 255),
    "app_id": (b"\xff", "x" * 255, "\u202e"),
    "expiration": ("100000",),
}


def _mutate_properties(random: Random, message: Message) -> None:
    for _ in range(random.choice((1, 1, 2, 3))):
        if random.random() < 0.5:
            headers = message.properties.setdefault("headers", {})
            name = random.choice(_HEADERS)
            # The broker itself refuses any other kind of these.
            headers[name] = (
                amqp.array(amqp.text("x"))
                if name in ("CC", "BCC")
                else random.choice(_VALUES)(random)
            )
        else:
            name = random.choice(tuple(_PROPERTIES))
            message.properties[name] = random.choice(_PROPERTIES[name])
