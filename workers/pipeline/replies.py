"""Replies and other publications of the pipeline: results, status updates, retries and dead
letters.
"""

import asyncio
import hashlib
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import structlog

from handlers import tracing
from messages.commands import Operation
from messages.errors import Refused
from messages.results import Result
from messages.secrets import MASK, could_hold_secret, mask, mask_text
from messages.texts import terminal_safe
from messages.updates import wire_time
from messages.wire import MAX_BODY, encode, loads, named_ids
from workers.amqp.envelope import Envelope, Publication, Published
from workers.amqp.headers import (
    ATTEMPTS_HEADER,
    DEADLINE_HEADER,
    ERROR_CODE_HEADER,
    ERROR_HEADER,
    FAILED_AT_HEADER,
    FIRST_SEEN_HEADER,
    IDENTITY_HEADER,
    ORIGIN_HEADER,
    PROJECT_HEADER,
    PROVEN,
    REASON_HEADER,
    RENEWAL_HEADER,
    REPLAY_HEADER,
    REPLAY_ID_HEADER,
    REPLAYS_HEADER,
    RESUME_TOKEN_HEADER,
    RETRY_HEADER,
    ROUTING_KEY_HEADER,
    UNPROVEN,
    kept,
    trace,
)
from workers.amqp.names import Names
from workers.amqp.publisher import Publisher
from workers.amqp.renewal import renewal_of, times_returned
from workers.identity import NO_PROJECT
from workers.metrics import Metrics
from workers.pipeline.large_bodies import in_thread_if_large
from workers.pipeline.retry import MACHINE_TROUBLE
from workers.request import Request

log = structlog.get_logger()

_id_of = named_ids(UUID("6f1c1d0e-6f0a-5c55-9f0e-3d0c3e6b2a71"))
#: The broker calls a message that only a direct reply-to took unroutable.
_DIRECT_REPLY = "amq.rabbitmq.reply-to."
#: Seconds for which a requester's reply queue may refuse its results (it is full), or be away (its
#: node restarts), before they go to `ecs.results`.
REPLY_PATIENCE = 10.0
#: Seconds after which a reply queue that was away counts as any other, and how many are known.
_FORGOTTEN, _MOST_AWAY = 60.0, 1000
#: Seconds before a message that no queue took is published again, where a taker must exist.
_RETURNED_DELAY = 1.0
_MAX_ERROR = 500
_REPLAYED = frozenset({REPLAY_HEADER, REPLAY_ID_HEADER, REPLAYS_HEADER})
#: Commands; what else begins with `order.` is an order.
_OPERATIONS = frozenset(Operation)


@dataclass(slots=True, eq=False)
class _Away:
    """A reply queue that is not there, since when in monotonic time; one reply at a time tries it."""

    since: float
    trial: asyncio.Lock


