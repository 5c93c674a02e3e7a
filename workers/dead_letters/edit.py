"""Changing the body of a dead letter before its replay."""

import asyncio
import contextlib
from dataclasses import replace
from uuid import uuid4

from messages.errors import Refused
from messages.record import record
from messages.secrets import MASK, mask, mask_text
from messages.wire import decode, encode
from workers.amqp.consumer import Delivery
from workers.amqp.envelope import Publication, Published
from workers.amqp.headers import IDENTITY_HEADER, PROVEN
from workers.amqp.publisher import Publisher
from workers.bootstrap import own_region
from workers.dead_letters.archive import EDITED as EDITED_KIND
from workers.dead_letters.archive import archived_letter
from workers.dead_letters.dead_letter import (
    EDITED,
    EDITED_HEADER,
    DeadLetter,
    identity_of,
    renewed_publication,
    replayed_envelope,
)
from workers.dead_letters.engine import Access, audit
from workers.dead_letters.reader import NO_CONNECTION, Reader, Unreachable
from workers.journal import Actor
from workers.pipeline.exits import Ignored, Rejected
from workers.pipeline.parsing import parse
from workers.pipeline.replies import error_text
from workers.settings import ConfigurationError, Settings


class EditRefused(Exception):
    """The edit is not made; the text is one line that says why and what to do."""


@record
class Edit:
    """An edit that may be made: the dead letter as it is, and as it would be. `archive_id` is where
    the original is kept.
    """

    letter: DeadLetter
    edited: DeadLetter
    archive_id: str
    publication: Publication


async def check_edit(settings: Settings, letter: DeadLetter, body: bytes) -> Edit:
    """Return the edit that puts this body into a dead letter. Raises `EditRefused` where a worker
    would refuse the message for its form, where it holds a secret, or where nothing changes.
    """
    try:
        message = decode(body, None, None)
    except Refused as refused:
        raise EditRefused(f"the new body cannot be used: {error_text(refused)}") from None
    if (secret := _first_secret(message, "")) is not None:
        raise EditRefused(
            f"the new body holds a secret ({secret}): none is kept in a queue; leave it as"
            f" {MASK}, or have the publisher send the message anew"
        )
    encoded = encode(message)
    envelope = letter.envelope
    archive_id = str(uuid4())
    edited = replace(
        envelope,
        body=encoded,
        content_type="application/json",
        content_encoding=None,
        headers={
            **envelope.headers,
            EDITED_HEADER: archive_id,
            # Its sender has proven who he is, but not that he asks for this.
            **(
                {IDENTITY_HEADER: EDITED} if envelope.headers.get(IDENTITY_HEADER) == PROVEN else {}
            ),
        },
    )
    if _is_same(encoded, envelope.body):
        raise EditRefused("nothing was done: the new body is the same")
    region: str | None = None
    # Where it is not known, any region is right: the dry run of the replay says what is wrong.
    with contextlib.suppress(ConfigurationError):
        region = await asyncio.to_thread(own_region, settings)
    try:
        parse(replayed_envelope(edited, "?"), region)
    except Rejected as rejected:
        why = error_text(rejected.refused)
        raise EditRefused(f"a worker would refuse the new body: {why}") from None
    except Ignored as ignored:
        raise EditRefused(
            f"a worker would ignore the new body: orderStatus {ignored.status!r} asks for nothing"
        ) from None
    as_edited = DeadLetter.of(edited)
    if as_edited.hindrance is not None:
        raise EditRefused(f"it could not be replayed: {as_edited.hindrance}")
    return Edit(letter, as_edited, archive_id, renewed_publication(edited))


async def make_edit(access: Access, edit: Edit, operator: Actor, why: str | None) -> None:
    """Put the edited message into the place of the original. Raises `EditRefused` where that is in
    `ecs.dead` no more, `Unreachable`, `NotDeclared`, `JournalError`.

    ORDER: the original is in the archive before the edited one is published, and is acked once the
    broker has confirmed that. After a crash in between both are there: with one key, a replay of
    the second is refused.
    """
    settings, identity = access.settings, edit.letter.identity
    found: list[Delivery] = []

    def note(delivery: Delivery) -> None:
        if identity_of(delivery.envelope) == identity:
            found.append(delivery)

    reader = Reader(settings.broker, settings.names, note)
    await reader.open()
    publisher = Publisher(settings.broker)
    publisher.open()
    acked: set[Delivery] = set()
    try:
        await reader.wait()
        held = [one for one in found if not one.lost]
        if not held:
            raise EditRefused("nothing was done: the message is in the queue no more")
        original = archived_letter(
            edit.letter,
            operator,
            kind=EDITED_KIND,
            archive_id=edit.archive_id,
            why=why,
            edited=edit.edited.envelope.body,
        )
        await access.journal.archive([original])
        target = edit.letter.key or edit.letter.id
        await audit(
            settings,
            "dead edit",
            operator,
            target=target,
            reason=why,
            details={"archive": edit.archive_id},
        )
        published = publisher.publish(edit.publication)
        done, _ = await asyncio.wait([published], timeout=NO_CONNECTION)
        if not done or published.result() is not Published.CONFIRMED:
            raise Unreachable("the broker did not confirm the edited message; the original stays")
        held[0].settle()
        acked.add(held[0])
    finally:
        await publisher.close()
        await reader.close(acked.__contains__)


def _is_same(body: bytes, other: bytes) -> bool:
    try:
        return body == encode(decode(other, None, None))
    except Refused:
        return False


def _first_secret(value: object, path: str) -> str | None:
    """Return the path of the first value that is masked wherever a message is kept; None where
    there is none.
    """
    if isinstance(value, dict):
        for name, inner in value.items():
            here = f"{path}.{name}" if path else str(name)
            if isinstance(inner, (dict, list)) and mask({name: inner})[name] != MASK:
                found = _first_secret(inner, here)
            else:
                found = here if mask({name: inner}) != {name: inner} else None
            if found is not None:
                return mask_text(found)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            if (found := _first_secret(inner, f"{path}[{number}]")) is not None:
                return found
    elif mask(value) != value:
        return path or "a text"
    return None
