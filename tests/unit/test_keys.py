"""The key set: what of it is used, when it is fetched, what becomes of it when it cannot be."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey, RSAKey

from messages.errors import Transient
from messages.wire import MAX_BODY
from sandbox.issuer import Issuer, KeySetServer
from workers.identity.jwks import MAX_KEYS, usable_keys
from workers.identity.jwks_source import FileSource, KeySetError, UrlSource, key_source
from workers.identity.key_set import FetchTimes, KeySet


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def server(issuer: Issuer) -> Iterator[KeySetServer]:
    with KeySetServer(issuer) as found:
        yield found


def described(**parameters: Any) -> dict[str, Any]:
    key = RSAKey.generate_key(2048).as_dict(private=False)
    return {
        name: value
        for name, value in ({**key, "kid": "k"} | parameters).items()
        if value != "absent"
    }


def document(*keys: Any) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


# What of a set is used.


def test_the_signing_keys_of_a_set_are_used_and_the_rest_is_passed_over() -> None:
    curve = ECKey.generate_key("P-256").as_dict(private=False)
    listed = [
        described(kid="rsa"),
        described(kid="one", use="sig", alg="RS512", key_ops=["verify"]),
        {**curve, "kid": "ec"},
        described(kid="enc", use="enc", alg="RSA-OAEP"),
        described(kid="signs", key_ops=["sign"]),
        described(kid="other alg", alg="RS1"),
        described(kid="no alg", alg=None),
        described(kid="an hmac's", alg="HS256"),
        {**OctKey.generate_key(256).as_dict(private=True), "kid": "oct"},
        {**ECKey.generate_key("P-384").as_dict(private=False), "kid": "p384"},
        {**RSAKey.generate_key(1024).as_dict(private=False), "kid": "short"},
        {**curve, "kid": "no point", "x": curve["y"]},
        described(kid="no n", n="absent"),
        described(kid="odd n", n=["x"]),
        described(kid="bad n", n="%%%"),
        described(kid=7),
        described(kid=""),
        "text",
        None,
        [],
        {},
    ]
    found = {key.kid: sorted(key.algorithms) for key in usable_keys(document(*listed))}
    assert found == {"rsa": ["PS256", "RS256", "RS384", "RS512"], "one": ["RS512"], "ec": ["ES256"]}


def test_a_private_part_that_somebody_published_is_left_where_it_is() -> None:
    (key,) = usable_keys(document({**RSAKey.generate_key(2048).as_dict(private=True), "kid": "k"}))
    assert not key.key.is_private
    assert set(key.public) == {"kty", "n", "e"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"keys": null}',
        b'{"keys": {}}',
        b'{"keys": []}',
        b'{"keys": [], "keys": []}',
        b"<html>not found</html>",
        b"\xff\xfe",
        b'{"keys": [' + b",".join([b"{}"] * (MAX_KEYS + 1)) + b"]}",
        document(described(use="enc")),
        b'{"keys": ' + b"[" * 100_000,
        b'{"keys": "' + b"x" * MAX_BODY + b'"}',
    ],
)
def test_what_is_no_key_set_is_told_in_one_line(body: bytes) -> None:
    with pytest.raises(KeySetError) as caught:
        usable_keys(body)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


# Where it is read from.


def test_a_source_is_a_url_or_a_file() -> None:
    assert isinstance(key_source("https://iam/certs"), UrlSource)
    assert isinstance(key_source("https.json"), FileSource)


def test_a_file_is_read_anew_each_time(issuer: Issuer, tmp_path: Path) -> None:
    source = FileSource(str(tmp_path / "keys.json"))
    with pytest.raises(KeySetError, match="No such file"):
        source.read()
    issuer.write(tmp_path / "keys.json")
    assert len(usable_keys(source.read())) == 1
    (tmp_path / "keys.json").write_bytes(b" " * (MAX_BODY + 1))
    with pytest.raises(KeySetError, match="larger"):
        source.read()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((404, {}, b"gone"), "HTTP 404"),
        ((500, {}, b""), "HTTP 500"),
        ((204, {}, b""), "HTTP 204"),
        ((200, {}, b"x" * (MAX_BODY + 1)), "larger"),
        ((302, {"Location": "/elsewhere"}, b""), "HTTP 302"),
        ((301, {"Location": "http://169.254.169.254/latest"}, b""), "HTTP 301"),
    ],
)
def test_an_answer_that_is_no_key_set_is_told(
    server: KeySetServer, answer: tuple[int, dict[str, str], bytes], why: str
) -> None:
    server.instead = answer
    with pytest.raises(KeySetError, match=why):
        UrlSource(server.url).read()
    assert server.asked == ["/certs"], "no redirect is followed"


def test_a_server_that_is_not_there_is_told(server: KeySetServer) -> None:
    server.stop()
    with pytest.raises(KeySetError, match="refused"):
        UrlSource(server.url).read()


def test_a_server_that_drips_is_hung_up_on() -> None:
    """Each byte comes in time, the whole never would."""
    listening = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        taken, _ = listening.accept()
        with taken:
            taken.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            try:
                for _ in range(300):
                    taken.sendall(b" ")
                    time.sleep(0.1)
            except OSError:
                return

    threading.Thread(target=drip, daemon=True).start()
    started = time.monotonic()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
    with listening, pytest.raises(KeySetError):
        usable_keys(UrlSource(url, limit=1.0).read())
    assert time.monotonic() - started < 10


# When it is fetched.


async def test_it_is_fetched_when_it_is_first_needed_and_once_for_all(
    server: KeySetServer, issuer: Issuer
) -> None:
    server.delay = 0.2
    keys = KeySet(UrlSource(server.url))
    assert keys.is_empty
    found = await asyncio.gather(*(keys.find(issuer.kid, "RS256") for _ in range(50)))
    assert all(len(one) == 1 for one in found)
    assert server.asked == ["/certs"]


async def test_a_key_that_is_new_is_fetched_and_what_is_made_up_is_not(
    server: KeySetServer, issuer: Issuer
) -> None:
    keys = KeySet(UrlSource(server.url), FetchTimes(retry=6.0))
    await keys.fetch()
    old, new = issuer.kid, issuer.rotate()
    assert len(await keys.find(new, "RS256")) == 1
    assert len(await keys.find(old, "RS256")) == 1
    assert keys.generation == 2
    for number in range(1000):
        assert await keys.find(f"made-up-{number}", "RS256") == ()
    assert len(server.asked) == 2
    await asyncio.sleep(keys.next_look())
    await asyncio.gather(*(keys.find(f"made-up-{number}", "RS256") for number in range(1000)))
    assert len(server.asked) == 3


async def test_the_same_set_again_is_no_change(server: KeySetServer, issuer: Issuer) -> None:
    keys = KeySet(UrlSource(server.url))
    await keys.fetch()
    (before,) = await keys.find(issuer.kid, "RS256")
    await keys.fetch()
    (after,) = await keys.find(issuer.kid, "RS256")
    assert (keys.generation, before is after, len(server.asked)) == (1, True, 2)


async def test_a_set_that_was_never_had_is_no_proof_against_anybody(
    server: KeySetServer, issuer: Issuer
) -> None:
    server.instead = (503, {}, b"")
    keys = KeySet(UrlSource(server.url), FetchTimes(first=0.3))
    began = time.monotonic()
    for _ in range(100):
        with pytest.raises(Transient, match="HTTP 503") as caught:
            await keys.find(issuer.kid, "RS256")
        assert caught.value.reason == "keys"
    assert keys.is_empty
    assert keys.trouble is not None
    most = 1 + (time.monotonic() - began) / 0.3
    assert len(server.asked) <= most, "it is not asked for each message"
    server.instead = None
    await asyncio.sleep(0.3)
    assert await keys.find(issuer.kid, "RS256")
    assert keys.trouble is None


@pytest.mark.parametrize("how", ["gone", "nonsense", "empty"])
async def test_old_keys_are_kept_while_the_set_cannot_be_had(
    server: KeySetServer, issuer: Issuer, how: str
) -> None:
    keys = KeySet(UrlSource(server.url), FetchTimes(retry=0.1))
    await keys.fetch()
    old = issuer.kid
    if how == "gone":
        server.stop()
    server.instead = (200, {}, b"<html>" if how == "nonsense" else b'{"keys": []}')
    await asyncio.sleep(0.1)
    with pytest.raises(Transient):
        await keys.find("new", "RS256")
    assert len(await keys.find(old, "RS256")) == 1
    assert (keys.generation, keys.is_empty) == (1, False)
    if how == "gone":
        server.start()
    server.instead = None
    await asyncio.sleep(0.1)
    assert await keys.find("new", "RS256") == (), "now it is known that there is none"


async def test_a_key_that_was_withdrawn_goes_though_none_is_missing_and_nobody_asks(
    server: KeySetServer, issuer: Issuer
) -> None:
    keys = KeySet(UrlSource(server.url), FetchTimes(renew=0.1))
    watching = asyncio.create_task(keys.watch())
    await keys.fetch()
    old = issuer.kid
    issuer.rotate(forget=True)
    limit = time.monotonic() + 10
    while keys.generation == 1:
        assert time.monotonic() < limit
        await asyncio.sleep(0.02)
    assert await keys.find(old, "RS256") == ()
    watching.cancel()


async def test_a_set_that_was_not_asked_for_long_is_asked_before_a_key_counts(
    server: KeySetServer, issuer: Issuer
) -> None:
    """A process that stood still has renewed nothing meanwhile."""
    keys = KeySet(UrlSource(server.url), FetchTimes(fresh=0.1, retry=0.0))
    await keys.fetch()
    old = issuer.kid
    issuer.rotate(forget=True)
    await asyncio.sleep(0.1)
    await keys.renew_when_old()
    assert await keys.find(old, "RS256") == ()


async def test_a_set_that_cannot_be_had_is_tried_again_and_keeps_nobody_waiting(
    server: KeySetServer, issuer: Issuer
) -> None:
    keys = KeySet(UrlSource(server.url), FetchTimes(renew=0.1, retry=0.2))
    watching = asyncio.create_task(keys.watch())
    await keys.fetch()
    server.delay = 3.0
    await asyncio.sleep(0.3)
    started = time.monotonic()
    await keys.renew_when_old()
    assert await keys.find(issuer.kid, "RS256")
    assert time.monotonic() - started < 1.0
    watching.cancel()


async def test_a_server_that_says_nothing_holds_nobody_up_for_long(server: KeySetServer) -> None:
    server.delay = 5
    keys = KeySet(UrlSource(server.url, wait=0.3))
    with pytest.raises(Transient, match="timed out"):
        await asyncio.wait_for(keys.find("k", "RS256"), 4)
