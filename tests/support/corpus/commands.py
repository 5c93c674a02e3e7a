"""Commands whose fields are of another type, out of range, or only text."""

from collections.abc import Iterator
from typing import Any

from tests.support.corpus.case import (
    ID,
    IMAGE,
    NO_IMAGE,
    NO_SERVER,
    NO_SERVERS,
    OK,
    Case,
    Fate,
    action,
    command,
    command_case,
    ids,
    js,
    order,
    show,
)


def _plan(value: Any) -> Case:
    return command_case(f"a plan of {value!r}", command("order.plan", order=value), "order")


def _shown(key: Any) -> Case:
    return command_case(f"the request {key!r:.80}", command("order.show", key=key), "key")


_NO_IDS = (
    None,
    "",
    " ",
    7,
    True,
    [],
    [ID],
    {},
    {"$ne": None},
    ID[:-1],
    ID + "0",
    f"{ID}\n",
    f"{{{ID}}}",
    ID.replace("-", ""),
    "../../etc/passwd",
    "' OR '1'='1",
    "${jndi:ldap://x}",
    "{{7*7}}",
    "<script>",
    "６16fb98f-46ca-475e-917e-2563e5a8cd19",
    f"{ID}/../{ID}",
    f"{ID}?x=1",
    "\u202e" + ID,
)
_NO_SIZES = (
    0,
    -1,
    101,
    "0",
    "101",
    "-1",
    "1.0",
    1.0,
    True,
    "yes",
    [],
    {},
    10**12,
    "9" * 13,
    "１",
    1e2,
    "0x10",
    "1e1",
)
_NO_NUMBERS = (0, -1, "0", 1.0, True, "yes", [], 10**18, "1 1", "", " ")


def numbers_and_ids() -> Iterator[Case]:
    """Ids that are none, pages that are none."""
    for value in _NO_IDS:
        yield command_case(f"server_id {value!r:.60}", show(server_id=value), "server_id")
        yield command_case(
            f"image_id {value!r:.60}", command("image.show", image_id=value), "image_id"
        )
    for value in _NO_SIZES:
        yield command_case(
            f"pageSize {value!r}", command("server.list", pageSize=value), "pageSize"
        )
    for value in _NO_NUMBERS:
        yield command_case(f"pageNo {value!r}", command("server.list", pageNo=value), "pageNo")
        yield command_case(f"page {value!r}", command("image.list", page=value), "page")
    for value in (1, "1", " 100 ", "100", "007", None):
        yield command_case(
            f"pageSize {value!r} is right", command("server.list", pageSize=value), code=OK
        )
    last = command("server.list", pageNo="999999999999", pageSize=100)
    yield command_case("a page far past the end is right", last, code=OK)


def types() -> Iterator[Case]:
    """Fields of another type, or out of range."""
    fields = {
        "searchField": (7, [], {}, "host", "NAME", "__class__", "x" * 256),
        "searchValue": (7, [], True, "x" * 256, "a\nb", "\x1b[31m"),
        "sortField": (7, [], "id", "name; drop table", "createtime"),
        "sortOrder": (7, [], "up", "ascending", "ascend descend"),
    }
    for name, values in fields.items():
        for value in values:
            yield command_case(
                f"{name} {value!r:.20}", command("server.list", **{name: value}), name
            )
            if name != "searchField":
                yield command_case(
                    f"image {name} {value!r:.20}", command("image.list", **{name: value}), name
                )
    yield from (
        command_case(f"visibility {one!r}", command("image.list", visibility=one), "visibility")
        for one in (7, "all", [], "Public")
    )
    yield from (
        command_case(f"tag {one!r:.20}", command("image.list_private", tag=one), "tag")
        for one in (None, "", " ", 7, "x" * 256)
    )
    for name in ("tenant_id", "user_id"):
        for value in (7, True, [], {}, "x" * 256, "a\x00b"[:1] + "\x7f", "tenant\n", "a\u202eb"):
            if value != "tenant\n":  # blanks around are trimmed
                yield command_case(f"{name} {value!r:.20}", show(**{name: value}), name)
    for name, message in (
        ("no", {"operation": "server.show", "server_id": ID}),
        ("an unknown", show(tenant_id="../users")),
    ):
        yield Case(f"{name} tenant", js(message), "tenant_id", Fate.NOBODYS)
    for value in (
        "a/b",
        "a,,b",
        ",",
        "x" * 61,
        ",".join(str(n) for n in range(51)),
        None,
        7,
        [],
        ["a"],
        "a\nb",
        "a\x1b",
        "a\u2028b",
    ):
        yield command_case(
            f"tags {value!r:.20}", command("server.tags.update", server_id=ID, tags=value), "tags"
        )


