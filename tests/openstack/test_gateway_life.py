"""An HTTP client that knows the API document alone drives a server through its life."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.documents import change_configure
from sandbox.worker import WorkerProcess
from tests.support import REPOSITORY
from tests.support.http import gateways
from tests.support.tenant import Tenant
from tests.support.workshop import Workshop

CLIENT = REPOSITORY / "tests" / "support" / "console_backend.py"


@pytest.fixture
def gateway(shop: Workshop, worker: WorkerProcess) -> Iterator[str]:
    """The URL of a gateway before the worker."""
    assert worker.alive
    with gateways(shop) as start:
        yield start().url


def test_a_client_of_the_document_drives_a_server_through_its_life(
    gateway: str, tenant: Tenant
) -> None:
    server_id = tenant.make_server(name="life")
    command = [sys.executable, "-I", "-S", str(CLIENT), gateway, "tenant-a", server_id]
    order = change_configure(server_id, tenant.image)
    done = subprocess.run(
        command, input=order, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *seen, events = [json.loads(line) for line in done.stdout.splitlines()]
    state = "存在未知状态的云服务器，请重新选择云服务器"
    assert seen == [
        {"step": "list", "totalCount": 1, "names": ["life"]},
        {"step": "stop", "translation": "已关机"},
        {"step": "stop again", "http": 400, "code": "101.001012", "message": state},
        {"step": "reboot", "translation": "运行中"},
        {"step": "console", "type": "novnc"},
        {"step": "tags", "tags": ["web", "生产"]},
        {"step": "image", "http": 200, "name": "云服务器名称", "description": "填写修改描述的值"},
        {"step": "image deleted", "http": 400},
        {"step": "order", "http": 202, "code": 200},
        {"step": "ordered", "flavor": "S1.medium.2", "ram": 4096},
    ]  # fmt: skip

    finals: list[list[Any]] = events["finals"]
    assert finals == [
        ["server", "os-stop", "SHUTOFF"],
        ["server", "os-start", "ACTIVE"],
        ["server", "reboot", "ACTIVE"],
        ["image", "createImage", "active"],
        ["image", None, "deleted"],
        ["server", None, "ACTIVE"],
        ["order", None, "succeeded"],
    ]
    assert events["progress"] == sorted(events["progress"])
    assert events["progress"][-1] == 100

    # What the cloud says.
    assert tenant.actions(server_id)[:4] == ["create", "stop", "start", "reboot"]
    assert tenant.volumes(server_id)[0]["size"] == 60
