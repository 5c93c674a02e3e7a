"""Record what an earlier version leaves behind when it is killed in the middle of its work.

    python -m tests.upgrade.record COMMIT

It takes that version's tree out of the history, runs its worker on a broker of its own and on a
simulated cloud, brings requests of every kind to an instant of its own, kills the worker, and
writes journal, queues and cloud to `tests/upgrade/COMMIT`.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from sandbox.broker import PrivateBroker
from sandbox.issuer import USER, Issuer
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Heard, Requester, Source
from tests.support import REPOSITORY, kinds
from tests.support.dying_worker import Hold, Instant
from tests.support.invariants import await_ends
from tests.support.kinds import Ask, Asked, command
from tests.support.stage import await_held, dying
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from tests.upgrade.recording import (
    PROJECT,
    RECORDINGS,
    described,
    take_messages,
    write_recording,
)

#: Longer than recording takes: what waits for its retry is found in its retry queue.
_RETRY_DELAY = "300"
#: Who replays; the same operator's command goes on with what it left.
OPERATOR = "on-call"
REBOOT = {"reboot": {"type": "HARD"}}
#: What is killed, and where.
KILLED: tuple[tuple[Ask, Instant], ...] = (
    (kinds.change("resize", "resize"), Instant.CALL_EXECUTED),
    (kinds.change("confirm", "confirm"), Instant.INTENT_WRITTEN),
    (kinds.change("extend", "extend"), Instant.WAITING),
    (kinds.change("fee data", "metadata"), Instant.ANSWER_READ),
    (kinds.revert, Instant.CALL_EXECUTED),
    (kinds.new_servers("new server", "create:2", 2), Instant.CALL_EXECUTED),
    (kinds.new_servers("new volume", "volume:2.1", 2), Instant.ANSWER_READ),
    (kinds.taken_away, Instant.CALL_EXECUTED),
    (kinds.renewal("renew", "renew"), Instant.INTENT_WRITTEN),
    (kinds.renewal("renew: start", "os-start"), Instant.WAITING),
    (kinds.taken_down("softDown: stop", "stopServer", "os-stop"), Instant.ANSWER_READ),
    (kinds.unsubscribe("softDown: delete", "delete:", unpaid=True), Instant.CALL_EXECUTED),
    (kinds.unsubscribe("unsubscribe", "delete:"), Instant.WAITING),
    (kinds.power("stop", {"os-stop": None}, "SHUTOFF"), Instant.NOTHING_WRITTEN),
    (kinds.power("reboot", REBOOT, "ACTIVE"), Instant.INTENT_WRITTEN),
    (kinds.power("start", {"os-start": None}, "ACTIVE", stopped=True), Instant.RESULT_WRITTEN),
    (kinds.batch, Instant.CALL_EXECUTED),
    (kinds.tags, Instant.ANSWER_READ),
    (kinds.create_image, Instant.WAITING),
    (kinds.delete_image, Instant.CONFIRMED),
    (kinds.update_image, Instant.NOTED),
    (kinds.renewal("renew, finished", ""), Instant.RESULT_WRITTEN),
)


class Proving(Requester):
    """Sends every request with its user's token, and remembers what it sent."""

    def __init__(self, url: str, issuer: Issuer) -> None:
        super().__init__(url, order_results=False)
        # Good for longer than recording takes.
        self._token = issuer.token(project=PROJECT, exp=int(time.time()) + 24 * 3600)
        self.sent: dict[str, tuple[str, str, str, str]] = {}

    def publish(self, exchange: str, routing_key: str, body: Any, **options: Any) -> str:
        found = json.loads(body) if isinstance(body, str | bytes) else body
        if routing_key == "order.softDown":
            # It carries no token: the broker says who sends it.
            text, options = json.dumps(found), {"user_id": "guest"} | options
        else:
            user = "userId" if exchange.endswith("orders") else "user_id"
            text = json.dumps(found | {"token": self._token, user: USER})
        message_id = super().publish(exchange, routing_key, text, **options)
        self.sent[message_id] = (exchange, routing_key, text, message_id)
        return message_id


