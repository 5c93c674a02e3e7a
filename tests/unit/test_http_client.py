"""HTTP on the loop: what was not sent, what may have been carried out, and answers without end."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress

import pytest

from handlers.effects.backoff import Deadline
from handlers.effects.concurrency import ThreadPool
from handlers.openstack import http_client
from handlers.openstack.http_client import Answer, CallLost, CallTimes, HttpClient, Origin
from messages.errors import Ambiguous, Transient

POST = b"POST /servers HTTP/1.1\r\nHost: nova\r\nContent-Length: 2\r\n\r\n{}"
GET = b"GET /servers HTTP/1.1\r\nHost: nova\r\nContent-Length: 2\r\n\r\n{}"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

#: An answer in its parts; None: the connection is closed instead.
Parts = tuple[bytes, ...] | None


class Server:
    """Answers the requests of each connection as it is told, one connection after another; those
    that it is told nothing of with `OK`.
    """

    def __init__(self, connections: tuple[list[Parts], ...], pause: float) -> None:
        self.writers: list[asyncio.StreamWriter] = []
        self.requests = 0
        self._told = list(connections)
        self._pause = pause

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        answers = self._told.pop(0) if self._told else []
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n{}")
                self.requests += 1
                parts = answers.pop(0) if answers else (OK,)
                if parts is None:
                    break
                for part in parts:
                    await asyncio.sleep(self._pause)
                    writer.write(part)
                if answers == [None]:
                    break
        writer.close()

    def say_goodbye(self) -> None:
        """Close the last connection; the client's socket has that at once, its loop has not."""
        self.writers[-1].get_extra_info("socket").shutdown(socket.SHUT_WR)


@asynccontextmanager
async def served(
    *connections: list[Parts], pause: float = 0.0, silence: float = 5.0, total: float = 5.0
) -> AsyncIterator[tuple[Server, HttpClient, Origin]]:
    """A server, with seconds before each part of an answer, and a client of it."""
    server = Server(connections, pause)
    listening = await asyncio.start_server(server, "127.0.0.1")
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        client = HttpClient(ThreadPool(4, "test"), CallTimes(silence, total))
        yield server, client, Origin("127.0.0.1", port, None, None)
        await client.close()


async def lost(call: Awaitable[Answer]) -> tuple[str, bool]:
    """Return how a change ends whose answer does not come."""
    with pytest.raises(CallLost) as caught:
        await call
    error = caught.value.as_error(mutating=True)
    assert isinstance(error, Ambiguous)
    assert not isinstance(caught.value.as_error(mutating=False), Ambiguous)
    return error.reason, error.may_land_late


async def test_calls_share_a_connection_one_after_another() -> None:
    async with served() as (server, client, origin):
        for _ in range(3):
            assert (await client.call(origin, POST)).body == b"{}"
        assert (len(server.writers), server.requests) == (1, 3)


async def test_calls_at_once_have_a_connection_each_up_to_the_places() -> None:
    async with served(pause=0.05) as (server, client, origin):
        answers = await asyncio.gather(*(client.call(origin, POST) for _ in range(12)))
        assert [answer.status for answer in answers] == [200] * 12
        assert len(server.writers) == 4


@pytest.mark.parametrize("is_seen", [True, False], ids=["read by the loop", "not yet read"])
async def test_a_change_is_not_sent_on_a_connection_that_the_server_closed(is_seen: bool) -> None:
    """Nobody could tell whether it was carried out."""
    async with served() as (server, client, origin):
        await client.call(origin, POST)
        (unused,) = client._unused[origin]
        server.say_goodbye()
        while is_seen and unused.is_open:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert (await client.call(origin, POST)).status == 200
        assert (len(server.writers), server.requests) == (2, 2)


async def test_what_meets_the_goodbye_of_a_connection_is_asked_again_unless_it_is_a_change() -> (
    None
):
    closing: list[Parts] = [(OK,), None, (OK,)]
    async with served([*closing], [*closing]) as (server, client, origin):
        await client.call(origin, POST)
        assert (await client.call(origin, GET)).status == 200
        assert (len(server.writers), server.requests) == (2, 3)
        assert await lost(client.call(origin, POST)) == ("no_answer", False)


async def test_a_read_that_a_new_connection_does_not_answer_is_not_asked_again() -> None:
    async with served([None]) as (server, client, origin):
        with pytest.raises(CallLost):
            await client.call(origin, GET)
        assert server.requests == 1


async def test_a_change_has_a_connection_that_was_used_just_before_or_a_new_one() -> None:
    """Servers close what is unused for some seconds."""
    async with served() as (server, client, origin):
        await client.call(origin, POST)
        await asyncio.sleep(1.1)
        await client.call(origin, GET)
        await client.call(origin, POST)
        assert len(server.writers) == 1
        await asyncio.sleep(1.1)
        await client.call(origin, POST)
        assert (len(server.writers), server.requests) == (2, 4)


async def test_a_connection_that_closes_while_the_right_to_send_is_looked_up_is_replaced() -> None:
    async with served() as (server, client, origin):
        await client.call(origin, POST)

        async def guard() -> Deadline:
            server.say_goodbye()
            return Deadline.after(5)

        assert (await client.call(origin, POST, guard)).status == 200
        assert (len(server.writers), server.requests) == (2, 2)


