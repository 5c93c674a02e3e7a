"""Tests what the gateway answers to whatever an HTTP client may send: never an unforeseen error,
never what `/openapi.json` does not say.
"""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest
import requests

from sandbox.broker import PrivateBroker
from sandbox.documents import change_configure
from sandbox.gateway import GatewayProcess
from sandbox.openstack import SimulatedOpenStack
from tests.support import REPOSITORY
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology

CHECKS = (
    "foreseen",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)


@pytest.fixture(scope="module")
def shop(broker: PrivateBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """A cloud of its own: its servers and images are deleted, renamed and stopped at random."""
    folder = tmp_path_factory.mktemp("schema")
    url = broker.add_vhost(folder.name)
    declare(url, topology())
    with SimulatedOpenStack(pace=0.02) as cloud, Workshop(url, cloud, folder) as workshop:
        workshop.worker()
        yield workshop


@pytest.fixture(scope="module")
def gateway(shop: Workshop) -> Iterator[GatewayProcess]:
    gateway = GatewayProcess(shop.settings, shop.folder).start()
    yield gateway
    gateway.stop()


@pytest.mark.slow
def test_schemathesis_finds_no_answer_that_the_document_does_not_have(
    shop: Workshop, gateway: GatewayProcess
) -> None:
    tenant = shop.tenant()
    # Ids of its own are never found. Orders have no examples of their edges: each has some
    # hundred fields, which `tests/support/fuzz.py` sends as messages.
    (shop.folder / "schemathesis.toml").write_text(
        f"""
        [parameters]
        "path.server_id" = "{tenant.make_server(disk=None)}"
        "path.image_id" = "{tenant.image}"
        [[operations]]
        include-path-regex = "^/v1/orders"
        phases.coverage.enabled = false
        """,
        encoding="utf-8",
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "schemathesis.cli",
            *("--config-file", str(shop.folder / "schemathesis.toml")),
            *("run", f"{gateway.url}/openapi.json", "--exclude-path", "/v1/events"),
            *("--seed", "1", "--generation-deterministic", "--max-examples", "8"),
            *("--phases", "examples,coverage,fuzzing", "--checks", ",".join(CHECKS)),
            *("--header", "X-Tenant-Id: tenant-a", "--request-timeout", "40", "--no-color"),
        ],
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(REPOSITORY),
            "HOME": str(shop.folder),
            "SCHEMATHESIS_HOOKS": "tests.support.openapi_checks",
        },
        cwd=shop.folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-8000:]}\n{done.stderr[-2000:]}"
    assert "Selected: 19/20" in done.stdout
    (generated,) = re.findall(r"(\d+) generated", done.stdout)
    answers = Counter(re.findall(r'"status":(\d+),.*"gateway.answered"', gateway.log.read_text()))
    print(f"{generated} requests, answers by status: {dict(answers)}")
    assert int(generated) > 500
    assert min(answers["200"], answers["400"]) > 100
    assert "gateway.unforeseen" not in gateway.log.read_text()


@pytest.mark.parametrize("size", [30_000, 33_000, 64_000, 70_000, 400_000, 1_048_576])
def test_a_large_body_is_answered_however_it_arrives(gateway: GatewayProcess, size: int) -> None:
    order = json.loads(change_configure("616fb98f-46ca-475e-917e-2563e5a8cd19", "x"))
    order["filler"] = []
    for _ in range(2):
        missing = size - len(json.dumps(order))
        order["filler"] = ["x" * 1000] * (missing // 1004)
    body = json.dumps(order).ljust(size).encode()
    with requests.Session() as session:
        session.headers["X-Tenant-Id"] = "tenant-a"
        for _ in range(2):
            url = f"{gateway.url}/v1/orders/plan"
            # In one piece, and in chunks.
            for data in (body, iter((body[: size // 2], body[size // 2 :]))):
                answer = session.post(url, data=data, timeout=30)
                assert (answer.status_code, answer.json()["code"]) == (200, 200), answer.text
        answer = session.post(url, data=body.ljust(1_048_577), timeout=30)
        assert (answer.status_code, answer.json()["code"]) == (413, "101.001002")