def record(commit: str) -> None:
    """Record what that version leaves behind."""
    with tempfile.TemporaryDirectory(prefix="ecs-upgrade-") as name:
        tree, folder = Path(name, "tree"), Path(name, "work")
        tree.mkdir()
        folder.mkdir()
        archive = subprocess.run(
            ["git", "archive", commit], cwd=REPOSITORY, capture_output=True, check=True
        )
        subprocess.run(["tar", "-x"], cwd=tree, input=archive.stdout, check=True)
        issuer = Issuer()
        issuer.rotate("EC", forget=True)
        keys = issuer.write(folder / "keys.json")
        with PrivateBroker() as broker, SimulatedOpenStack(pace=0.3) as cloud:
            url = broker.add_vhost("recorded")
            with Workshop(url, cloud, folder) as workshop:
                workshop.settings |= {
                    "PYTHONPATH": str(tree),
                    "ECS_TRUST_PUBLISHERS": "false",
                    "ECS_JWT_JWKS": str(keys),
                    "ECS_TOKENLESS_PUBLISHERS": "guest",
                    "ECS_RETRY_DELAYS": _RETRY_DELAY,
                    "ECS_COMMAND_TIMEOUT": "300",
                }
                try:
                    requests = _work(workshop, broker, cloud, issuer, tree)
                finally:
                    # The cloud ends as it is: what was made needs no deletion.
                    workshop.tenant().forget()
                world = cloud.save()
                requests["recorded_at"] = time.time()
                write_recording(
                    RECORDINGS / commit,
                    journal=folder / "journal.db",
                    broker=_broker(broker, url),
                    cloud=world,
                    requests=requests,
                )


def _work(
    workshop: Workshop,
    broker: PrivateBroker,
    cloud: SimulatedOpenStack,
    issuer: Issuer,
    tree: Path,
) -> dict[str, Any]:
    """Have the worker begin everything, and kill it."""
    tenant = workshop.tenant()
    worker = workshop.worker()
    with Proving(workshop.broker_url, issuer) as requester:
        # What is known already, and what waits for a retry: before anything, and in the middle.
        settled = [
            kinds.change("settled", "")(tenant, cloud),
            kinds.power("settled start", {"os-start": None}, "ACTIVE", stopped=True)(tenant, cloud),
        ]
        postponed = [
            kinds.renewal("postponed", "")(tenant, cloud),
            kinds.change("postponed in the middle", "")(tenant, cloud),
        ]
        first, second = postponed
        (server_id,) = first.actions
        cloud.fault("api.nova", match=f"/servers/{server_id}", error="down", status=503)
        (server_id,) = second.actions
        (volume,) = tenant.volumes(server_id)
        cloud.fault("api.cinder", match=f"POST .*{volume['id']}", error="down", status=503)
        for one in (*settled, *postponed):
            one.publish(requester)
        _await_settled(requester, settled)
        for one in postponed:
            _await_status(requester, one, "waiting_retry")
        rejected = requester.order('{"orderType": "renew", "orderId": "17"}')
        eventually(lambda: requester.depth("ecs.dead") == 1, 30)
        assert worker.terminate() == 0

        # Orders that ran out in the queue, one of which an operator was just replaying.
        replayed = [kinds.renewal(f"expired {number}", "")(tenant, cloud) for number in range(2)]
        for one in replayed:
            text = requester_text(one, requester)
            requester.publish(*text[:2], text[2], message_id=one.message_id, expiration=0.001)
        killed = [(ask(tenant, cloud), instant) for ask, instant in KILLED]
        behind = _behind(killed)
        holds = [Hold(one.message_id, instant, one.effect) for one, instant in killed]
        # Where that version has it.
        places = ("support", "faults")
        here = (one for one in places if (tree / "tests" / one / "dying_worker.py").exists())
        worker = dying(workshop, holds, module=f"tests.{next(here)}.dying_worker")
        eventually(lambda: requester.depth("ecs.dead") == 3, 60)
        _replay_and_die(workshop, broker, replayed[0].message_id)
        for one, _ in killed:
            one.publish(requester)
        _await_status(requester, killed[0][0], "resizing")
        behind.publish(requester)
        await_held(workshop, worker)
        requester.listen(1)
        cloud.clear_faults("api.")
        groups = {
            "settled": settled,
            "postponed": postponed,
            "killed": [*(one for one, _ in killed), behind],
            "expired": replayed,
        }
        return {
            "rejected": rejected,
            "groups": {
                name: [
                    described(one)
                    | ({"sent": requester.sent[one.message_id]} if name == "settled" else {})
                    for one in listed
                ]
                for name, listed in groups.items()
            },
            "heard": [_told(one) for one in requester.heard if _counts(one)],
        }


