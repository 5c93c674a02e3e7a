"""`make audit` against an advisory database of our own: it succeeds only where every pinned version
was looked up.
"""

import importlib.util
import json
import os
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.support import REPOSITORY
from tests.support.certificates import Authority

pytestmark = pytest.mark.slow

#: The advisory database that pip-audit asks, as its own source names it.
_SPEC = importlib.util.find_spec("pip_audit")
assert _SPEC is not None
assert _SPEC.origin is not None
HOST = re.findall(
    r"https://([\w.]+)/pypi/", (Path(_SPEC.origin).parent / "_service" / "pypi.py").read_text()
)[0]


class Database(BaseHTTPRequestHandler):
    """A proxy that is itself what is asked for: CONNECT, then the database's answers over TLS."""

    protocol_version = "HTTP/1.1"
    tls: ClassVar[ssl.SSLContext]
    #: Projects that it does not know, and projects with an advisory.
    unknown: ClassVar[set[str]]
    vulnerable: ClassVar[set[str]]
    asked: ClassVar[list[str]]

    def do_CONNECT(self) -> None:
        self.send_response(200)
        self.end_headers()
        with self.tls.wrap_socket(self.connection, server_side=True) as inside:
            inner = inside.makefile("rb")
            while (line := inner.readline()) and (path := line.split()[1].decode()):
                while inner.readline().strip():
                    pass
                inside.sendall(self._answer(path))
        self.close_connection = True

    def _answer(self, path: str) -> bytes:
        name = path.split("/")[2]
        self.asked.append(name)
        found: list[dict[str, Any]] = []
        if name in self.vulnerable:
            found = [
                {
                    "id": "PYSEC-2026-1",
                    "details": "bad",
                    "fixed_in": [],
                    "aliases": [],
                    "withdrawn": None,
                }
            ]
        missing = "*" in self.unknown or name in self.unknown
        body = (
            b"{}"
            if missing
            else json.dumps({"info": {}, "releases": {}, "vulnerabilities": found}).encode()
        )
        status = "404 Not Found" if missing else "200 OK"
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Return the environment in which the database's host is that server."""
    authority = Authority(tmp_path)
    pair = authority.issue(HOST, [HOST])
    Database.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    Database.tls.load_cert_chain(pair.certificate, pair.key)
    Database.unknown, Database.vulnerable, Database.asked = set(), set(), []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Database)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {
        "HTTPS_PROXY": f"http://127.0.0.1:{server.server_port}",
        "REQUESTS_CA_BUNDLE": str(authority.certificate),
    }
    server.shutdown()
    server.server_close()


def audit(cache: Path, settings: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    inherited = {
        name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")
    }
    # The environment is there: nothing is to be installed for this.
    command = ["make", "-o", "install", "audit", f"ARGS=--cache-dir {cache} --progress-spinner off"]
    return subprocess.run(
        command,
        cwd=REPOSITORY,
        env=inherited | settings,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def pinned() -> set[str]:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {one.partition("==")[0].lower().replace("_", "-") for one in lines if "==" in one}


def test_an_audit_of_all_that_is_pinned_succeeds(database: dict[str, str], tmp_path: Path) -> None:
    done = audit(tmp_path / "cache", database)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {name.lower().replace("_", "-").replace(".", "-") for name in Database.asked} >= {
        name.replace(".", "-") for name in pinned()
    }


def test_a_known_vulnerability_fails_it(database: dict[str, str], tmp_path: Path) -> None:
    Database.vulnerable = {"kombu"}
    done = audit(tmp_path / "cache", database)
    assert done.returncode != 0
    assert "PYSEC-2026-1" in done.stdout


@pytest.mark.parametrize("unknown", ["*", "kombu"])
def test_a_version_that_the_database_does_not_know_fails_it(
    database: dict[str, str], tmp_path: Path, unknown: str
) -> None:
    Database.unknown = {unknown}
    done = audit(tmp_path / "cache", database)
    assert done.returncode != 0
    assert "could not be audited" in done.stderr


def test_a_database_that_cannot_be_reached_fails_it(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        done = audit(
            tmp_path / "cache", {"HTTPS_PROXY": f"http://127.0.0.1:{taken.getsockname()[1]}"}
        )
    assert done.returncode != 0
