"""Properties, headers, and the ways by which a message comes."""

import gzip
from collections.abc import Iterator

from sandbox.documents import new_token
from tests.support import amqp
from tests.support.corpus.case import (
    ID,
    IMAGE,
    NO_SERVER,
    Case,
    Fate,
    action,
    command,
    js,
    order,
    order_case,
    show,
)

FULL = js(show())


def transport() -> Iterator[Case]:
    """Properties and headers."""
    full = js(show())
    for kind in (
        "application/x-python-serialize",
        "application/x-yaml",
        "application/x-msgpack",
        "text/json",
        "json",
        "text/plain",
        "application/json; charset=utf-16",
        "application/json;charset=GBK",
        "application/jsonp",
        b"\xff",
        "application/json, x",
    ):
        yield Case(
            f"content type {kind!r}", full, "content_type", properties={"content_type": kind}
        )
    for kind in (
        "APPLICATION/JSON",
        'application/json; charset="UTF-8"',
        "application/json;charset=utf8; x=y",
        " application/json ",
        "",
    ):
        yield Case(
            f"content type {kind!r} is right",
            full,
            None,
            Fate.RIGHT,
            NO_SERVER,
            properties={"content_type": kind},
        )
    bomb = gzip.compress(b'{"a": "' + b"x" * 50_000_000 + b'"}', mtime=0)
    for encoding, body in (
        ("gzip", bomb),
        ("deflate", bomb),
        ("gzip", full),
        ("application/x-bz2", full),
        ("utf-16", full),
        ("base64", full),
    ):
        yield Case(
            f"content encoding {encoding} {len(body)}",
            body,
            "content_encoding",
            properties={"content_encoding": encoding},
        )
    yield Case(
        "content encoding binary, as kombu says of bytes, is right",
        full,
        None,
        Fate.RIGHT,
        NO_SERVER,
        properties={"content_encoding": "binary"},
    )
    yield Case(
        "compression header",
        full,
        None,
        Fate.RIGHT,
        NO_SERVER,
        properties={"headers": {"compression": amqp.text("application/x-gzip")}},
    )
    yield from _reply_tos(full)
    yield from _message_ids()
    yield from _headers(full)
    for name, value in (
        ("timestamp", 0),
        ("timestamp", 2**64 - 1),
        ("timestamp", 2**63),
        ("timestamp", 1_831_707_302_400),
        ("priority", 255),
        ("app_id", "\u202e\x1b[2J"),
        ("type", "x" * 255),
        ("type", b"\xff"),
        ("expiration", "60000"),
        ("user_id", "guest"),
        ("delivery_mode", 1),
        ("correlation_id", "😀" * 60),
    ):
        yield Case(
            f"{name} {value!r:.20} is right",
            full,
            None,
            Fate.RIGHT,
            NO_SERVER,
            properties={name: value},
        )


def _reply_tos(full: bytes) -> Iterator[Case]:
    own = (
        "ecs.reads",
        "ecs.servers",
        "ecs.images",
        "ecs.orders",
        "ecs.order-results",
        "ecs.undelivered",
        "ecs.dead",
        "ecs.retry.5",
        "ecs.retry.1800",
        "ecs.retry.7",
        "ecs.retry.x",
    )
    for name in own:
        yield Case(
            f"reply_to {name}", full, "reply_to", properties={"reply_to": name}, may_reply=False
        )
        yield order_case(
            f"order reply_to {name}",
            order(),
            "reply_to",
            properties={"reply_to": name},
            may_reply=False,
        )
    yield Case(
        "reply_to no UTF-8",
        full,
        "reply_to",
        properties={"reply_to": b"\xff" * 255},
        may_reply=False,
    )
    yield Case(
        "reply_to empty",
        js(show(server_id="x")),
        "server_id",
        properties={"reply_to": ""},
        may_reply=False,
    )


_NO_ID = {"message_id": None}