class Replies:
    """Publishes at once; the returned awaitables end when the broker has confirmed. `on_returned`
    is called when a queue of the worker is not there, `on_dead_lettered` when a message is in
    `ecs.dead`.
    """

    def __init__(
        self,
        publisher: Publisher,
        names: Names,
        metrics: Metrics,
        on_returned: Callable[[], None],
        on_dead_lettered: Callable[[Envelope, Refused], None] = lambda *_: None,
    ) -> None:
        self._publisher = publisher
        self._names = names
        self._metrics = metrics
        self._on_returned = on_returned
        self._on_dead_lettered = on_dead_lettered
        #: Reply queues that are not there.
        self._away: dict[str, _Away] = {}

    def result(
        self, envelope: Envelope, operation: str, key: str, result: Result
    ) -> list[Awaitable[Any]]:
        """Publish a result to the requester. Copies with the same `key` share id and body."""
        body = encode(result.envelope())
        shared: dict[str, Any] = {
            "body": body,
            "message_id": _id_of(f"{key}|result"),
            "type": operation,
            "correlation_id": envelope.correlation_id or envelope.message_id,
            "headers": {"x-ecs-http-status": result.http, **trace(envelope.headers)},
        }
        published: list[Awaitable[Any]] = []
        is_order = operation.startswith("order.") and operation not in _OPERATIONS
        results = self._names.results_exchange
        reply_to = envelope.reply_queue
        if reply_to is not None:
            mandatory = not reply_to.startswith(_DIRECT_REPLY)
            reply = Publication(
                "", reply_to, mandatory=mandatory, patience=REPLY_PATIENCE, **shared
            )
            published.append(
                self._until_answered(
                    self._publish(reply),
                    reply,
                    envelope,
                    elsewhere=not (is_order or result.confidential),
                )
            )
        if is_order:
            published.append(
                self._must_arrive(Publication(results, operation, mandatory=True, **shared))
            )
        elif reply_to is None and not result.confidential:
            published.append(self._publish(Publication(results, operation, **shared)))
        return published

    def update(self, envelope: Envelope, body: Mapping[str, Any], key: str) -> Awaitable[Any]:
        """Publish a status update."""
        identity = (
            f"{key}|{body['resource']}|{body['id']}|{'final' if body['final'] else body['status']}"
        )
        return self._publish(
            Publication(
                self._names.status_exchange,
                f"{body['resource']}.{body['id']}",
                encode(body),
                message_id=_id_of(identity),
                type=body["operation"],
                correlation_id=envelope.correlation_id or envelope.message_id,
                headers=trace(envelope.headers) or None,
            )
        )

    async def retry(
        self, request: Request, delay: int, attempts: int, resume_token: str, *, reason: str
    ) -> None:
        """Have the message come back after `delay` seconds, without its secrets; the resume token
        stands for the JWT. `reason` is a word for the log.
        """
        envelope = request.envelope
        headers = {
            **kept(envelope.headers),
            RETRY_HEADER: str(delay),
            RESUME_TOKEN_HEADER: resume_token,
            ATTEMPTS_HEADER: attempts,
            FIRST_SEEN_HEADER: int(envelope.first_seen),
            ROUTING_KEY_HEADER: " ".join(envelope.routed_by),
            **_own_deadline(envelope),
        }
        body = await in_thread_if_large(
            len(envelope.body), lambda: encode(mask(dict(request.message)))
        )
        await self._must_arrive(
            again(envelope, self._names.retry_exchange, envelope.queue, body, headers)
        )
        self.retried(reason)
        log.info("request.rescheduled", reason=reason, seconds=delay, attempt=attempts)

    def retried(self, reason: str) -> None:
        """Count a request that is to be tried again."""
        self._metrics.retried(reason)

    async def renew(self, envelope: Envelope) -> None:
        """Publish a message to its own queue once more, as it is, secrets included: it lay there
        with them.
        """
        headers = {
            **kept(envelope.headers),
            ATTEMPTS_HEADER: envelope.attempts,
            # For workers of the version before, which know no renewal.
            ROUTING_KEY_HEADER: " ".join(envelope.routed_by),
            **_own_deadline(envelope),
            RENEWAL_HEADER: renewal_of(envelope),
        }
        if envelope.exchange != "" or not envelope.is_first:
            headers[FIRST_SEEN_HEADER] = int(envelope.first_seen)
        if envelope.resume_token is not None:
            headers[RESUME_TOKEN_HEADER] = envelope.resume_token
        await self._must_arrive(again(envelope, "", envelope.queue, envelope.body, headers))
        log.info(
            "message.renewed",
            queue=envelope.queue,
            returned=times_returned(envelope),
            times=envelope.renewals + 1,
        )

    async def publish_again(self, envelope: Envelope) -> None:
        """Publish a message as it came, to where it had been published."""
        headers = {**kept(envelope.headers), **_own_deadline(envelope)}
        await self._must_arrive(
            again(envelope, envelope.exchange, envelope.routing_key, envelope.body, headers)
        )

    async def dead_letter(
        self, envelope: Envelope, refused: Refused, *, proven: str | None = None
    ) -> None:
        """Put a message that cannot be handled where an operator finds it, without its secrets.

        `proven` is the project (or `NO_PROJECT`) in which it was proven who sent it, so that an
        operator who replays it need not answer for that; None: it was not.
        """
        try:
            publication = await self._dead_letter(envelope, refused, proven)
            await self._must_arrive(publication)
        except MACHINE_TROUBLE:
            raise
        except Exception:
            # Whatever it is that cannot be masked or written as AMQP: it must not be held for ever.
            log.exception("dead_letter.unforeseen", message_id=envelope.message_id)
            headers = {
                ERROR_CODE_HEADER: str(refused.code.wire),
                ORIGIN_HEADER: envelope.queue,
                FAILED_AT_HEADER: wire_time(),
            }
            body = without_content(envelope.body)
            bare = Publication(
                self._names.dead_exchange, envelope.queue, body, headers=headers, mandatory=True
            )
            await self._must_arrive(bare)
        self._metrics.event("dead_lettered")
        self._on_dead_lettered(envelope, refused)

    async def _dead_letter(
        self, envelope: Envelope, refused: Refused, proven: str | None
    ) -> Publication:
        # What was in no replay has no history of one, whatever its publisher wrote.
        is_replayed = envelope.resume_token is not None
        headers = {
            **{
                name: value
                for name, value in kept(envelope.headers).items()
                if name != REASON_HEADER and (is_replayed or name not in _REPLAYED)
            },
            ERROR_CODE_HEADER: str(refused.code.wire),
            **({REASON_HEADER: refused.reason} if refused.reason else {}),
            ERROR_HEADER: error_text(refused),
            ORIGIN_HEADER: envelope.queue,
            ROUTING_KEY_HEADER: " ".join(envelope.routed_by),
            FIRST_SEEN_HEADER: int(envelope.first_seen),
            ATTEMPTS_HEADER: envelope.attempts,
            FAILED_AT_HEADER: wire_time(),
            IDENTITY_HEADER: UNPROVEN if proven is None else PROVEN,
            # Always ours: a publisher's own header of this name must not stay.
            PROJECT_HEADER: proven or NO_PROJECT,
        }
        dead = self._names.dead_exchange
        if envelope.left_out is not None:
            left_out = encode({"bytes": envelope.left_out.size, "sha256": envelope.left_out.sha256})
            return replace(
                again(envelope, dead, envelope.queue, left_out, headers),
                content_type="application/json",
                content_encoding=None,
            )
        body = await in_thread_if_large(len(envelope.body), lambda: masked_body(envelope.body))
        return again(envelope, dead, envelope.queue, body, headers)

    async def _until_answered(
        self,
        published: "asyncio.Future[Published]",
        reply: Publication,
        envelope: Envelope,
        *,
        elsewhere: bool,
    ) -> None:
        """Await the confirm of the requester's queue, or that it takes nothing: the queue is the
        requester's, and holds up nobody else.

        `elsewhere`: what it refuses goes where it had gone without a `reply_to`. A queue that is not
        there may come back: that is awaited after the request has given its turn to another.
        """
        outcome = await published
        if outcome is Published.CONFIRMED:
            if self._away:
                self._away.pop(reply.routing_key, None)
        elif outcome is Published.RETURNED:
            came = time.monotonic()
            envelope.late.append(lambda: self._until_back(reply, came, elsewhere=elsewhere))
        else:
            await self._given_up("reply.refused", reply, elsewhere=elsewhere)

    async def _until_back(self, reply: Publication, since: float, *, elsewhere: bool) -> None:
        """Publish a reply again and again whose queue was not there, until it is or has been away
        for too long. A classic queue is away while its node restarts.

        Of the replies to one queue one is tried, and the others wait for its outcome: those of a
        requester that is gone for good wait together for no longer than the first.
        """
        queue, outcome = reply.routing_key, Published.RETURNED
        while outcome is Published.RETURNED:
            away = self._since_when_away(queue, since)
            async with away.trial:
                # Else another one's trial has found it back meanwhile.
                if self._away.get(queue) is away:
                    if time.monotonic() - min(since, away.since) > REPLY_PATIENCE:
                        break
                    await asyncio.sleep(_RETURNED_DELAY)
                outcome = await self._publish(reply)
                if outcome is not Published.RETURNED:
                    self._away.pop(queue, None)
        if outcome is not Published.CONFIRMED:
            event = "reply.refused" if outcome is Published.REFUSED else "reply.nobody_waits"
            await self._given_up(event, reply, elsewhere=elsewhere)

    def _since_when_away(self, queue: str, since: float) -> _Away:
        away = self._away.get(queue)
        if away is None or time.monotonic() - away.since > _FORGOTTEN:
            away = self._away[queue] = _Away(since, asyncio.Lock())
            if len(self._away) > _MOST_AWAY:
                del self._away[next(iter(self._away))]
        return away

    async def _given_up(self, event: str, reply: Publication, *, elsewhere: bool) -> None:
        log.info(
            event,
            reply_to=reply.routing_key,
            correlation_id=reply.correlation_id,
            result_id=reply.message_id,
        )
        if not elsewhere:
            return
        exchange, key = self._names.results_exchange, reply.type or ""
        await self._publish(
            replace(reply, exchange=exchange, routing_key=key, mandatory=False, patience=None)
        )

    def _publish(self, one: Publication) -> "asyncio.Future[Published]":
        """Publish; while tracing, with a span until the confirm. What a message causes continues its
        trace there; a dead letter keeps the headers that it came with.
        """
        if not tracing.is_on():
            return self._publisher.publish(one)
        about = {
            "messaging.system": "rabbitmq",
            "messaging.destination.name": one.exchange or "(reply queue)",
            "messaging.message.id": one.message_id,
            "messaging.operation.type": "send",
        }
        span = tracing.publication(f"{one.exchange or 'reply'} publish", about)
        if one.exchange != self._names.dead_exchange:
            one = replace(one, headers={**(one.headers or {}), **span.headers})
        published = self._publisher.publish(one)
        published.add_done_callback(lambda _: span.end())
        return published

    def _must_arrive(self, publication: Publication) -> Awaitable[Any]:
        return self._until_taken(self._publish(publication), publication)

    async def _until_taken(
        self, published: "asyncio.Future[Published]", publication: Publication
    ) -> None:
        """Publish until a queue has the message: the queue may have been deleted, and is declared
        again meanwhile.
        """
        while await published is Published.RETURNED:
            log.error(
                "publisher.no_queue",
                exchange=publication.exchange,
                routing_key=publication.routing_key,
            )
            self._on_returned()
            await asyncio.sleep(_RETURNED_DELAY)
            published = self._publish(publication)


