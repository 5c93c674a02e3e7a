"""Tests who counts as somebody at the gateway's own machine, where publishers are trusted."""

import pytest
from starlette.requests import Request

from gateway.console.operators import LocalGuard, NotAdmitted


def request_from(peer: str, **headers: str) -> Request:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": named, "client": (peer, 50000)})


@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        ("127.0.0.1", {"host": "127.0.0.1:8081"}),
        ("::1", {"host": "[::1]:8081"}),
        ("::ffff:127.0.0.1", {"host": "localhost:8081"}),
        ("127.0.0.2", {"host": "127.0.0.2:8081"}),  # ECS_GATEWAY_LISTEN may be any loopback address
    ],
)
def test_the_machine_itself_is_let_in(peer: str, headers: dict[str, str]) -> None:
    LocalGuard(8081, "ecs", lambda _: None).check_local(request_from(peer, **headers))


@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        ("10.0.0.1", {"host": "127.0.0.1:8081"}),
        ("127.0.0.1", {"host": "evil.example:8081"}),
        ("127.0.0.1", {"host": "127.0.0.1.evil.example:8081"}),
        ("127.0.0.1", {"host": "10.0.0.1:8081"}),
        ("127.0.0.1", {}),
        ("127.0.0.1", {"host": "127.0.0.1:8081", "x_forwarded_for": "10.0.0.1"}),
        ("127.0.0.1", {"host": "127.0.0.1:8081", "x_forwarded_host": "ecs.example"}),
        ("127.0.0.1", {"host": "127.0.0.1:8081", "x_forwarded_proto": "https"}),
        ("127.0.0.1", {"host": "127.0.0.1:8081", "via": "1.1 proxy"}),
    ],
)
def test_others_and_proxies_are_not(peer: str, headers: dict[str, str]) -> None:
    guard = LocalGuard(8081, "ecs", lambda _: None)
    with pytest.raises(NotAdmitted):
        guard.check_local(request_from(peer, **headers))