def requester_text(one: Asked, requester: Proving) -> tuple[str, str, str]:
    """Exchange, routing key and body of a request, which is not sent."""
    found: list[tuple[str, str, str]] = []

    class Catching:
        def order(self, text: str, routing_key: str, **_: Any) -> None:
            found.append(("ecs.orders", routing_key, text))

    one.publish(Catching())  # type: ignore[arg-type]
    return found[0]


def _behind(killed: list[tuple[Asked, Instant]]) -> Asked:
    """A command for the server of the first order, which waits until that has ended."""
    order, instant = killed[0]
    (server_id,) = order.actions
    killed[0] = (replace(order, actions={}), instant)
    return command(
        "behind",
        "server.action",
        fields={"server_id": server_id, "body": {"os-stop": None}},
        effect="",
        code=200,
        finals={("server", server_id): "SHUTOFF"},
        calls=(f"nova POST .*/{server_id}/action os-stop$",),
        actions={server_id: [*order.actions[server_id], "stop"]},
    )


def _replay_and_die(workshop: Workshop, broker: PrivateBroker, message_id: str) -> None:
    """An operator's command that is killed after it has put its message into force."""
    broker.rabbitmqctl("set_vm_memory_high_watermark", "0")
    environment = {"PATH": os.environ["PATH"], "HOME": str(workshop.folder)} | workshop.settings
    words = ["dead", "replay", "--id", message_id, "--operator", OPERATOR, "--yes"]
    if "--vouch" in workshop.command("dead", "replay", "--help").stdout:
        words.append("--vouch")
    process = subprocess.Popen(
        [sys.executable, "-m", "workers", *words], env=environment, cwd=workshop.folder
    )
    eventually(lambda: "'issued'" in workshop.journal_dump(), 30)
    process.kill()
    process.wait()
    broker.rabbitmqctl("set_vm_memory_high_watermark", "0.6")


def _await_settled(requester: Requester, asked: list[Asked]) -> None:
    """Wait until each has its final updates, and the commands their replies."""
    for one in asked:
        if not one.is_order:
            await_ends(requester, [one])
        else:
            requester.last_update_of("order", one.message_id, 60)
    eventually(lambda: requester.depth("ecs.order-results") > 0)


def _await_status(requester: Requester, one: Asked, status: str) -> None:
    def is_it(heard: Heard) -> bool:
        update = heard.source is Source.STATUS and heard.body["message_id"] == one.message_id
        return update and heard.body["status"] == status

    requester.wait(is_it, 90)


def _counts(heard: Heard) -> bool:
    return heard.source is not Source.STATUS or heard.is_final


def _told(heard: Heard) -> dict[str, Any]:
    known = {name: heard.properties.get(name) for name in ("message_id", "correlation_id")}
    return {
        "source": heard.source.value,
        "raw": heard.raw.decode(),
        "properties": known,
        "headers": dict(heard.headers),
        "routing_key": heard.routing_key,
    }


def _broker(broker: PrivateBroker, url: str) -> dict[str, Any]:
    """The definitions of the virtual host, and what its queues hold."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        broker.rabbitmqctl("export_definitions", file.name)
        everything = json.loads(Path(file.name).read_text())
    definitions = {
        kind: [
            {key: value for key, value in one.items() if key != "vhost"}
            for one in everything.get(kind, ())
            if one["vhost"] == "recorded"
        ]
        for kind in ("exchanges", "queues", "bindings")
    }
    queues = [one["name"] for one in definitions["queues"]]
    return {"definitions": definitions, "messages": take_messages(url, queues)}


if __name__ == "__main__":
    record(sys.argv[1])
