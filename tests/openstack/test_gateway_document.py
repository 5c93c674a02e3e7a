"""docs/reference/http-examples.md: every request example of the API document, sent to a gateway by
curl, and the answer beside the document's.

The page is made here and compared with the one in the repository; each difference in shape has its
reason there, and each reason its difference. `make docs` writes it anew.
"""

import json
import os
import re
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from sandbox.documents import change_configure, new_order_id, new_token
from sandbox.worker import WorkerProcess
from tests.integration.test_operations_page import settled
from tests.support import REPOSITORY
from tests.support.consoles import need_curl
from tests.support.furnished import furnish
from tests.support.http import gateways
from tests.support.tenant import Tenant
from tests.support.waiting import eventually
from tests.support.workshop import Workshop

PAGE = REPOSITORY / "docs" / "reference" / "http-examples.md"
DOCUMENT = REPOSITORY / "tests" / "fixtures" / "api_document.md"
HEAD = """# The API document's examples over HTTP

Every request example of the API document, sent by curl to `ecs-worker gateway` before a worker on OpenStack, and its
answer beside the document's. A test makes this page and compares it. Ids, times and addresses are replaced by others of
their kind; the document's ids in paths and batches by those of servers that exist.
"""
#: The document's ids of servers in batches.
_IDS = ("616fb98f-46ca-475e-917e-2563e5a8cd19", "726fb98f-46ca-475e-917e-2563e5a8cd20")
#: What every answer has, by the document's "公共返回值".
COMMON = {"code": 200, "message": "OK", "data": None}
#: What is compared by value.
BY_VALUE = (".code", ".message", ".data.status")
#: Why an answer differs from the document's, by a pattern of differences.
REASONS = {
    r"\.code is 200": "the document's example has a text; its table says int.",
    r'\.message is "OK"': "success is `OK`; the document words it differently in each example.",
    r"\.message is more": "code, message and data are in every answer.",
    r"\.data\.servers is empty": "nothing is found.",
    r"\.data\..*\.?translation is more": "the text of the document's tables for the status.",
    r".*\.regionId is more": "so the table calls it; the example has `regionID`. Both are there.",
    r".*\.(system|host|hostId|keyCloakUserId|keyCloakUserName|mac_address|network_id) is more": (
        "in the document's table, not in its example."
    ),
    r".*\.purchasetime is more": "in the document's example of one server.",
    r".*\.task_state is null": "no task is under way.",
    r".*\.image\.systemType is null": "the image does not say.",
    r".*\.image\.tags is empty": "the image has none.",
    r".*\.extra_specs\..* is missing": "the flavor has other extra specs.",
    r"\.data\.?(images\[\])?\.(description|system|systemType) is null": "the image does not say.",
    r"\.data\.?(images\[\])?\.(locations|direct_url) is null": (
        "it names the insides of the storage."
    ),
    r"\.data\.?(images\[\])?\.(instance_uuid|systemDisk|description) is more": (
        "in the document's example of another image."
    ),
    r"\.data\.images is more": "what became of each image.",
    r"\.data is an object": "what became of each server; of an order, where to ask for its result.",
    r"\.data is null": "a refusal has no data.",
    r'\.(code|message) is "(101\.001033|云服务器.*不存在)"': "there is no such server.",
    r'\.(code|message) is "(101\.001002|参数body不符合规范)"': (
        "JSON has no comments (the first example), and an id may be in a batch once (the second)."
    ),
    r'\.message is "参数images不符合规范"': "an image is deleted once.",
}


@dataclass(frozen=True, slots=True)
class Example:
    """A request of the document, and its answer there; None where there is no block of it."""

    method: str
    url: str
    request: str | None
    answer: str | None


def examples() -> dict[str, Example]:
    """Return what the document shows, by title."""
    found = {}
    for part in DOCUMENT.read_text(encoding="utf-8").split("\n## ")[1:]:
        title, _, rest = part.partition("\n")
        method, _, url = rest.strip().partition("\n")[0].partition(" ")
        blocks = dict(re.findall(r"```(request|answer)\n(.*?)\n```", rest, re.DOTALL))
        found[title] = Example(method, url, blocks.get("request"), blocks.get("answer"))
    return found


def lenient(text: str) -> Any:
    """The document's JSON, some of which is none: words without quotation marks, an object that is
    not closed.
    """
    text = re.sub(r"^(\s*)(\w+):", r'\1"\2":', text, flags=re.MULTILINE)
    text = text.replace(": OK,", ': "OK",')
    return json.loads(text + "}" * (text.count("{") - text.count("}")))