def _message_ids() -> Iterator[Case]:
    """Reads may do without; what has one must have one that can be kept and written."""
    start = js(action({"os-start": None}))
    yield Case(
        "a read without message_id is right",
        js(show()),
        None,
        Fate.RIGHT,
        NO_SERVER,
        properties=_NO_ID,
    )
    for operation, message in (
        ("server.action", action({"os-start": None})),
        ("server.action", action({"os-getVNCConsole": {"type": "novnc"}})),
        ("image.delete", command("image.delete", image_id=IMAGE)),
        ("server.tags.update", command("server.tags.update", server_id=ID, tags="")),
    ):
        yield Case(
            f"no message_id for {str(message)[-60:]}",
            js(message),
            "message_id",
            routing_key=operation,
            operation=operation,
            properties=_NO_ID,
        )
    odd = (
        "",
        " ",
        "\x1b[31m",
        "a\r\nb",
        "\u202e",
        b"\xff\xfe",
        b"\xff" * 255,
        "a\x00b",
        "\ud800".encode("utf-8", "surrogatepass"),
    )
    for one in odd:
        yield Case(
            f"message_id {one!r:.30}",
            start,
            "message_id",
            routing_key="server.action",
            operation="server.action",
            properties={"message_id": one},
        )
    for one in ("x" * 255, "😀" * 63, "'; DROP TABLE requests; --", "a.b#*", "中"):
        yield Case(
            f"message_id {one:.20} is right",
            start,
            None,
            Fate.RIGHT,
            NO_SERVER,
            routing_key="server.action",
            operation="server.action",
            properties={"message_id": one},
        )


def _headers(full: bytes) -> Iterator[Case]:
    big = {
        "100 KB": {"x": amqp.text("x" * 100_000)},
        "all that fits": {"x": amqp.text("x" * 130_600)},
        "4000 of them": {f"k{one}": amqp.text("x" * 20) for one in range(4000)},
        "a year 60014": {"t": amqp.moment(1_831_707_302_400)},
        "a time of all ones": {"t": amqp.moment(2**64 - 1)},
        "nine levels": {"d": amqp.deep(9)},
        "600 levels": {"d": amqp.deep(600)},
        "20000 levels": {"d": amqp.deep(20_000)},
        "100 KB traceparent": {"traceparent": amqp.text("x" * 100_000)},
    }
    for name, headers in big.items():
        yield Case(f"headers: {name}", full, "headers", properties={"headers": headers})
        yield order_case(
            f"order headers: {name}", order(), "headers", properties={"headers": headers}
        )
    right = {
        "of every kind": {
            "a": amqp.array(amqp.nested({"b": amqp.nothing()}), amqp.double(1.5)),
            "d": amqp.decimal(-1, 255),
            "f": amqp.double(-1e308),
            "t": amqp.moment(0),
            "x": amqp.octets(b"\x00\xff"),
            "i": amqp.integer(-(2**63)),
            b"\xff\xfe": amqp.text(b"\xff"),
            "": amqp.boolean(True),
        },
        "forged x-death": {
            "x-death": amqp.array(
                amqp.nested({"queue": amqp.text("ecs.orders"), "count": amqp.integer(10**9)})
            )
        },
        "x-death of another kind": {
            "x-death": amqp.text("x"),
            "x-first-death-queue": amqp.array(),
            "x-delivery-count": amqp.text("x"),
        },
        "forged counters": {
            "x-ecs-attempts": amqp.integer(10**9),
            "x-ecs-first-seen": amqp.integer(1),
            "x-ecs-error-code": amqp.text("200"),
            "x-ecs-routing-key": amqp.text("ecs.orders order.new"),
            "x-ecs-origin-queue": amqp.text("ecs.dead"),
        },
        "forged counters of odd kinds": {
            "x-ecs-attempts": amqp.array(),
            "x-ecs-first-seen": amqp.text("x"),
            "x-ecs-pass": amqp.boolean(True),
            "x-ecs-routing-key": amqp.integer(7),
            "ecs-retry-delay": amqp.text("5"),
        },
        "a pass of nobody": {"x-ecs-pass": amqp.text("x" * 43)},
        "an empty pass": {"x-ecs-pass": amqp.text("")},
        "odd trace": {"traceparent": amqp.text("\r\n"), "tracestate": amqp.integer(7)},
        "further routing keys": {
            "CC": amqp.array(amqp.text("volume.nothing")),
            "BCC": amqp.array(amqp.text("ecs.dead")),
        },
        "deadline far away": {"x-ecs-deadline": amqp.double(1e300)},
        "deadline of digits": {"x-ecs-deadline": amqp.text("999999999999")},
        "deadline as a decimal": {"x-ecs-deadline": amqp.decimal(2_000_000_000, 0)},
        "no deadline": {"x-ecs-deadline": amqp.nothing()},
    }
    for name, headers in right.items():
        yield Case(
            f"headers: {name} is right",
            full,
            None,
            Fate.RIGHT,
            NO_SERVER,
            properties={"headers": headers},
        )
    for value in (
        amqp.text("soon"),
        amqp.text(""),
        amqp.text("-1"),
        amqp.text("1.5"),
        amqp.text("9" * 13),
        amqp.text("１２"),
        amqp.boolean(True),
        amqp.array(),
        amqp.nested({}),
        amqp.moment(2_000_000_000),
        amqp.octets(b"9999999999"),
    ):
        yield Case(
            f"deadline {value!r:.30}",
            full,
            "x-ecs-deadline",
            properties={"headers": {"x-ecs-deadline": value}},
        )
    for value in (
        amqp.integer(0),
        amqp.integer(-(2**63)),
        amqp.text("0"),
        amqp.double(-1e308),
        amqp.integer(1_600_000_000),
    ):
        yield Case(
            f"deadline passed {value!r:.30}",
            full,
            None,
            Fate.RIGHT,
            "101.001040",
            properties={"headers": {"x-ecs-deadline": value}},
        )


