"""A parked message read, chosen, and made what it is when it is put in again."""

import asyncio
import json
import time
from dataclasses import replace
from typing import Any

import pytest
import typer

from messages.codes import Code
from messages.errors import Refused
from sandbox.documents import REGION
from tests.envelopes import envelope
from tests.names import NAMES
from workers.amqp.envelope import Envelope
from workers.amqp.headers import RESUME_TOKEN_HEADER
from workers.amqp.publication import Publication, Published
from workers.amqp.topology import queue_of_command
from workers.cli.output import plain
from workers.cli.times import instant
from workers.dead_letters.dead_letter import (
    DeadLetter,
    dead_letter_of,
    envelope_again,
    identity_of,
    publication_again,
    publication_renewed,
    times_returned,
)
from workers.dead_letters.replay import Pace
from workers.dead_letters.selection import Found, Wanted, grouped, row_text
from workers.pipeline import parsing
from workers.pipeline.replies import Replies

COMMAND = {
    "operation": "server.action",
    "tenant_id": "tenant-a",
    "server_id": "616fb98f-46ca-475e-917e-2563e5a8cd19",
    "body": {"os-start": None},
    "token": "***",
}


class Press:
    """Keeps what the outbox publishes."""

    def __init__(self) -> None:
        self.published: list[Publication] = []

    def publish(self, publication: Publication) -> "asyncio.Future[Published]":
        self.published.append(publication)
        future: asyncio.Future[Published] = asyncio.get_running_loop().create_future()
        future.set_result(Published.CONFIRMED)
        return future


async def parked(message: Envelope, refused: Refused, attempts: int = 0) -> Envelope:
    """As it lies in `ecs.dead` once the worker's outbox has parked it."""
    press = Press()
    await Replies(press, NAMES, on_returned=lambda: None).park(message, refused, attempts)  # type: ignore[arg-type]
    (one,) = press.published
    return replace(
        message,
        queue="ecs.dead",
        exchange=one.exchange,
        routing_key=one.routing_key,
        body=one.body,
        headers=dict(one.headers or {}),
    )


INTERNAL = Refused(Code.FAILED, reason="internal", detail="KeyError")


async def test_a_row_tells_what_the_contract_says() -> None:
    lies = await parked(envelope(COMMAND, headers={"x-ecs-attempts": 2}), INTERNAL, attempts=2)
    row = dead_letter_of(lies).row()
    failed_at = row.pop("failed_at")
    assert row == {
        "id": "m-1",
        "key": "m-1",
        "operation": "server.action",
        "tenant": "tenant-a",
        "code": "101.001040",
        "error": "操作失败; internal; KeyError",
        "origin": "ecs.servers",
        "attempts": 2,
    }
    assert time.time() - dead_letter_of(lies).failed < 5
    assert failed_at.endswith("Z")


async def test_it_comes_back_to_its_queue_as_it_came_and_only_there() -> None:
    first = envelope(
        COMMAND,
        headers={"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01", "x-ecs-deadline": "99"},
        reply_to="mine",
        correlation_id="c",
        timestamp=1000,
    )
    lies = await parked(first, INTERNAL)
    again = publication_again(lies, "word", "batch-1")
    assert (again.exchange, again.routing_key, again.mandatory) == ("", "ecs.servers", True)
    assert (again.body, again.reply_to, again.correlation_id, again.timestamp) == (
        lies.body,
        "mine",
        "c",
        1000,
    )
    headers = dict(again.headers or {})
    assert headers.pop(RESUME_TOKEN_HEADER) == "word"
    assert headers.pop("x-ecs-replay") == "batch-1"
    assert headers.pop("x-ecs-routing-key") == "ecs.commands server.action"
    assert headers == {"traceparent": first.headers["traceparent"], "x-ecs-deadline": "99"}


async def test_the_worker_reads_it_as_it_read_it_the_first_time() -> None:
    first = envelope(COMMAND)
    again = parsing.read(envelope_again(await parked(first, INTERNAL), "word"), REGION)
    assert again.digest == parsing.read(first, REGION).digest
    assert (again.operation, again.name, again.tenant) == ("server.action", "m-1", "tenant-a")


async def test_a_command_about_an_order_is_no_order_when_it_comes_back() -> None:
    first = envelope({"operation": "server.action"}, queue="ecs.orders", routing_key="order.plan")
    again = envelope_again(await parked(first, INTERNAL), "word")
    assert again.queue == "ecs.orders"
    assert again.routed_by == ("ecs.commands", "order.plan")


async def test_what_no_queue_took_goes_by_its_exchange_again() -> None:
    first = envelope(
        {"operation": "volume.create"}, queue="ecs.undelivered", routing_key="volume.create"
    )
    again = publication_again(await parked(first, INTERNAL), "word", "b")
    assert (again.exchange, again.routing_key) == ("ecs.commands", "volume.create")
    assert queue_of_command(NAMES, "volume.create") is None
    assert queue_of_command(NAMES, "server.action") == "ecs.servers"
    assert queue_of_command(NAMES, "image.batch_delete") == "ecs.images"
    assert queue_of_command(NAMES, "servers") is None