def differences(document: Any, ours: Any, path: str = "") -> Iterator[str]:
    """Return where our answer has another shape than the document's: what is missing or more, what
    has another type. Of lists the first elements are compared; `code` and `message` by value.
    """
    if isinstance(document, dict) and isinstance(ours, dict):
        yield from (f"{path}.{name} is missing" for name in document.keys() - ours.keys())
        yield from (f"{path}.{name} is more" for name in ours.keys() - document.keys())
        for name in document.keys() & ours.keys():
            yield from differences(document[name], ours[name], f"{path}.{name}")
    elif isinstance(document, list) and isinstance(ours, list):
        if document and not ours:
            yield f"{path} is empty"
        for one, other in zip(document[:1], ours[:1], strict=False):
            yield from differences(one, other, f"{path}[]")
    elif type(document) is not type(ours) or (path in BY_VALUE and document != ours):
        is_object = isinstance(ours, dict)
        yield f"{path} is {'an object' if is_object else json.dumps(ours, ensure_ascii=False)}"


#: What stands for values that differ from run to run.
STEADY = {
    "fixed_ip": "10.20.30.137",
    "ip_addr": "100.100.100.100",
    "checksum": "e01867770828b02a63ebb037cbd2d319",
    "key": "178549870045495296",
    "message_id": "9ee4612f82a442399149e6d05b0f216b",
}


def steady(value: Any) -> Any:
    """An answer with such values, and tags in an order of their own: a cloud has none."""
    if isinstance(value, list):
        return [steady(one) for one in value]
    if not isinstance(value, dict):
        return value
    found = {name: STEADY.get(name, steady(one)) if one else one for name, one in value.items()}
    return found | ({"tags": sorted(found["tags"])} if found.get("tags") else {})


@pytest.fixture
def gateway(shop: Workshop, worker: WorkerProcess) -> Iterator[str]:
    """The URL of a gateway before the worker."""
    assert worker.alive
    with gateways(shop) as start:
        yield start().url