def elsewhere() -> Iterator[Case]:
    """Published past the exchanges that requests come by, or where no queue is bound."""
    yield Case(
        "straight into the queue",
        js(show()),
        None,
        Fate.RIGHT,
        NO_SERVER,
        exchange="",
        routing_key="ecs.servers",
    )
    forged = {
        "headers": {
            "x-ecs-routing-key": amqp.text("ecs.commands server.action"),
            "x-ecs-first-seen": amqp.integer(2),
        }
    }
    yield Case(
        "straight into the queue, forged",
        js(show()),
        "operation",
        exchange="",
        routing_key="ecs.servers",
        properties=forged,
    )
    yield Case(
        "straight into the queue, no operation",
        b"{}",
        "operation",
        exchange="",
        routing_key="ecs.servers",
        operation=None,
    )
    yield Case(
        "straight into the queue, no JSON",
        b"{",
        "body",
        exchange="",
        routing_key="ecs.servers",
        operation=None,
    )
    for key in ("volume.create", "Server.show", "", "servershow", "x" * 255):
        yield Case(
            f"no queue wants {key:.20}",
            js(show(operation=key)),
            "operation",
            Fate.UNROUTABLE,
            routing_key=key,
            operation=None,
        )
    yield Case(
        "no queue wants it, no JSON",
        b"{",
        "operation",
        Fate.UNROUTABLE,
        routing_key="x",
        operation=None,
    )
    yield Case(
        "no queue wants what is known",
        js(show()),
        "operation",
        Fate.UNROUTABLE,
        routing_key="SERVER.SHOW",
    )
    forged = {
        "headers": {
            "x-first-death-queue": amqp.text("ecs.orders"),
            "x-death": amqp.array(amqp.nested({"queue": amqp.text("ecs.orders")})),
        }
    }
    yield Case(
        "no queue wants it, forged history",
        js(order()),
        "operation",
        Fate.UNROUTABLE,
        routing_key="x",
        operation=None,
        properties=forged,
    )
    yield Case(
        "the undelivered, directly",
        js({"token": new_token()}),
        "operation",
        Fate.UNROUTABLE,
        exchange="ecs.undelivered",
        routing_key="x",
        operation=None,
    )
