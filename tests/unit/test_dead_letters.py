"""Dead letters: read, selected, grouped, and turned into the message of their replay."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest
import typer

from messages.codes import Code
from messages.errors import Refused
from sandbox.documents import REGION
from tests.support.envelopes import envelope
from tests.support.names import NAMES
from workers.amqp.envelope import Envelope
from workers.amqp.headers import RESUME_TOKEN_HEADER
from workers.amqp.renewal import times_returned
from workers.amqp.topology import queue_of_command
from workers.cli.times import parse_time
from workers.dead_letters import reader
from workers.dead_letters.batch_run import RateLimit
from workers.dead_letters.dead_letter import (
    DeadLetter,
    identity_of,
    renewed_publication,
    replay_publication,
    replayed_envelope,
)
from workers.dead_letters.doubles import CapturingPublisher
from workers.dead_letters.engine import Access, BatchRefused, load
from workers.dead_letters.reader import Reader, Unreachable
from workers.dead_letters.selection import Selection, grouped, row_text
from workers.journal import Action, Actor, Batch, History, Journal, Replay, ReplayState
from workers.metrics import Metrics
from workers.pipeline.parsing import parse
from workers.pipeline.replies import Replies

COMMAND = {
    "operation": "server.action",
    "tenant_id": "tenant-a",
    "server_id": "616fb98f-46ca-475e-917e-2563e5a8cd19",
    "body": {"os-start": None},
    "token": "***",
}


async def dead_lettered(message: Envelope, refused: Refused) -> Envelope:
    """Return the message as it is in `ecs.dead` once a worker has dead-lettered it."""
    publisher = CapturingPublisher()
    replies = Replies(publisher, NAMES, Metrics(), on_returned=lambda: None)
    await replies.dead_letter(message, refused)
    (one,) = publisher.publications
    return replace(
        message,
        queue="ecs.dead",
        exchange=one.exchange,
        routing_key=one.routing_key,
        body=one.body,
        headers=dict(one.headers or {}),
    )


INTERNAL = Refused(Code.FAILED, reason="internal", detail="KeyError")


async def test_a_row_has_the_fields_of_the_contract() -> None:
    retried = {"x-ecs-attempts": 2, "x-ecs-routing-key": "ecs.commands server.action"}
    letter = await dead_lettered(envelope(COMMAND, exchange="", headers=retried), INTERNAL)
    row = DeadLetter.of(letter).row()
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
        "reason": "internal",
        "group": DeadLetter.of(letter).group,
        "failed_replays": 0,
    }
    assert time.time() - DeadLetter.of(letter).failed < 5
    assert failed_at.endswith("Z")


async def test_a_replay_goes_to_its_own_queue_alone_with_its_own_properties() -> None:
    first = envelope(
        COMMAND,
        headers={"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01", "x-ecs-deadline": "99"},
        reply_to="mine",
        correlation_id="c",
        timestamp=1000,
    )
    letter = await dead_lettered(first, INTERNAL)
    again = replay_publication(letter, "word", "batch-1", "replay-1")
    assert (again.exchange, again.routing_key, again.mandatory) == ("", "ecs.servers", True)
    assert (again.body, again.reply_to, again.correlation_id, again.timestamp) == (
        letter.body,
        "mine",
        "c",
        1000,
    )
    headers = dict(again.headers or {})
    assert headers.pop(RESUME_TOKEN_HEADER) == "word"
    assert headers.pop("x-ecs-replay") == "batch-1"
    assert headers.pop("x-ecs-replay-id") == "replay-1"
    assert headers.pop("x-ecs-replays") == 1
    assert headers.pop("x-ecs-routing-key") == "ecs.commands server.action"
    assert headers == {"traceparent": first.headers["traceparent"], "x-ecs-deadline": "99"}


async def test_a_worker_parses_a_replay_as_it_parsed_the_first_delivery() -> None:
    first = envelope(COMMAND)
    again = parse(replayed_envelope(await dead_lettered(first, INTERNAL), "word"), REGION)
    assert again.digest == parse(first, REGION).digest
    assert (again.operation, again.name, again.tenant) == ("server.action", "m-1", "tenant-a")


async def test_the_time_limits_of_a_replay_count_from_its_own_arrival() -> None:
    letter = await dead_lettered(envelope(COMMAND), INTERNAL)
    long_ago = replace(letter, arrived=1000.0, redelivered=True)
    assert time.time() - replayed_envelope(long_ago, "word").first_seen < 5


async def test_a_command_about_an_order_is_still_a_command_when_it_is_replayed() -> None:
    first = envelope({"operation": "server.action"}, queue="ecs.orders", routing_key="order.plan")
    again = replayed_envelope(await dead_lettered(first, INTERNAL), "word")
    assert again.queue == "ecs.orders"
    assert again.routed_by == ("ecs.commands", "order.plan")


async def test_a_message_that_no_queue_took_is_replayed_by_its_exchange() -> None:
    first = envelope(
        {"operation": "volume.create"}, queue="ecs.undelivered", routing_key="volume.create"
    )
    again = replay_publication(await dead_lettered(first, INTERNAL), "word", "b", "r")
    assert (again.exchange, again.routing_key) == ("ecs.commands", "volume.create")
    assert queue_of_command(NAMES, "volume.create") is None
    assert queue_of_command(NAMES, "server.action") == "ecs.servers"
    assert queue_of_command(NAMES, "image.batch_delete") == "ecs.images"
    assert queue_of_command(NAMES, "server.show") == "ecs.reads"
    assert queue_of_command(NAMES, "server.frobnicate") is None


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
async def test_a_message_that_cannot_be_replayed_has_a_reason(
    body: Any, fields: dict[str, Any], hindrance: str | None
) -> None:
    found = DeadLetter.of(await dead_lettered(envelope(body, **fields), INTERNAL)).hindrance
    assert (found is None) if hindrance is None else (hindrance in (found or ""))


async def test_identity_is_the_same_after_redeliveries_and_renewal() -> None:
    letter = await dead_lettered(envelope(COMMAND), INTERNAL)
    counted = replace(
        letter,
        headers={**letter.headers, "x-delivery-count": 7, "x-acquired-count": 9},
        redelivered=True,
    )
    assert identity_of(counted) == identity_of(letter)
    assert (times_returned(counted), times_returned(letter)) == (9, 0)
    renewed = renewed_publication(counted)
    assert (renewed.exchange, renewed.routing_key) == ("ecs.dead", "ecs.servers")
    assert renewed.headers == letter.headers
    assert identity_of(await dead_lettered(envelope(COMMAND | {"x": 1}), INTERNAL)) != identity_of(
        letter
    )
    assert identity_of(replace(letter, message_id="m-2")) != identity_of(letter)


async def test_a_foreign_message_in_the_queue_is_read_without_error() -> None:
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
        found = DeadLetter.of(strange)
        assert (found.id, found.key, found.failed, found.code) == (None, None, 0.0, None)
        assert found.hindrance is not None
        assert identity_of(strange)
        assert renewed_publication(strange).body == b"\x00\xff"


def one(number: int, **fields: Any) -> DeadLetter:
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
    return DeadLetter(envelope({}, message_id=f"m-{number}"), **known | fields)


def test_all_filters_must_match_and_the_limit_takes_the_oldest() -> None:
    found = [
        one(5, error="a size in gigabytes"),
        one(2, tenant="other"),
        one(9, code="101.001040", error="it failed; conflicting_duplicate; known"),
        one(3, operation="server.list", origin="ecs.images"),
    ]
    chosen = Selection(limit=2).choose(found)
    assert [item.id for item in chosen] == ["m-2", "m-3"]
    middle = parse_time("2026-11-23T10:00:05Z")
    for selection, expected in (
        (Selection(ids=("m-5", "m-9")), "59"),
        (Selection(codes=("101.001040",)), "9"),
        (Selection(operations=("server.list",), codes=("101.001040",)), ""),
        (Selection(origins=("ecs.images",)), "3"),
        (Selection(errors=("GIGABYTES",)), "5"),
        (Selection(reasons=("conflicting_duplicate",)), "9"),
        (Selection(tenants=("other", "somebody")), "2"),
        (Selection(groups=(found[2].group,)), "9"),
        (Selection(since=middle), "59"),
        (Selection(before=middle), "23"),
    ):
        assert "".join((item.id or "")[-1] for item in selection.choose(found)) == expected


def test_a_stored_list_selects_each_of_its_rows_once() -> None:
    alike = [one(1), one(1), one(1), one(2)]
    rows = tuple(row_text({**item.row(), "added": 1}) for item in (alike[0], alike[1]))
    assert [item.id for item in Selection(rows=rows).choose(alike)] == ["m-1", "m-1"]
    assert Selection(rows=()).choose(alike) == []


def test_groups_are_by_code_reason_and_error_without_what_varies() -> None:
    unknown = "云服务器{}不存在; the order {} of 'web 1' came at 10:00"
    groups = grouped(
        [
            one(1, error=unknown.format(uuid4(), "178549870045495296")),
            one(7, error=unknown.format("616fb98f", "flow-9").replace("web 1", "db")),
            one(3, operation="order.new", error="the flavor has another number of CPUs"),
            one(4, code="x", error="操作失败; conflicting_duplicate; known"),
            one(5, code="x", error="操作失败; too_old; known"),
        ]
    )
    assert [(group.count, group.code, group.reason) for group in groups] == [
        (2, "101.001002", None),
        (1, "101.001002", None),
        (1, "x", "conflicting_duplicate"),
        (1, "x", "too_old"),
    ]
    assert groups[0].error == unknown.format("616fb98f", "flow-9").replace("web 1", "db")
    assert (groups[0].oldest, groups[0].newest) == (
        "2026-11-23T10:00:01.000Z",
        "2026-11-23T10:00:07.000Z",
    )
    # Two parameters that are wrong are two causes, and an id means the same on every machine.
    named = [one(1, error=f"参数{name}不符合规范") for name in ("networkId", "subnetId")]
    assert len(grouped(named)) == 2
    assert named[0].group == "005a3f76"


async def test_a_publisher_cannot_claim_earlier_replays_or_a_reason() -> None:
    forged = {"x-ecs-replays": 7, "x-ecs-replay": "b", "x-ecs-replay-id": "r", "x-ecs-reason": "x"}
    letter = DeadLetter.of(await dead_lettered(envelope(COMMAND, headers=forged), INTERNAL))
    assert (letter.failed_replays, letter.reason) == (0, "internal")
    replayed = forged | {RESUME_TOKEN_HEADER: "word"}
    again = await dead_lettered(envelope(COMMAND, headers=replayed), INTERNAL)
    assert (DeadLetter.of(again).failed_replays, again.headers["x-ecs-replay-id"]) == (7, "r")


def test_times_are_parsed_as_dates_and_as_durations_ago() -> None:
    assert (
        parse_time("2026-11-23T10:00:00Z")
        == parse_time("2026-11-23 10:00:00")
        == parse_time("2026-11-23T18:00:00+08:00")
    )
    assert abs(parse_time("2h") - (time.time() - 7200)) < 2
    for wrong in ("yesterday", "", "2x", "-2h"):
        with pytest.raises(typer.BadParameter):
            parse_time(wrong)


async def test_the_rate_limit_is_kept_and_stopping_ends_the_wait() -> None:
    pace, stopping = RateLimit(50.0), asyncio.Event()
    began = time.monotonic()
    for _ in range(11):
        assert await pace.permit(1, stopping)
    assert 0.19 <= time.monotonic() - began < 2
    slow = RateLimit(0.01)
    assert await slow.permit(1, stopping)
    asyncio.get_running_loop().call_later(0.05, stopping.set)
    assert not await slow.permit(1, stopping)
    assert not await RateLimit(None).permit(1, stopping)


async def test_an_edited_message_is_its_operator_s_and_stays_in_the_tenant_that_was_proven() -> (
    None
):
    publisher = CapturingPublisher()
    replies = Replies(publisher, NAMES, Metrics(), on_returned=lambda: None)
    await replies.dead_letter(envelope(COMMAND), INTERNAL, proven="project-1")
    (one,) = publisher.publications
    parked = replace(
        envelope(COMMAND),
        queue="ecs.dead",
        exchange=one.exchange,
        routing_key=one.routing_key,
        body=one.body,
        headers=dict(one.headers or {}),
    )
    proven = DeadLetter.of(parked)
    edited = DeadLetter.of(replace(parked, headers={**parked.headers, "x-ecs-identity": "edited"}))
    assert not proven.is_unproven(trusting=False)
    assert edited.is_unproven(trusting=False)
    assert (proven.proven_project, edited.proven_project) == ("project-1", "project-1")


async def test_another_operator_who_resumes_a_batch_vouches_for_its_senders_too(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/journal.db"
    journal = Journal(url)
    await journal.open()
    history = History(url).open()
    batch = Batch("b", Action.REPLAY, "anna", None, 1.0, 1)
    member = Replay(
        id="1", batch="b", position=0, action="replay", operator="anna", selection="", name="m",
        message_id="m", operation=None, origin="ecs.servers", code="101.001401", failed_at="",
        identity="i", digest="", tenant=None, state=ReplayState.PINNED, pinned_at=1.0, vouched=True,
    )  # fmt: skip
    try:
        await journal.add_batch(batch, [member])
        access = Access(cast(Any, None), journal, history)
        for name, vouch in (("anna", False), ("bert", True)):
            assert len((await load(access, "b", Actor(name, "", ""), vouch=vouch)).replays) == 1
        with pytest.raises(BatchRefused, match="anna vouched"):
            await load(access, "b", Actor("bert", "", ""))
    finally:
        history.close()
        await journal.close()


class _BusyBroker:
    """A consumer that the broker has agreed to deliver to, and that gets nothing for now."""

    def __init__(self, _where: object, _consuming: object, on_delivery: Any) -> None:
        self.deliver = on_delivery
        self.consuming = frozenset({"ecs.dead"})
        self.connection = SimpleNamespace(is_up=True)

    def open(self) -> None:
        pass


@pytest.fixture
def busy_reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    """A reader of a queue with one message, which the broker delivers late; and the times short."""
    depths = [(1, 0), (1, 1)]
    monkeypatch.setattr(reader, "Consumer", _BusyBroker)
    monkeypatch.setattr(
        reader, "_depth", lambda *_: depths.pop(0) if len(depths) > 1 else depths[0]
    )
    monkeypatch.setattr(reader, "QUIET", 0.01)
    monkeypatch.setattr(reader, "NO_DELIVERY", 0.2)
    return Reader("amqp://nowhere", NAMES, lambda _: None)


async def test_a_broker_that_is_busy_is_not_taken_for_an_empty_queue(busy_reader: Reader) -> None:
    await busy_reader.open()
    for _ in range(3):
        await busy_reader.wait_for_delivery()
        assert not busy_reader.is_complete()
    busy_reader._consumer.deliver(SimpleNamespace(lost=False))  # type: ignore[attr-defined]
    await busy_reader.wait()
    assert busy_reader.seen == 1


async def test_a_broker_that_delivers_nothing_is_no_empty_queue_either(
    busy_reader: Reader,
) -> None:
    await busy_reader.open()
    with pytest.raises(Unreachable, match="0 of 1 messages"):
        await busy_reader.wait()
