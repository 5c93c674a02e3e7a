"""A console's backend that knows the API document, HTTP and nothing else: it drives a server through
its life and prints what it has seen, a JSON line each.

    python -I -S console_backend.py URL TENANT SERVER < the document's order

It is run without site-packages: it cannot import anything of this repository. That a tenant is named
by a header, where orders are posted and where events are, is all that the document does not say.
"""

import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

#: Seconds for a server or an image to come into a state.
PATIENCE = 180


class Backend:
    """The document's requests, one method each."""

    def __init__(self, url: str, tenant: str) -> None:
        self._url = url
        self._headers = {"X-Tenant-Id": tenant}

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Send a request; the HTTP status and the envelope."""
        headers = dict(self._headers)
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = Request(self._url + path, data, headers, method=method)
        try:
            with urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read())
        except HTTPError as error:
            return error.code, json.loads(error.read())

    def data(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request that succeeds; the answer's data."""
        status, envelope = self.ask(method, path, body)
        assert status < 300, envelope
        assert envelope["code"] in (200, 201), envelope
        return envelope["data"]

    def server(self, server_id: str) -> Any:
        """The server's details."""
        return self.data("GET", f"/v1/servers/{server_id}")["server"]

    def await_server(self, server_id: str, holds: Callable[[Any], bool]) -> Any:
        """The details once something holds of them."""
        return _eventually(lambda: self.server(server_id), holds)

    def follow(self, heard: list[Any]) -> threading.Thread:
        """Hear the tenant's events in a thread, which ends with the program."""
        request = Request(self._url + "/v1/events", headers=self._headers)
        stream = urlopen(request, timeout=60)

        def read() -> None:
            begin = b"data: "
            lines = (line for line in stream if line.startswith(begin))
            heard.extend(json.loads(line.removeprefix(begin)) for line in lines)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        return thread


def _eventually(look: Callable[[], Any], holds: Callable[[Any], bool]) -> Any:
    limit = time.monotonic() + PATIENCE
    while not holds(found := look()):
        assert time.monotonic() < limit, found
        time.sleep(0.5)
    return found


def _tell(**seen: Any) -> None:
    sys.stdout.write(json.dumps(seen, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def main(url: str, tenant: str, server_id: str) -> None:
    """List, stop, start, reboot, tag, image, order; and the events of all that."""
    backend = Backend(url, tenant)
    heard: list[Any] = []
    backend.follow(heard)
    action = f"/v1/servers/{server_id}/action"

    query = urlencode({"searchField": "uuid", "searchValue": server_id, "sortField": "createTime"})
    page = backend.data("GET", f"/v1/servers/1/10?{query}")
    _tell(
        step="list", totalCount=page["totalCount"], names=[one["name"] for one in page["servers"]]
    )

    backend.data("POST", action, {"os-stop": {}})
    stopped = backend.await_server(server_id, lambda one: one["status"].lower() == "shutoff")
    _tell(step="stop", translation=stopped["translation"])
    status, refused = backend.ask("POST", action, {"os-stop": {}})
    _tell(step="stop again", http=status, code=refused["code"], message=refused["message"])
    backend.data("POST", "/v1/servers/action", {"os-start": {"servers": [{"id": server_id}]}})
    backend.await_server(server_id, _is_running)
    backend.data("POST", action, {"reboot": {"type": "SOFT"}})
    rebooted = backend.await_server(server_id, _is_running)
    _tell(step="reboot", translation=rebooted["translation"])
    console = backend.data("POST", action, {"os-getVNCConsole": {"type": "novnc"}})["console"]
    _tell(step="console", type=console["type"])

    tags = f"/v1/servers/{server_id}/tags"
    backend.data("POST", f"{tags}?{urlencode({'tags': 'web,生产'})}")
    _tell(step="tags", tags=sorted(backend.data("GET", tags)["tags"]))

    image = {"name": "云服务器名称", "description": "填写描述信息"}
    status, made = backend.ask("POST", action, {"createImage": image})
    assert (made["code"], made["message"]) == (201, "Created"), made
    image_id = made["data"]["image_id"]
    image_url = f"/v1/images/{image_id}"
    _eventually(lambda: [one for one in heard if one["id"] == image_id and one["final"]], bool)
    patch = [{"op": "add", "path": "/description", "value": "填写修改描述的值"}]
    backend.data("PATCH", image_url, patch)
    shown = backend.data("GET", image_url)
    assert shown["status"] == "active", shown
    _tell(step="image", http=status, name=shown["name"], description=shown["description"])
    backend.data("DELETE", image_url)
    _tell(step="image deleted", http=backend.ask("GET", image_url)[0])

    order = sys.stdin.buffer.read()
    items = json.loads(order)["productList"][0]["itemList"]
    flavor = next(one["value"] for one in items if one["code"].startswith("std_"))
    size = next(int(one["value"]) for one in items if one["code"] == "sys_EBS_SATA")
    status, accepted = backend.ask("POST", "/v1/orders", order)
    _tell(step="order", http=status, code=accepted["code"])
    changed = backend.await_server(
        server_id,
        lambda one: (
            (one["flavor"]["original_name"], one["root_volume"]["size"]) == (flavor, size)
            and _is_running(one)
        ),
    )
    _tell(step="ordered", flavor=changed["flavor"]["original_name"], ram=changed["flavor"]["ram"])

    order_id = json.loads(order)["orderId"]
    _eventually(lambda: [one for one in heard if one["id"] == order_id and one["final"]], bool)
    finals = [[one["resource"], one["action"], one["status"]] for one in heard if one["final"]]
    _tell(
        step="events",
        finals=finals,
        progress=[one["progress"] for one in heard if one["id"] == order_id],
    )


def _is_running(server: Any) -> bool:
    return server["status"].lower() == "active" and not server["task_state"]


if __name__ == "__main__":
    main(*sys.argv[1:])
