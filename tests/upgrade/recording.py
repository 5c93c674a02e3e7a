"""A broker, a journal and a cloud in the middle of work, as an earlier version left them: how they
are written to files, and how they are restored.

A recording is a folder: `journal.sql` (the SQLite journal as SQL), `broker.json` (the broker's
definitions, and the messages of every queue), `cloud.json` (the simulated cloud), `requests.json`
(the requests, and what their sender heard until then). Tokens are not recorded: the requests get
new ones of the same user.
All times in them but those of dead letters are moved when they are restored: to the worker no time
has passed since.
"""

import json
import re
import sqlite3
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pika

from sandbox.broker import PrivateBroker
from sandbox.issuer import Issuer
from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Heard, Source
from tests.support.kinds import Asked

RECORDINGS = Path(__file__).parent
#: The columns that hold a time, by table.
_TIMES = {
    "requests": ("received_at", "updated_at"),
    "effects": ("intended_at", "recorded_at"),
    "replays": ("pinned_at", "done_at", "arrived_at"),
    "turns": ("since",),
}
#: What the broker itself notes in a message's headers.
_HISTORY = ("x-death", "x-first-death", "x-last-death", "x-delivery-count")
#: A signed token, and what is recorded in its place.
_TOKEN, _NO_TOKEN = re.compile(r"eyJ[\w-]{20,}\.eyJ[\w-]{20,}\.[\w-]{20,}"), "<token>"
_DAY = 24 * 3600
#: The project of all requests that carry a token.
PROJECT = "tenant-a"
_PROPERTIES = (
    *("content_type", "content_encoding", "delivery_mode", "correlation_id", "reply_to"),
    *("message_id", "timestamp", "type", "app_id", "user_id"),
)


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording's folder, read."""

    folder: Path
    recorded_at: float
    requests: dict[str, Any]
    #: Who signs the tokens that the restored requests get.
    issuer: Issuer
    token: str

    @classmethod
    def read(cls, commit: str) -> "Recording":
        """The recording of a commit."""
        folder = RECORDINGS / commit
        requests = json.loads((folder / "requests.json").read_text())
        issuer = Issuer()
        # Older than any of the requests, and good for longer than the test takes.
        now = int(time.time())
        token = issuer.token(project=PROJECT, iat=now - _DAY, exp=now + _DAY)
        return cls(folder, requests["recorded_at"], requests, issuer, token)

    @property
    def later(self) -> float:
        """Seconds since it was recorded."""
        return time.time() - self.recorded_at

    def asked(self, group: str) -> list[Asked]:
        """The requests of a group, as the invariants' check takes them."""
        return [_asked(one) for one in self.requests["groups"][group]]

    def heard(self) -> list[Heard]:
        """Return what the requests' sender had heard when the earlier version ended."""
        return [
            Heard(
                Source(one["source"]),
                json.loads(one["raw"]),
                one["raw"].encode(),
                one["properties"],
                one["headers"],
                one["routing_key"],
                0.0,
            )
            for one in self.requests["heard"]
        ]

    def sent(self, group: str) -> list[tuple[str, str, str, str]]:
        """Exchange, routing key, body and message id of each request of a group."""
        found = [one["sent"] for one in self.requests["groups"][group]]
        return [
            (exchange, key, body.replace(_NO_TOKEN, self.token), message_id)
            for exchange, key, body, message_id in found
        ]

    def restore_journal(self, path: Path) -> None:
        """Write the journal to an SQLite file."""
        with sqlite3.connect(path) as journal:
            journal.executescript((self.folder / "journal.sql").read_text())
            for table, columns in _TIMES.items():
                for column in columns:
                    journal.execute(f"UPDATE {table} SET {column} = {column} + ?", [self.later])
        journal.close()

    def restore_cloud(self, cloud: SimulatedOpenStack) -> None:
        """Make a cloud what it was."""
        cloud.load(json.loads((self.folder / "cloud.json").read_text()), self.later)

    def restore_broker(self, broker: PrivateBroker, folder: Path) -> str:
        """Make a virtual host with the queues as they were, still without messages; its URL."""
        recorded = json.loads((self.folder / "broker.json").read_text())
        name = f"restored-{uuid.uuid4().hex[:8]}"
        kinds = {
            kind: [{**one, "vhost": name} for one in listed]
            for kind, listed in recorded["definitions"].items()
        }
        url = broker.add_vhost(name)
        path = folder / "definitions.json"
        path.write_text(json.dumps(kinds))
        broker.rabbitmqctl("import_definitions", str(path))
        return url

    def restore_messages(self, url: str, reply_to: str) -> int:
        """Put every message where it was, and return how many there are.

        Replies go to `reply_to`, for their sender's queue ended with it; what waits in a retry
        queue waits two seconds more.
        """
        messages = json.loads((self.folder / "broker.json").read_text())["messages"]
        connection = pika.BlockingConnection(pika.URLParameters(url))
        channel = connection.channel()
        channel.confirm_delivery()
        for one in messages:
            properties = dict(one["properties"])
            if "reply_to" in properties:
                properties["reply_to"] = reply_to
            headers = dict(one["headers"])
            # A dead letter stays as it is: by all of it an operator's command knows it again.
            if not one["queue"].endswith(".dead"):
                for times, name in ((properties, "timestamp"), (headers, "x-ecs-first-seen")):
                    if name in times:
                        times[name] += int(self.later)
            if ".retry." in one["queue"]:
                properties["expiration"] = "2000"
            found = pika.BasicProperties(headers=headers, **properties)
            channel.basic_publish(
                one["exchange"],
                one["routing_key"],
                one["body"].replace(_NO_TOKEN, self.token).encode(),
                found,
                mandatory=True,
            )
        connection.close()
        return len(messages)


