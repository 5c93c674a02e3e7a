"""The broker's URL is read in one way, by whichever library."""

import pytest
from kombu import Connection

from workers.amqp.connection import parameters


@pytest.mark.parametrize(
    "tail", ["", "/", "//", "/%2F", "/shop", "/a%2Fb", "//?heartbeat=7", "/%2F?heartbeat=7"]
)
def test_the_virtual_host_is_what_kombu_reads(tail: str) -> None:
    url = f"amqp://u:p%40ss@127.0.0.1:5672{tail}"
    found, known = parameters(url, "test"), Connection(url)
    assert found.virtual_host == (known.virtual_host or "/")
    assert found.credentials.password == known.password == "p@ss"
    assert found.heartbeat == (7 if "heartbeat" in tail else 15)