def error_text(refused: Refused) -> str:
    """Return what an operator reads of a failure: text, reason and detail, without secrets."""
    described = (refused.code.text_for(refused.subject), refused.reason, refused.detail)
    error = "; ".join(part for part in described if part)
    # What is quoted of a message is its publisher's.
    return terminal_safe(mask_text(error)[:_MAX_ERROR])[:_MAX_ERROR]


def _own_deadline(envelope: Envelope) -> dict[str, int]:
    """Return a header for the deadline that an `expiration` is. The expiration is not kept: the
    message would end in a retry queue.
    """
    limit = envelope.deadline if envelope.expiration is not None else None
    return {DEADLINE_HEADER: math.ceil(limit)} if limit is not None else {}


def without_content(body: bytes) -> bytes:
    """Return what is kept of a body that must not be kept: its size in bytes and its SHA-256."""
    return encode({"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()})


def masked_body(body: bytes) -> bytes:
    """Return a body without its secrets; one that cannot be read stays as it is, unless it could
    hold a secret.

    Of one that is larger than any message may be only size and digest are kept.
    """
    if len(body) > MAX_BODY:
        return without_content(body)
    with suppress(ValueError, RecursionError):
        return encode(mask(loads(body.decode())))
    return encode({"masked": MASK, "bytes": len(body)}) if could_hold_secret(body) else body


def again(
    envelope: Envelope, exchange: str, key: str, body: bytes, headers: Mapping[str, Any]
) -> Publication:
    """Return the message for another publication, with its properties, where a taker must exist."""
    return Publication(
        exchange,
        key,
        body,
        headers=headers,
        mandatory=True,
        message_id=envelope.message_id,
        correlation_id=envelope.correlation_id,
        reply_to=envelope.reply_to,
        type=envelope.type,
        timestamp=envelope.timestamp,
        content_type=envelope.content_type,
        content_encoding=envelope.content_encoding,
        app_id=envelope.app_id,
        priority=envelope.priority,
    )
