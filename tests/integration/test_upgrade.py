"""This version goes on where an earlier one was killed: with its journal, its queues and the cloud
as they were (`tests/upgrade`). Nothing is lost, and nothing is done twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox.broker import PrivateBroker
from sandbox.issuer import USER
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Heard, Requester, Source
from tests.support.invariants import await_ends, check
from tests.support.kinds import Asked, made_for
from tests.support.names import DEAD_QUEUE
from tests.support.stage import settled
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from tests.upgrade.record import OPERATOR
from tests.upgrade.recording import PROJECT, Recording

#: The version before the contract's second edition, and the one before the new layout.
VERSIONS = ("311b45e", "ec687e4")


@dataclass(frozen=True, slots=True)
class Restored:
    """Holds what an earlier version left behind, and nobody working on it yet."""

    recording: Recording
    workshop: Workshop
    cloud: SimulatedOpenStack


@pytest.fixture(params=VERSIONS)
def restored(
    request: pytest.FixtureRequest, broker: PrivateBroker, tmp_path: Path
) -> Iterator[Restored]:
    recording = Recording.read(request.param)
    with SimulatedOpenStack(pace=0.3) as cloud:
        recording.restore_cloud(cloud)
        recording.restore_journal(tmp_path / "journal.db")
        url = recording.restore_broker(broker, tmp_path)
        with Workshop(url, cloud, tmp_path) as workshop:
            workshop.settings |= {
                "ECS_TRUST_PUBLISHERS": "false",
                "ECS_JWT_JWKS": str(recording.issuer.write(tmp_path / "keys.json")),
                "ECS_TOKENLESS_PUBLISHERS": "guest",
                "ECS_COMMAND_TIMEOUT": "300",
                # Of what is replayed: its message is as old as the recording.
                "ECS_MAX_AGE": "2592000",
            }
            yield Restored(recording, workshop, cloud)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_requests_in_progress_are_completed_once_by_the_next_version(restored: Restored) -> None:
    recording, workshop = restored.recording, restored.workshop
    with Requester(workshop.broker_url) as requester:
        requester.heard += recording.heard()
        recording.restore_messages(workshop.broker_url, requester.reply_to)
        workshop.worker()
        pending = [one for group in ("killed", "postponed") for one in recording.asked(group)]
        await_ends(requester, pending, 120)

        # Dead letters, of which the earlier version's command had put one into force.
        expired = recording.asked("expired")
        eventually(lambda: requester.depth(DEAD_QUEUE) == 1 + len(expired))
        first = expired[0].message_id
        options = ("--operator", OPERATOR, "--vouch", "--yes")
        for words in (["--id", first], ["--operation", "order.renew"]):
            done = workshop.command("dead", "replay", *words, *options)
            assert done.returncode == 0, done.stdout + done.stderr
        for one in expired:
            requester.wait(lambda heard, one=one: _is_success_of(one, heard), 60)
            (server_id,) = one.actions
            requester.last_update_of("server", one.message_id, resource_id=server_id)

        # A request that had ended has the same result when it comes again.
        known = recording.asked("settled")
        before = len(requester.heard)
        for exchange, routing_key, body, message_id in recording.sent("settled"):
            requester.publish(
                exchange, routing_key, body, message_id=message_id, reply_to=requester.reply_to
            )
        for one in known:
            requester.wait(lambda heard, one=one: _is_success_of(one, heard), 30, after=before)

        # And is shown as it ended, with what the earlier version wrote.
        for one in known:
            key = next((name for kind, name in one.finals if kind == "order"), one.message_id)
            asked = requester.command(
                "order.show", tenant=PROJECT, user_id=USER, token=recording.token, key=key
            )
            shown = requester.result_of(asked).body["data"]
            assert (shown["state"], shown["waits_for"]) == ("done", None), one.kind
            assert shown["result"]["code"] == 200, one.kind

        settled(workshop, requester)
        tenant, executed = workshop.tenant(), restored.cloud.executed()
        check(requester.heard, [*pending, *known], tenant, executed)
        # They had been answered as too late; a replay has a result of its own.
        check([one for one in requester.heard if not _is_too_late(one)], expired, tenant, executed)
        for one in pending:
            if one.kind.startswith("new "):
                _check_servers(one, workshop)


def _is_success_of(one: Asked, heard: Heard) -> bool:
    source = Source.ORDER_RESULT if one.is_order else Source.REPLY
    is_result = heard.source is source and heard.correlation_id == one.message_id
    return is_result and heard.body["code"] == 200


def _is_too_late(heard: Heard) -> bool:
    if heard.source is Source.STATUS:
        return bool(heard.body["status"] == "failed")
    return "deadline" in (heard.body.get("data") or {}).get("reason", "")


def _check_servers(one: Asked, workshop: Workshop) -> None:
    """Two servers were ordered; each is there once, with its two disks."""
    order_id = next(name for kind, name in one.finals if kind == "order")
    servers, disks = made_for(workshop.tenant(), order_id)
    assert (len(servers), len(disks)) == (2, 4), one.kind
    assert {server["status"] for server in servers.values()} == {"ACTIVE"}