async def test_whoever_may_no_longer_send_does_not() -> None:
    async with served() as (server, client, origin):

        async def guard() -> Deadline:
            return Deadline.after(-1)

        with pytest.raises(Transient) as caught:
            await client.call(origin, POST, guard)
        assert (caught.value.reason, type(caught.value)) == ("not_sent", Transient)
        # The connection was not used, and is.
        assert (await client.call(origin, POST)).status == 200
        assert (len(server.writers), server.requests) == (1, 1)


async def test_nothing_is_sent_where_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    client = HttpClient(ThreadPool(1, "test"), CallTimes(1.0, 1.0))
    for host in ("127.0.0.1", "no.such.host.invalid", "x" * 70):
        with pytest.raises(Transient) as caught:
            await client.call(Origin(host, port, None, None), POST)
        assert (caught.value.reason, type(caught.value)) == ("no_connection", Transient)
    await client.close()


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([None], ("no_answer", False)),
        ([(b"HTTP/1.1 200 OK\r\nContent-Le",), None], ("no_answer", False)),
        ([(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{",), None], ("no_answer", False)),
        (
            [(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",), None],
            ("no_answer", False),
        ),
        ([(b"SSH-2.0-OpenSSH_9.2\r\n",)], ("no_answer", False)),
        ([(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",)], ("no_answer", False)),
        (
            [(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 9\r\n\r\n",)],
            ("bad_answer", False),
        ),
        ([(b"HTTP/1.1 200 OK\r\n" + b"X-Pad: yyyyyy\r\n" * 9000,)], ("bad_answer", False)),
        ([(b"HTTP/1.1 200 OK\r\nX-Pad: " + b"y" * 90000,)], ("bad_answer", False)),
    ],
    ids=["none", "head", "body", "chunk", "no HTTP", "upgrade", "packed", "headers", "header"],
)
async def test_an_answer_that_does_not_come_whole_or_is_not_read(
    answers: list[Parts], expected: tuple[str, bool]
) -> None:
    async with served(answers) as (server, client, origin):
        assert await lost(client.call(origin, POST)) == expected
        assert server.requests == 1  # it was not repeated
        assert not [one for one in client._unused[origin] if one.is_usable(60.0)]
        assert (await client.call(origin, POST)).status == 200


async def test_an_answer_that_is_too_large_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "MAX_ANSWER", 1000)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"
    async with served([(head, b" " * 3000)]) as (_, client, origin):
        assert await lost(client.call(origin, POST)) == ("bad_answer", False)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((b"HTTP/1.1 200 OK\r\n", *[b"X: y\r\n"] * 99), ("no_answer", True)),
        (
            (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", *[b" "] * 99),
            ("no_answer", False),
        ),
    ],
    ids=["head", "body"],
)
async def test_an_answer_that_drips_ends_at_the_limit(
    parts: Parts, expected: tuple[str, bool]
) -> None:
    async with served([parts], pause=0.05, total=0.4) as (_, client, origin):
        assert await lost(client.call(origin, POST)) == expected


async def test_silence_ends_a_call_that_may_still_be_carried_out() -> None:
    async with served(pause=2.0, silence=0.2) as (_, client, origin):
        assert await lost(client.call(origin, POST)) == ("no_answer", True)


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n{}", b"{}"),
        (b"HTTP/1.0 200 OK\r\n\r\n{}", b"{}"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"{}"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", b"{}"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", b""),
        # What follows belongs to nobody.
        (OK + b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n[]", b"{}"),
        (OK + b"rubbish", b"{}"),
    ],
)
async def test_the_forms_that_an_answer_has(answer: bytes, body: bytes) -> None:
    for parts in ((answer,), tuple(answer[index : index + 1] for index in range(len(answer)))):
        async with served([parts, None]) as (_, client, origin):
            found = await client.call(origin, POST)
            assert (found.status // 100, bytes(found.body)) == (2, body)
            assert (await client.call(origin, POST)).body == b"{}"


async def test_who_is_cancelled_leaves_a_change_under_way_and_the_end_waits_for_it() -> None:
    async with served(pause=0.3) as (server, client, origin):
        call = asyncio.create_task(client.call(origin, POST))
        while not server.requests:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        closing = asyncio.create_task(client.close())
        await asyncio.wait([closing], timeout=0.1)
        assert not closing.done()
        with pytest.raises(Transient, match="no call is begun any more"):
            await client.call(origin, POST)
        await asyncio.wait_for(closing, 5)
        assert server.requests == 1


async def test_who_is_cancelled_before_the_request_is_written_frees_the_place() -> None:
    async with served() as (_, client, origin):

        async def guard() -> Deadline:
            await asyncio.sleep(60)
            return Deadline.after(1)

        calls = [asyncio.create_task(client.call(origin, POST, guard)) for _ in range(9)]
        await asyncio.sleep(0.1)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        assert (await asyncio.wait_for(client.call(origin, POST), 5)).status == 200