def operations() -> Iterator[Case]:
    """Return what the operation and the body say."""
    for value in (
        "Server.show",
        "SERVER.SHOW",
        " server.show",
        "server.show ",
        "server.sh\u200bow",
        ["server.show"],
        {"a": 1},
        7,
        True,
        None,
        "__class__",
        "server.action",
        "",
        "server.*",
        "server.#",
    ):
        # The routing key tells which operation it was meant for, or what the body names is known.
        known = "server.action" if value == "server.action" else "server.show"
        yield Case(f"operation {value!r}", js(show(operation=value)), "operation", operation=known)
    yield Case("no operation", js({"server_id": ID}), "operation")
    for key in (
        "server.frobnicate",
        "server.show.now",
        "server",
        "image.create",
        "server.__init__",
        "server.中",
        "server.\u202e",
    ):
        yield Case(
            f"unknown operation {key}",
            js(show(operation=key)),
            "operation",
            Fate.UNROUTABLE,
            routing_key=key,
            operation=None,
        )
    yield Case("routing key of another", js(show()), "operation", routing_key="server.action")
    yield Case("routing key of another queue", js(show()), "operation", routing_key="image.show")
    yield Case(
        "no text as a routing key",
        js(show()),
        "operation",
        Fate.UNROUTABLE,
        routing_key="server.x\ufffd",
    )
    yield Case(
        "an order sent as a command",
        js(order()),
        "operation",
        Fate.UNROUTABLE,
        routing_key="order.changeConfigure",
        operation=None,
    )
    yield from (_plan(value) for value in (None, [], {}, "x", 7, True))
    yield from (_shown(key) for key in (None, "", " ", 7, True, [], {}, "x" * 256, "a\nb"))
    yield Case(
        "order.nonsense",
        js(command("order.nonsense")),
        "operation",
        Fate.UNROUTABLE,
        routing_key="order.nonsense",
        operation=None,
    )
    for body in (
        None,
        [],
        "os-start",
        {},
        {"os-start": None, "os-stop": None},
        {"os-start": {}, "createImage": {}},
        {"OS-START": None},
        {"pause": None},
        {"os-start ": None},
        7,
        True,
    ):
        yield command_case(f"body {body!r:.40}", action(body), "body")
    for name in ("os-start", "os-stop", "reboot", "os-getVNCConsole", "createImage"):
        for options in ([], "x", 7, True, [None]):
            yield command_case(f"{name} with {options!r}", action({name: options}), name)
    for kind in ("WARM", "", 7, [], True, None, "SOFT HARD", "x" * 256):
        if kind is not None:
            yield command_case(
                f"reboot type {kind!r:.20}", action({"reboot": {"type": kind}}), "type"
            )
            yield command_case(
                f"os-stop type {kind!r:.20}", action({"os-stop": {"type": kind}}), "type"
            )
        if kind not in ("WARM", "SOFT HARD"):
            yield command_case(
                f"console type {kind!r:.20}", action({"os-getVNCConsole": {"type": kind}}), "type"
            )
    yield command_case(
        "reboot type with blanks is right", action({"reboot": {"type": " soft "}}), code=NO_SERVER
    )
    yield command_case(
        "extra fields are right",
        action({"os-start": {"x": 1}, "y": 2}, z=[{"a": {}}]),
        code=NO_SERVER,
    )
    image = {"name": "n", "description": "d"}
    for name, value in (
        ("name", None),
        ("name", ""),
        ("name", "x" * 256),
        ("name", "a\rb"),
        ("name", "\x1b[2J"),
        ("name", 7),
        ("description", None),
        ("description", 7),
        ("description", "x" * 256),
        ("metadata", []),
        ("metadata", "x"),
        ("metadata", {"owner": "x"}),
        ("metadata", {"Size": "1"}),
        ("metadata", {"": "x"}),
        ("metadata", {"a\nb": "x"}),
        ("metadata", {"中": "x"}),
        ("metadata", {"x" * 256: "x"}),
        ("metadata", {"a": None}),
        ("metadata", {"a": 1}),
        ("metadata", {"a": "x" * 256}),
        ("metadata", {"img_signature": "x"}),
        ("metadata", {" ECS_request": "x"}),
        ("metadata", {str(number): "x" for number in range(101)}),
    ):
        yield command_case(
            f"createImage {name} {value!r:.20}",
            action({"createImage": image | {name: value}}),
            name,
        )
    patches = (
        (None, "body"),
        ([], "body"),
        ({}, "body"),
        ("x", "body"),
        ([None], "body"),
        (["x"], "body"),
        ([[]], "body"),
        ([{}] * 101, "body"),
        ([{"op": "add"}], "path"),
        ([{"path": "/owner", "op": "replace", "value": "x"}], "path"),
        ([{"path": "/name/0", "op": "add", "value": "x"}], "path"),
        ([{"path": "name", "op": "add", "value": "x"}], "path"),
        ([{"path": "/name", "op": "remove"}], "op"),
        ([{"path": "/name", "op": "move", "from": "/owner"}], "op"),
        ([{"path": "/name", "op": "ADD", "value": "x"}], "op"),
        ([{"path": "/name", "op": "add"}], "value"),
        ([{"path": "/name", "op": "add", "value": ""}], "value"),
        ([{"path": "/name", "op": "add", "value": {"a": 1}}], "value"),
        ([{"path": "/description", "op": "add", "value": None}], "value"),
        ([{"path": "/system", "op": "add", "value": "x" * 256}], "value"),
    )
    yield from (
        command_case(
            f"patch {one!r:.80}", command("image.update", image_id=IMAGE, body=one), subject
        )
        for one, subject in patches
    )


