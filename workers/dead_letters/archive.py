"""The archive: what was discarded or edited, without secrets, and putting it back into `ecs.dead`."""

import asyncio
import base64
import json
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from messages.record import record
from workers.amqp.envelope import Publication, Published
from workers.amqp.headers import kept
from workers.amqp.publisher import Publisher
from workers.dead_letters.dead_letter import RESTORED_HEADER, DeadLetter
from workers.dead_letters.reader import NO_CONNECTION, Unreachable
from workers.journal import Actor, Archived, Journal
from workers.journal.operators import storable
from workers.pipeline.replies import masked_body
from workers.settings import Settings

DISCARDED, EDITED = "discarded", "edited"
#: The properties that a message keeps, beside its headers.
PROPERTIES = (
    "message_id",
    "correlation_id",
    "reply_to",
    "type",
    "timestamp",
    "content_type",
    "content_encoding",
    "app_id",
    "priority",
)
#: Messages that are published and recorded together.
_GROUP = 100


def archived_letter(
    letter: DeadLetter,
    operator: Actor,
    *,
    kind: str,
    archive_id: str,
    batch: str | None = None,
    why: str | None = None,
    edited: bytes | None = None,
) -> Archived:
    """Return what the archive keeps of a dead letter. No secret should be in it; it is masked once
    more.
    """
    envelope = letter.envelope
    message = {
        "exchange": envelope.exchange,
        "routing_key": envelope.routing_key,
        "properties": {name: getattr(envelope, name) for name in PROPERTIES},
        "headers": kept(envelope.headers),
    }
    return Archived(
        id=archive_id,
        kind=kind,
        batch=batch,
        archived_at=time.time(),
        operator=storable(operator.name),
        real_user=operator.real_user,
        why=storable(why, 2000) or None,
        name=storable(letter.key) or None,
        message_id=storable(letter.id) or None,
        operation=storable(letter.operation)[:64] or None,
        tenant=storable(letter.proven_project or letter.tenant) or None,
        origin=storable(letter.origin),
        code=letter.cause.code or "",
        reason=letter.reason,
        error=storable(letter.error, 600) or None,
        failed_at=storable(letter.failed_at)[:40],
        message=json.dumps(message, default=_to_json),
        body=masked_body(envelope.body),
        edited=edited,
    )


def restored_publication(archived: Archived, restored: str) -> Publication:
    """Return the publication that puts a message of the archive into `ecs.dead` again, as it was:
    `restored` tells it from the one that was discarded.
    """
    message = json.loads(archived.message, object_hook=_from_json)
    return Publication(
        message["exchange"],
        message["routing_key"],
        bytes(archived.body),
        headers={**message["headers"], RESTORED_HEADER: restored},
        mandatory=True,
        **{name: message["properties"].get(name) for name in PROPERTIES},
    )


@record
class Restoration:
    """The number of messages that are in `ecs.dead` again, and that the broker did not take."""

    restored: int
    refused: int


async def restore(
    settings: Settings, journal: Journal, operator: Actor, archived: Sequence[Archived]
) -> Restoration:
    """Put messages of the archive into `ecs.dead` again. Raises `Unreachable`, `JournalError`.

    ORDER: published and confirmed before it is recorded. After a crash in between a message that is
    restored again is there twice, and replays of both are the same request.
    """
    publisher = Publisher(settings.broker)
    publisher.open()
    restored = 0
    try:
        for begin in range(0, len(archived), _GROUP):
            group = archived[begin : begin + _GROUP]
            published = {
                publisher.publish(restored_publication(one, f"{one.id}@{int(time.time())}")): one.id
                for one in group
            }
            done, missing = await asyncio.wait(published, timeout=NO_CONNECTION)
            taken = [published[one] for one in done if one.result() is Published.CONFIRMED]
            await journal.restored(taken, operator, settings.names.namespace)
            restored += len(taken)
            if missing:
                raise Unreachable(
                    f"the broker did not confirm: {restored} of {len(archived)} are restored"
                )
    finally:
        await publisher.close()
    return Restoration(restored, len(archived) - restored)


def document(archived: Archived) -> dict[str, Any]:
    """Return a message of the archive as JSON, whole: what `dead export` writes."""
    message = json.loads(archived.message)
    return {
        "archive": archived.id,
        "kind": archived.kind,
        "batch": archived.batch,
        "id": archived.message_id,
        "key": archived.name,
        "operation": archived.operation,
        "tenant": archived.tenant,
        "code": archived.code,
        "reason": archived.reason,
        "error": archived.error,
        "origin": archived.origin,
        "failed_at": archived.failed_at,
        **message,
        "body": readable_body(archived.body),
        **({"edited": readable_body(archived.edited)} if archived.edited is not None else {}),
    }


def readable_body(body: bytes) -> Any:
    """Return a body as JSON, without secrets; as a text where it is none."""
    masked = masked_body(bytes(body))
    try:
        return json.loads(masked)
    except (ValueError, RecursionError):
        return masked.decode("utf-8", "backslashreplace")


def _to_json(value: Any) -> Any:
    """Write a header's value as JSON that keeps its type: headers have times and bytes, too."""
    if isinstance(value, datetime):
        return {"$time": value.isoformat()}
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    return str(value)


def _from_json(value: dict[str, Any]) -> Any:
    if value.keys() == {"$time"}:
        return datetime.fromisoformat(value["$time"])
    if value.keys() == {"$bytes"}:
        return base64.b64decode(value["$bytes"])
    return value