def write_recording(
    folder: Path, *, journal: Path, broker: Mapping[str, Any], cloud: Any, requests: Any
) -> None:
    """Write a recording's files."""
    folder.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(f"file:{journal}?mode=ro", uri=True) as connection:
        (folder / "journal.sql").write_text("\n".join(connection.iterdump()) + "\n")
    connection.close()
    for name, value in (("broker", broker), ("cloud", cloud), ("requests", requests)):
        text = json.dumps(value, indent=1, ensure_ascii=False, sort_keys=name != "cloud")
        (folder / f"{name}.json").write_text(_TOKEN.sub(_NO_TOKEN, text) + "\n")


def take_messages(url: str, queues: list[str]) -> list[dict[str, Any]]:
    """Take every message out of these queues, without what the broker notes in them."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel, found = connection.channel(), []
    for queue in queues:
        while True:
            method, properties, body = channel.basic_get(queue, auto_ack=True)
            if method is None:
                break
            headers = properties.headers or {}
            given = {name: getattr(properties, name) for name in _PROPERTIES}
            found.append(
                {
                    "queue": queue,
                    "exchange": method.exchange,
                    "routing_key": method.routing_key,
                    "properties": {key: one for key, one in given.items() if one is not None},
                    "headers": {key: one for key, one in headers.items() if key not in _HISTORY},
                    "body": body.decode(),
                }
            )
    connection.close()
    return found


def described(one: Asked) -> dict[str, Any]:
    """A request as JSON values."""
    return {
        "kind": one.kind,
        "message_id": one.message_id,
        "code": one.code,
        "finals": [[kind, name, status] for (kind, name), status in one.finals.items()],
        "calls": list(one.calls),
        "actions": {server: list(actions) for server, actions in one.actions.items()},
        "is_order": one.is_order,
    }


def _asked(record: Mapping[str, Any]) -> Asked:
    return Asked(
        record["kind"],
        record["message_id"],
        lambda _: None,
        "",
        record["code"],
        {(kind, name): status for kind, name, status in record["finals"]},
        tuple(record["calls"]),
        record["actions"],
        is_order=record["is_order"],
    )
