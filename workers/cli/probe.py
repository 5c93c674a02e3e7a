"""`ecs-worker probe`: asks the worker or the gateway of this machine over HTTP how it is.

Docker and Kubernetes run it every few seconds in each container. So it imports the standard library
alone (and python-dotenv where there is a `.env`), and `run_fast` answers before the command line's
libraries are imported.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from messages.texts import terminal_safe
from workers.cli.exits import CommandFailed, Exit

#: Seconds for the whole answer, from the connection on.
DEFAULT_TIMEOUT = 2.0
#: Bytes of an answer that are read.
_LONGEST = 65536
_PATHS = {"live": "/livez", "ready": "/readyz"}
#: What listens on all addresses is asked on the loopback's.
_LOOPBACKS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Found(NamedTuple):
    """The answer to a probe. `problems` are the lines of `/readyz`, without URLs."""

    probe: str
    address: str
    ok: bool
    problems: list[str]

    def line(self) -> str:
        """Return it as one line."""
        if self.ok:
            return f"{self.probe}: ok"
        why = "; ".join(self.problems) or "no reason was given"
        return terminal_safe(f"{self.probe}: no: {why}")


def run_fast(words: list[str]) -> int | None:
    """Run `probe` with these words and return the exit code; None where only the whole command line
    can understand them: help, other options, mistakes.
    """
    asked = [word for word in words if word != "--gateway"]
    if len(words) - len(asked) > 1 or len(asked) > 1 or not set(asked) <= _PATHS.keys():
        return None
    try:
        found = probe(asked[0] if asked else "live", gateway=len(words) > len(asked))
    except CommandFailed as error:
        print(error, file=sys.stderr)
        return int(error.code)
    print(found.line(), flush=True)
    return int(Exit.OK if found.ok else Exit.CHECK_FAILED)


def probe(what: str, *, gateway: bool, timeout: float = DEFAULT_TIMEOUT) -> Found:
    """Ask for `live` or `ready`, for at most `timeout` seconds. Raises `CommandFailed`: 3 where
    there is no port to ask, 4 where no answer comes, 2 for another word.
    """
    if what not in _PATHS:
        raise CommandFailed(Exit.USAGE, f"a probe is live or ready, not {what}")
    host, port = _gateway_address() if gateway else _worker_address()
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        status, body = _get(host, port, _PATHS[what], timeout)
    except TimeoutError:
        text = (
            f"{shown} gives no answer within {timeout:g} s: it hangs, or its machine is overloaded"
        )
        raise CommandFailed(Exit.UNREACHABLE, text) from None
    except (OSError, ValueError) as error:
        kind, names = (
            ("gateway", "ECS_GATEWAY_LISTEN")
            if gateway
            else ("worker", "ECS_HTTP_HOST and ECS_HTTP_PORT")
        )
        why = getattr(error, "strerror", None) or str(error)
        text = f"no {kind} answers at {shown} ({why}); it is where {names} say"
        raise CommandFailed(Exit.UNREACHABLE, text) from None
    return Found(what, shown, status == 200, _problems(body))


def _get(host: str, port: int, path: str, timeout: float) -> tuple[int, bytes]:
    """Return status and body of a GET. Raises `OSError`, or `ValueError` where it is no HTTP."""
    # Not http.client, whose import takes longer than the rest of a probe.
    until = time.monotonic() + timeout
    answer = b""
    with socket.create_connection((host, port), timeout) as connection:
        connection.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        while len(answer) < _LONGEST:
            connection.settimeout(max(0.001, until - time.monotonic()))
            part = connection.recv(_LONGEST)
            if not part:
                break
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if len(words) < 3 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise ValueError("what listens there speaks no HTTP")
    return int(words[1]), body


def _problems(body: bytes) -> list[str]:
    try:
        found = json.loads(body)["problems"]
    except (ValueError, KeyError, TypeError):
        return []
    return [str(one) for one in found] if isinstance(found, list) else []


def _worker_address() -> tuple[str, int]:
    given = _given()
    host = given.get("ecs_http_host", "127.0.0.1")
    port = _port("ECS_HTTP_PORT", given.get("ecs_http_port", "8080"))
    if port == 0:
        text = "ECS_HTTP_PORT is 0, so the worker has no port that can be asked; choose one"
        raise CommandFailed(Exit.CONFIGURATION, text)
    return _LOOPBACKS.get(host, host), port


def _gateway_address() -> tuple[str, int]:
    host, _, port = _given().get("ecs_gateway_listen", "127.0.0.1:8081").rpartition(":")
    host = host.strip("[]")
    return _LOOPBACKS.get(host, host), _port("ECS_GATEWAY_LISTEN", port)


def _port(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535):
        raise CommandFailed(Exit.CONFIGURATION, f"{name}: there is no port {text!r}")
    return int(text)


def _given() -> Mapping[str, str]:
    """Return the variables by their names in small letters, as `workers.settings` reads them: the
    environment wins over `.env`, an empty one counts as unset and hides the one in `.env`.
    """
    given: dict[str, str | None] = dict(os.environ)
    if Path(".env").is_file():
        from dotenv import dotenv_values  # noqa: PLC0415 - only where there is such a file

        given = {**_lower(dotenv_values(".env")), **_lower(given)}
    return {name: value.strip() for name, value in _lower(given).items() if value and value.strip()}


def _lower(given: Mapping[str, str | None]) -> dict[str, str | None]:
    return {name.lower(): value for name, value in given.items()}