class Talk:
    """Sends the document's requests by curl and keeps what is shown of each."""

    def __init__(self, url: str) -> None:
        need_curl()
        self._url = url
        self._examples = examples()
        self._left = set(self._examples)
        self.rows: list[str] = []
        self.sections: list[str] = []
        self.found: set[str] = set()

    def say(
        self,
        title: str,
        path: str = "",
        *,
        changed: Callable[[str], str] = str,
        note: str = "",
        own: Callable[[Any], Any] = lambda data: data,
    ) -> Any:
        """Send an example and return the answer's data.

        `path` replaces the document's; `changed` makes the body that is sent of the document's, `note`
        says why; `own` leaves out of the answer what is not this test's.
        """
        example = self._examples[title]
        self._left.discard(title)
        request, path = example.request, path or example.url
        body = changed(request) if request is not None and not request.startswith("/") else None
        status, answer = self.curl(example.method, path, body)
        answer["data"] = own(answer["data"])
        sent = f"{example.method} {path}" + (f"\n\n{body}" if body is not None else "")
        self._show(note or title, example, sent, status, steady(answer))
        return answer["data"]

    def curl(self, method: str, path: str, body: str | None = None) -> tuple[int, Any]:
        """Send a request as tenant-a; the status and the JSON of the answer."""
        command = ["curl", "--silent", "--show-error", "--max-time", "60", "--request", method]
        command += ["--header", "X-Tenant-Id: tenant-a", "--write-out", "\\n%{http_code}"]
        if body is not None:
            command += ["--header", "Content-Type: application/json", "--data-binary", body]
        done = subprocess.run(
            [*command, self._url + path], capture_output=True, text=True, check=True
        )
        text, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(text)

    def page(self) -> str:
        """The page of all that was said; every example must have been."""
        assert self._left == set()
        table = ["| request | the document | the gateway | HTTP |", "|---|---|---|---|", *self.rows]
        return "\n\n".join([HEAD, settled("\n".join(table) + "\n\n" + "\n\n".join(self.sections))])

    def _show(self, shown: str, example: Example, sent: str, status: int, answer: Any) -> None:
        told = lenient(example.answer) if example.answer is not None else COMMON
        reasons = []
        for difference in sorted(differences(told, answer)):
            reason = next((one for one in REASONS if re.fullmatch(one, difference)), None)
            assert reason is not None, f"{shown}: {difference} has no reason"
            self.found.add(reason)
            reasons.append(f"- `{difference}`: {REASONS[reason]}")
        cells = (f"`{one['code']}` {one.get('message', '')}".strip() for one in (told, answer))
        link = re.sub(r"[^\w -]", "", shown.lower()).replace(" ", "-")
        self.rows.append(f"| [{shown}](#{link}) | {' | '.join(cells)} | {status} |")
        parts = [f"## {shown}", _block("http", sent)]
        if example.answer is not None:
            parts += ["The document's answer:", _block("text", example.answer)]
        else:
            parts.append("The document's answer: code, message and data.")
        parts += [f"The gateway's, {status}:", _block("json", _json(answer))]
        parts += ["\n".join(["They differ:", "", *reasons])] if reasons else []
        self.sections.append("\n\n".join(parts))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def _block(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


def next_second() -> None:
    """Return when all that was made is a second old: the cloud's times are whole ones, and what has
    the same is ordered by id.
    """
    made = datetime.now(UTC)
    eventually(lambda: datetime.now(UTC) - made > timedelta(seconds=1))


@pytest.mark.long_on_real
def test_the_documents_requests_and_their_answers(gateway: str, tenant: Tenant) -> None:
    talk = Talk(gateway)
    rich = furnish(tenant, name="abc-web").server_id
    next_second()
    many = tenant.make_servers(10, name=f"abc-{uuid.uuid4().hex[:8]}")
    mine = {rich, *many}

    def own(data: Any) -> Any:
        """Without other tests' servers, whose ids may have `abc` in them, too."""
        strangers = [one for one in data["servers"] if one["id"] not in mine]
        servers = [one for one in data["servers"] if one["id"] in mine]
        return {"totalCount": data["totalCount"] - len(strangers), "servers": servers}

    def until(server_id: str, status: str) -> None:
        tenant.wait(
            server_id,
            lambda one: one["status"] == status and not one["OS-EXT-STS:task_state"],
        )

    # As in the document: the oldest of eleven is on the second page.
    talk.say(
        "List Servers",
        "/v1/servers/2/10?sortField=createTime&sortOrder=descend&searchValue=abc",
        own=own,
    )
    for name, value in {
        "status": "unusual",
        "uuid": rich,
        "name": "abc-web",
        "ip": "10.99.0.",
    }.items():
        query = urlencode({"sortField": name, "searchValue": value})
        talk.say(
            "List Servers", f"/v1/servers/1/10?{query}", note=f"List Servers by {name}", own=own
        )
    server = f"/v1/servers/{rich}"
    talk.say("Show Server Details", server)

    two = dict(zip(_IDS, many, strict=False))
    talk.say("Stop Server", f"{server}/action")
    talk.say("Stop multiple Server", changed=lambda body: _replaced(body, two))
    until(rich, "SHUTOFF")
    for one in two.values():
        until(one, "SHUTOFF")
    talk.say("Start Server", f"{server}/action")
    talk.say("Start multiple Server", changed=lambda body: _replaced(body, two))
    until(rich, "ACTIVE")
    for one in two.values():
        until(one, "ACTIVE")
    talk.say("Reboot Server", f"{server}/action")
    talk.say("Reboot Multiple Server", changed=lambda body: _replaced(body, two))
    talk.say(
        "Reboot Server", f"/v1/servers/{_IDS[0]}/action", note="Reboot Server that does not exist"
    )
    until(rich, "ACTIVE")
    talk.say("Get noVNC Console URL", f"{server}/action")
    tags = urlencode({"tags": "tag1,tag2,xxx,...,yyy"})
    talk.say("Update Server tags", f"{server}/tags?{tags}")
    talk.say("List Server tags", f"{server}/tags")

    plain = f"/v1/servers/{many[2]}/action"
    talk.say("Create private image", plain, note="Create private image as the document writes it")
    image = talk.say(
        "Create private image",
        plain,
        changed=lambda body: re.sub(r" *//.*", "", body),
        note="Create private image without the comment in its JSON",
    )["image_id"]
    tenant.later("image", f"/images/{image}")
    eventually(lambda: bool(talk.curl("GET", f"/v1/images/{image}")[1]["data"]["tags"]), 60)
    others = []
    for name in ("abc-1", "abc-2"):
        next_second()
        others.append(tenant.make_image(name, tags=["ECS"]))
        tenant.later("image", f"/images/{others[-1]}")
    images = {image, *others}

    def own_images(data: Any) -> Any:
        found = [one for one in data["images"] if one["id"] in images]
        return {"totalCount": len(found), "images": found}

    # The document writes the parameters as an object: in the body or in the query is the same.
    query = urlencode(json.loads(examples()["List images"].request or ""))
    listed = talk.say("List images", own=own_images)
    assert own_images(talk.curl("GET", f"/v1/images?{query}")[1]["data"]) == listed
    talk.say("List all private images", "/v1/images/private?tag=ECS", own=own_images)
    talk.say("Show Image Details", f"/v1/images/{image}")
    talk.say("Update image", f"/v1/images/{image}")
    talk.say("Delete image", f"/v1/images/{image}")
    talk.say("Delete Datch image", note="Delete Datch image as the document writes it")
    three = iter((*others, _IDS[0]))
    talk.say(
        "Delete Datch image",
        changed=lambda body: re.sub(r'(?<="id": ")[^"]*', lambda _: next(three), body),
        note="Delete Datch image of three images",
    )

    key, token = new_order_id(), new_token()
    order = change_configure(rich, tenant.image, order_id=key, token=token)
    talk.say("The order", changed=lambda _: order)
    eventually(lambda: talk.curl("GET", f"/v1/orders/{key}")[1]["data"]["state"] == "done", 120)
    ended = talk.curl("GET", f"/v1/orders/{key}")[1]["data"]["result"]
    assert ended["code"] == 200, ended

    assert talk.found == REASONS.keys()
    page = talk.page().replace(token, "eyJ…").replace(key, STEADY["key"]) + "\n"
    if os.environ.get("ECS_WRITE_DOCS"):
        PAGE.write_text(page, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page, "the page is out of date: make docs"


def _replaced(text: str, names: Mapping[str, str]) -> str:
    for old, new in names.items():
        text = text.replace(old, new)
    return text
