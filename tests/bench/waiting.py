"""Orders that wait in one process for what takes long: their memory, and the calls that they cost."""

import json
import time
import urllib.request
import uuid
from collections.abc import Sequence

import psutil

from sandbox.processes import Server
from tests.bench.measure import Figures, preload
from tests.bench.site import Bench, stub_nova

#: Seconds until calls are counted, and for which: several polls, and a look at what was silent.
WINDOW = 30.0


def waiting(bench: Bench) -> Figures:
    """Have 100, 1,000 and 10,000 orders of one project wait, and count the calls a second.

    `kb_an_order` is the memory that each takes (kB), the first use of the cloud's client included.
    """
    return _waiting(bench, [100, 1000, 10000] if bench.scale == 1 else [50, 500], projects=1)


def waiting_projects(bench: Bench) -> Figures:
    """Have 100 and 1,000 orders wait, each two of them in a project of their own."""
    return _waiting(bench, [100, 1000] if bench.scale == 1 else [20, 100], projects=500)


def _waiting(bench: Bench, numbers: Sequence[int], projects: int) -> Figures:
    found: Figures = {}
    window = max(WINDOW * bench.scale, 5.0)
    url = bench.vhost()
    with stub_nova(bench.folder) as (nova_url, clouds_yaml):
        settings = bench.settings(url) | {
            "ECS_PREFETCH": str(numbers[-1]),
            # A tenant alone has eight ninths of them.
            "ECS_CONCURRENCY": str(numbers[-1] * 2),
            "OS_CLIENT_CONFIG_FILE": str(clouds_yaml),
        }
        with bench.worker("workers run", settings) as (server, _):
            idle = _memory(server)
            sent = 0
            for number in numbers:
                begun = time.monotonic()
                orders = [_order(one, projects) for one in range(sent, number)]
                preload(url, "ecs.orders", "order.changeConfigure", orders)
                _until_resizing(nova_url, number, server)
                found[f"seconds_to_{number}"] = time.monotonic() - begun
                time.sleep(window)
                before = _counts(nova_url)["calls"]
                time.sleep(window)
                found[f"calls_{number}"] = (_counts(nova_url)["calls"] - before) / window
                found[f"memory_{number}"] = _memory(server)
                sent = number
    first, last = numbers[0], numbers[-1]
    return found | {
        "memory": found[f"memory_{last}"],
        "kb_an_order": (found[f"memory_{last}"] - idle) / last * 1000,
        "calls": found[f"calls_{last}"],
        "calls_of_few": found[f"calls_{first}"],
    }


def _until_resizing(nova_url: str, number: int, server: Server) -> None:
    limit = time.monotonic() + number * 0.2 + 60
    while (resizing := _counts(nova_url)["resizing"]) < number:
        if not server.alive or time.monotonic() > limit:
            log = server.log.read_text()[-2000:]
            raise RuntimeError(f"only {resizing} of {number} orders wait: {log}")
        time.sleep(0.2)


def _counts(nova_url: str) -> dict[str, int]:
    with urllib.request.urlopen(f"{nova_url}/calls") as answer:
        found: dict[str, int] = json.loads(answer.read())
    return found


def _memory(server: Server) -> float:
    return float(psutil.Process(server.pid).memory_info().rss / 1e6)


def _order(number: int, projects: int) -> dict[str, object]:
    items = [
        {"code": "flavor", "name": "flavor", "value": "S1.medium.1"},
        {"code": "CPU", "value": "2"},
        {"code": "memory", "value": "2"},
    ]
    product = {
        "region": "RegionOne",
        "productLineCode": "ECS",
        "instanceCount": "1",
        "instanceId": str(uuid.uuid4()),
        "itemList": items,
    }
    return {
        "orderId": uuid.uuid4().hex,
        "tenant_id": "tenant-a" if projects == 1 else f"tenant-{number % projects}",
        "userId": "f679eb23-5d5f-4c5e-8f0e-2f1d6f1b7c11",
        "consoleOrderFlowId": str(uuid.uuid4()),
        "orderStatus": "paySuccess",
        "orderType": "changeConfigure",
        "orderRoute": "ECS",
        "billType": "hourlySettlement",
        "statusTime": "2026-11-23 10:00:00",
        "setCount": "1",
        "productList": [product],
    }