def batches() -> Iterator[Case]:
    """Batches at and beyond their limits."""
    wrong: tuple[tuple[Any, str], ...] = (
        ([], "s"),
        (ids(101), "s"),
        (None, "s"),
        ({}, "s"),
        ("x", "s"),
        ([ID], "s"),
        ([None], "s"),
        ([[]], "s"),
        ([{"id": ID}] * 2, "s"),
        ([{"id": ID}, {"id": ID.upper()}], "s"),
        ([{}], "id"),
        ([{"id": None}], "id"),
        ([{"id": 7}], "id"),
        ([{"ID": ID}], "id"),
        ([*ids(99), {"id": "x"}], "id"),
        ([*ids(99), None], "s"),
    )
    for listed, subject in wrong:
        servers = "servers" if subject == "s" else subject
        images = "images" if subject == "s" else subject
        label = f"{str(listed)[:30]}…{str(listed)[-30:]} {len(listed or ())}"
        yield command_case(
            f"batch {label}",
            command("server.batch_action", body={"os-stop": {"servers": listed}}),
            servers,
        )
        yield command_case(
            f"images {label}", command("image.batch_delete", body={"images": listed}), images
        )
    for body in (
        None,
        {},
        {"os-start": None},
        {"os-getVNCConsole": {}},
        {"createImage": {}},
        {"os-stop": {}, "reboot": {}},
    ):
        yield command_case(
            f"batch of {body!r:.30}",
            command("server.batch_action", body=body),
            "servers" if body == {"os-start": None} else "body",
        )
    for number in (1, 100):
        body = {"os-stop": {"servers": ids(number)}}
        yield command_case(
            f"a batch of {number} is right",
            command("server.batch_action", body=body),
            code=NO_SERVERS,
        )
        yield command_case(
            f"{number} images are right",
            command("image.batch_delete", body={"images": ids(number)}),
            code=OK,
        )


#: What people and attackers write, and no more than text.
TEXTS = (
    "'; DROP TABLE requests; --",
    "${jndi:ldap://127.0.0.1/a}",
    "{{7*7}}",
    "<script>alert(1)</script>",
    "../../etc/passwd",
    "%s%n{}",
    ".*+?^$()[]|\\",
    "\u202e\u0645\u0631\u062d\u0628\u0627",
    "שלום",
    "😀👩‍👩‍👧‍👦🏳️‍🌈",
    "测试　服务器",
    "\u200f",
    "a\u200bb",
    "null",
    "NaN",
    "0",
    "𠮷" * 255,
)


#: Those of them that Nova takes from nobody as the name of an image: format characters, what is
#: above U+FFFF.
NO_NAMES = TEXTS[7:8] + TEXTS[9:10] + TEXTS[11:13] + TEXTS[-1:]


def texts() -> Iterator[Case]:
    """Text is text wherever a person may write it, and a name is one that the cloud takes."""
    for one in TEXTS:
        yield command_case(f"searched {one:.20}", command("server.list", searchValue=one), code=OK)
        yield command_case(
            f"image searched {one:.20}", command("image.list", searchValue=one), code=OK
        )
        yield command_case(f"image tag {one:.20}", command("image.list_private", tag=one), code=OK)
        wanted = action({"createImage": {"name": one, "description": ""}})
        if one in NO_NAMES:
            yield command_case(f"image named {one:.20}", wanted, "name")
        else:
            yield command_case(f"image named {one:.20}", wanted, code=NO_SERVER)
    right = command("server.tags.update", server_id=ID, tags="\u200f,שלום,a b,'; --")
    yield command_case("tags of all kinds", right, code=NO_SERVER)
    for tags in ("web,😀", "Web,web", "café,cafe"):
        wrong = command("server.tags.update", server_id=ID, tags=tags)
        yield command_case(f"tags {tags}", wrong, "tags")
    change = {"op": "add", "path": "/description", "value": "ﷺ\u200f\n"}
    right = command("image.update", image_id=ID, body=[change])
    yield command_case("a description of all kinds", right, code=NO_IMAGE)
    for path in ("/name", "/description", "/system"):
        wrong = command("image.update", image_id=ID, body=[change | {"path": path, "value": "a😀"}])
        yield command_case(f"an image's {path} with an emoji", wrong, "value")
    for field in ("description", "metadata"):
        options = {
            "name": "x",
            "description": "y",
            field: "😀" if field == "description" else {"a": "😀"},
        }
        yield command_case(
            f"createImage, {field} with an emoji", action({"createImage": options}), field
        )