@pytest.mark.parametrize(
    ("body", "fields", "hindrance"),
    [
        (b'{"token": "eyJhbGciOi.x.y', {}, "its body was not kept"),
        ({"operation": "x"}, {"queue": "somebody's"}, "does not say which"),
        (
            {"operation": "x"},
            {"queue": "ecs.undelivered", "exchange": "another"},
            "by which exchange",
        ),
        (
            {
                "orderType": "new",
                "orderStatus": "paySuccess",
                "consoleCustomization": {"adminPass": "s3cret"},
            },
            {"queue": "ecs.orders", "exchange": "ecs.orders", "routing_key": "order.new"},
            "adminPass was not kept",
        ),
        (COMMAND, {}, None),
        (b"{", {}, None),
    ],
)
async def test_what_cannot_be_put_in_again_says_why(
    body: Any, fields: dict[str, Any], hindrance: str | None
) -> None:
    found = dead_letter_of(await parked(envelope(body, **fields), INTERNAL)).hindrance
    assert (found is None) if hindrance is None else (hindrance in (found or ""))


async def test_its_identity_stays_while_the_broker_counts_and_when_it_is_renewed() -> None:
    lies = await parked(envelope(COMMAND), INTERNAL)
    counted = replace(
        lies,
        headers={**lies.headers, "x-delivery-count": 7, "x-acquired-count": 9},
        redelivered=True,
    )
    assert identity_of(counted) == identity_of(lies)
    assert (times_returned(counted), times_returned(lies)) == (9, 0)
    renewed = publication_renewed(counted)
    assert (renewed.exchange, renewed.routing_key) == ("ecs.dead", "ecs.servers")
    assert renewed.headers == lies.headers
    assert identity_of(await parked(envelope(COMMAND | {"x": 1}), INTERNAL)) != identity_of(lies)
    assert identity_of(replace(lies, message_id="m-2")) != identity_of(lies)


async def test_a_stranger_in_the_queue_breaks_nothing() -> None:
    for headers in (
        {},
        {"x-ecs-failed-at": 7, "x-ecs-error-code": ["a"], "x-ecs-origin-queue": b"\xff"},
        {"a": 1.5},
    ):
        strange = envelope(
            b"\x00\xff",
            queue="ecs.dead",
            exchange="",
            routing_key="",
            headers=headers,
            message_id=None,
        )
        found = dead_letter_of(strange)
        assert (found.id, found.key, found.failed, found.code) == (None, None, 0.0, None)
        assert found.hindrance is not None
        assert identity_of(strange)
        assert publication_renewed(strange).body == b"\x00\xff"


def one(number: int, **fields: Any) -> Found:
    known: dict[str, Any] = {
        "key": f"m-{number}",
        "operation": "server.action",
        "tenant": "t",
        "code": "101.001002",
        "error": "e",
        "origin": "ecs.servers",
        "attempts": 0,
        "failed_at": f"2026-11-23T10:00:{number:02d}.000Z",
        "digest": "",
    }
    return Found(DeadLetter(envelope({}, message_id=f"m-{number}"), **known | fields), str(number))


def test_filters_are_all_of_them_at_once_and_the_limit_takes_the_oldest() -> None:
    found = [
        one(5),
        one(2),
        one(9, code="101.001040"),
        one(3, operation="server.list", origin="ecs.images"),
    ]
    chosen = Wanted(limit=2).choose(found)
    assert [item.identity for item in chosen] == ["2", "3"]
    middle = instant("2026-11-23T10:00:05Z")
    for wanted, expected in (
        (Wanted(ids=("m-5", "m-9")), "59"),
        (Wanted(codes=("101.001040",)), "9"),
        (Wanted(operations=("server.list",), codes=("101.001040",)), ""),
        (Wanted(origins=("ecs.images",)), "3"),
        (Wanted(since=middle), "59"),
        (Wanted(before=middle), "23"),
    ):
        assert "".join(item.identity for item in wanted.choose(found)) == expected


def test_a_kept_list_takes_each_of_its_rows_once() -> None:
    alike = [one(1), one(1), one(1), one(2)]
    rows = tuple(row_text({**item.parked.row(), "added": 1}) for item in (alike[0], alike[1]))
    assert [item.parked.id for item in Wanted(rows=rows).choose(alike)] == ["m-1", "m-1"]
    assert Wanted(rows=()).choose(alike) == []


def test_groups_are_by_code_operation_and_origin() -> None:
    groups = grouped([one(1).parked, one(7, error="the newest").parked, one(3, code="x").parked])
    assert [(group.count, group.code, group.error) for group in groups] == [
        (2, "101.001002", "the newest"),
        (1, "x", "e"),
    ]
    assert (groups[0].oldest, groups[0].newest) == (
        "2026-11-23T10:00:01.000Z",
        "2026-11-23T10:00:07.000Z",
    )


def test_times_are_read_as_people_write_them() -> None:
    assert (
        instant("2026-11-23T10:00:00Z")
        == instant("2026-11-23 10:00:00")
        == instant("2026-11-23T18:00:00+08:00")
    )
    assert abs(instant("2h") - (time.time() - 7200)) < 2
    for wrong in ("yesterday", "", "2x", "-2h"):
        with pytest.raises(typer.BadParameter):
            instant(wrong)


def test_what_others_wrote_moves_no_cursor() -> None:
    assert plain("\x1b[2J\u202eabc\r\n参数") == "\\x1b[2J\\u202eabc\\r\\n参数"
    assert plain(json.loads("null")) == ""


async def test_a_rate_is_kept_and_a_stop_ends_the_wait() -> None:
    pace, stopping = Pace(50.0), asyncio.Event()
    began = time.monotonic()
    for _ in range(11):
        assert await pace.permit(1, stopping)
    assert 0.19 <= time.monotonic() - began < 2
    slow = Pace(0.01)
    assert await slow.permit(1, stopping)
    asyncio.get_running_loop().call_later(0.05, stopping.set)
    assert not await slow.permit(1, stopping)
    assert not await Pace(None).permit(1, stopping)
