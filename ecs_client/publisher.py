"""Publishes with confirms, and finds the reply to each command.

The confirms are counted here: py-amqp takes any ack as the answer to the last publication.
"""

import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ecs_client.address import Brokers
from ecs_client.errors import (
    BrokerRefused,
    BrokerUnavailable,
    ClientClosed,
    EcsError,
    NoAnswer,
    Unroutable,
)
from ecs_client.link import Link
from messages.record import record

log = logging.getLogger("ecs_client")

#: Seconds after which a publication that is not confirmed is published anew, on a new channel.
_CONFIRMED_WITHIN = 5.0
_PUBLISH = (60, 40)
_NOT_FOUND = 404
_AGAIN = "asking again with the same message_id is safe"
_NOBODY = "is the namespace right, and has a worker ever run there? Nothing was done"


@record
class Answer:
    """A reply as it came."""

    body: bytes = field(repr=False)
    headers: Mapping[str, Any]


Finish = Callable[[Answer | None, Exception | None], None]


@dataclass(slots=True, eq=False)
class Publication:
    """A message on its way: published, confirmed and, where a reply is wanted, answered.

    `take_by` and `answer_by` are monotonic: when the broker must have confirmed it, and when its
    answer must be there. `finish` is called once, in the link's thread.
    """

    exchange: str
    routing_key: str
    body: bytes = field(repr=False)
    message_id: str
    headers: Mapping[str, Any]
    finish: Finish = field(repr=False)
    take_by: float
    answer_by: float
    wants_reply: bool = True
    #: Unique; the correlation id of what wants a reply.
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    #: 0: never.
    sent_at: float = 0.0
    is_confirmed: bool = False
    is_finished: bool = False
    refusal: EcsError | None = None


class Publisher(Link):
    """The link for commands, their replies, and orders."""

    def __init__(self, brokers: Brokers) -> None:
        super().__init__(brokers)
        #: All that are not finished, in the order in which they came.
        self._open: dict[str, Publication] = {}
        #: Those of them that are to be published, by their keys.
        self._waiting: OrderedDict[str, Publication] = OrderedDict()
        self._unconfirmed: dict[int, Publication] = {}
        self._tag = 0
        self._channel: Any = None
        self._reply_to = ""
        self._next_sweep = float("inf")

    def publish(self, publication: Publication) -> None:
        """Publish a message; from any thread."""
        self.start()
        self.post(lambda: self._accept(publication))

    def forget(self, publication: Publication) -> None:
        """Give a message up: its reply is dropped when it comes; from any thread."""

        def give_up() -> None:
            if not publication.is_finished:
                self._end(publication)

        self.post(give_up)

    # The link's thread.

    def set_up(self, connection: Any) -> tuple[Any, str]:
        """Open a channel with confirms, and a reply queue of this connection's own."""
        channel = self._confirming(connection.channel())
        replies = connection.channel()
        replies.auto_decode = False
        name = f"ecs-client.{uuid.uuid4().hex}"
        replies.queue_declare(name, exclusive=True, auto_delete=True)

        def cancelled(_: str) -> None:
            raise ConnectionError("the broker took the reply queue away")

        replies.basic_consume(name, no_ack=True, callback=self._on_reply, on_cancel=cancelled)
        return channel, name

    def connected(self, prepared: tuple[Any, str]) -> None:
        self._channel, self._reply_to = prepared
        self._tag = 0
        self.unblocked()

    def lost(self) -> None:
        """Everything that is unanswered is published once more: a worker answers what it knows."""
        self._channel = None
        self._unconfirmed.clear()
        self._waiting = OrderedDict(self._open)

    def unblocked(self) -> None:
        while self._waiting and self.may_publish:
            self._send(self._waiting.popitem(last=False)[1])

    def refused(self) -> None:
        """End what was never sent: it would wait for somebody who mends the settings. The rest may
        still be answered.
        """
        for one in list(self._open.values()):
            if not one.sent_at:
                self._finish(one, None, self._not_taken(one))

    def channel_failed(self, channel: int, error: Exception) -> None:
        """Refuse what the broker closed the channel for; publish the rest anew."""
        if self._channel is None or channel != self._channel.channel_id:
            raise error
        reason = str(getattr(error, "reply_text", error))
        text = f"the broker refused it: {reason}"
        if getattr(error, "reply_code", None) == _NOT_FOUND:
            text += f"; {_NOBODY}"
        pending = list(self._unconfirmed.values())
        if meant := [one for one in pending if _is_named(one, reason)]:
            for one in meant:
                self._finish(one, None, Unroutable(text, one.message_id))
        else:
            # It may be another's fault. Each time one goes, so it comes to an end.
            for one in pending[:1]:
                self._finish(one, None, BrokerUnavailable(f"{text}; {_AGAIN}", one.message_id))
        self._renew(self._channel)

    def sweep(self, now: float) -> float:
        if now < self._next_sweep:
            return self._next_sweep
        following, is_stuck = float("inf"), False
        for one in list(self._open.values()):
            limit = one.answer_by if one.is_confirmed else min(one.take_by, one.answer_by)
            if now >= limit:
                self._finish(one, None, self._too_late(one))
            following = min(following, limit)
        for one in self._unconfirmed.values():
            stuck_at = one.sent_at + _CONFIRMED_WITHIN
            if not one.is_finished and now >= stuck_at and not self.is_blocked:
                is_stuck = True
            following = min(following, max(stuck_at, now + 1.0))
        self._next_sweep = following
        if is_stuck:
            self._guard(self._replace_channel)
        return self._next_sweep

    def stopped(self) -> None:
        error = ClientClosed("the client was closed before the answer came")
        for one in list(self._open.values()):
            self._finish(one, None, error)

    def _accept(self, publication: Publication) -> None:
        if self.is_stopped:
            publication.finish(None, ClientClosed("the client is closed"))
            return
        if self.is_refused:
            publication.finish(None, self._not_taken(publication))
            return
        self._open[publication.key] = publication
        self._next_sweep = min(self._next_sweep, publication.take_by, publication.answer_by)
        if self.may_publish and not self._waiting:
            self._guard(lambda: self._send(publication))
        else:
            self._waiting[publication.key] = publication

    def _send(self, publication: Publication) -> None:
        before = len(self._out)
        try:
            self._write_publication(publication)
        except Exception as error:
            if len(self._out) != before or self._channel.connection is None:
                raise
            # Nothing was written, and writing is but packing: the fault is the message's. The text
            # of the error may hold a header's value.
            kind = type(error).__name__
            text = f"the message cannot be written: AMQP cannot say one of its properties ({kind})"
            self._finish(publication, None, ValueError(text))
            return
        self._tag += 1
        self._unconfirmed[self._tag] = publication
        publication.refusal = None  # of an earlier time: it may have a taker by now
        publication.sent_at = time.monotonic()
        self._next_sweep = min(self._next_sweep, publication.sent_at + _CONFIRMED_WITHIN)

    def _write_publication(self, publication: Publication) -> None:
        properties = {
            "delivery_mode": 2,
            "message_id": publication.message_id,
            "timestamp": int(time.time()),
        }
        if publication.wants_reply:
            properties |= {"correlation_id": publication.key, "reply_to": self._reply_to}
        message = self._channel.prepare_message(
            publication.body,
            content_type="application/json",
            content_encoding="utf-8",
            headers=publication.headers,
            properties=properties,
        )
        # Mandatory. py-amqp's own basic_publish reads from the socket each time.
        arguments = (0, publication.exchange, publication.routing_key, True, False)
        self._channel.send_method(_PUBLISH, "Bssbb", arguments, message)

    def _confirming(self, channel: Any) -> Any:
        channel.confirm_select()
        channel.auto_decode = False
        for name, handler in (
            ("basic_ack", self._on_ack),
            ("basic_nack", self._on_nack),
            ("basic_return", self._on_return),
        ):
            channel.events[name].add(handler)
        return channel

    def _renew(self, channel: Any) -> None:
        """Publish what is not confirmed once more, on a channel whose tags count from 1."""
        again = [one for one in self._unconfirmed.values() if not one.is_finished]
        self._unconfirmed.clear()
        self._tag = 0
        self._channel = None
        self._channel = self.rpc(channel, lambda: self._confirming(channel))
        self._waiting = OrderedDict((one.key, one) for one in again) | self._waiting
        self.unblocked()

    def _replace_channel(self) -> None:
        """Give up a channel whose confirms do not come: a later one must not count for an earlier
        publication.
        """
        log.warning("ecs_client: the broker does not confirm; its channel is opened anew")
        stuck, connection = self._channel, self.connection
        self.rpc(stuck, stuck.close)
        self._renew(self.rpc(None, connection.channel))

    def _on_ack(self, tag: int, multiple: bool) -> None:
        for one in self._settled(tag, multiple):
            one.is_confirmed = True
            if one.refusal is not None:
                self._finish(one, None, one.refusal)
            elif not one.wants_reply:
                self._finish(one, Answer(b"", {}), None)

    def _on_nack(self, tag: int, multiple: bool) -> None:
        for one in self._settled(tag, multiple):
            text = f"the broker refused the message (a queue is full, or fails); {_AGAIN}"
            self._finish(one, None, BrokerUnavailable(text, one.message_id))

    def _settled(self, tag: int, multiple: bool) -> list[Publication]:
        unconfirmed = self._unconfirmed
        if not multiple:
            one = unconfirmed.pop(tag, None)
            return [] if one is None else [one]
        tags = []
        for earlier in unconfirmed:  # in the order of the tags
            if earlier > tag:
                break
            tags.append(earlier)
        return [unconfirmed.pop(one) for one in tags]

    def _on_return(self, error: Exception, exchange: str, routing_key: str, message: Any) -> None:
        """Note that nobody takes it; the ack that follows ends it."""
        properties = message.properties
        text = f"no queue takes {routing_key} from {exchange}; {_NOBODY}"
        for one in self._unconfirmed.values():
            is_meant = one.key == properties.get("correlation_id") or not one.wants_reply
            if is_meant and one.message_id == properties.get("message_id"):
                one.refusal = Unroutable(text, one.message_id)

    def _on_reply(self, message: Any) -> None:
        properties = message.properties
        one = self._open.get(properties.get("correlation_id"))
        if one is None or not one.wants_reply:  # late, or a second one
            return
        body = message.body
        answer = Answer(
            body if isinstance(body, bytes) else bytes(body, "utf-8"),
            properties.get("application_headers") or {},
        )
        self._finish(one, answer, None)

    def _finish(self, one: Publication, answer: Answer | None, error: Exception | None) -> None:
        if one.is_finished:
            return
        self._end(one)
        one.finish(answer, error)

    def _end(self, one: Publication) -> None:
        """Hold the body no longer: a confirm may take the broker as long as it likes."""
        one.is_finished = True
        one.body = b""
        self._open.pop(one.key, None)
        self._waiting.pop(one.key, None)

    def _too_late(self, one: Publication) -> EcsError:
        if not one.is_confirmed:
            return self._not_taken(one)
        text = f"no answer came in time; {_AGAIN}, and gets the one result"
        if self.connection is None:
            text += f" ({self.problem})"
        return NoAnswer(text, one.message_id)

    def _not_taken(self, one: Publication) -> BrokerUnavailable:
        is_unsent = not one.sent_at
        is_away = self.connection is None or self.is_blocked
        problem = self.problem if is_away else "the broker did not confirm the message"
        kind = BrokerRefused if self.is_refused else BrokerUnavailable
        text = f"{problem}; {'nothing was sent' if is_unsent else _AGAIN}"
        return kind(text, one.message_id, is_unsent=is_unsent)


def _is_named(one: Publication, reason: str) -> bool:
    """Tell whether the broker closed the channel for this publication. Others that it has taken
    before may not be confirmed yet: they are not to be told that nothing was done.
    """
    if "topic '" in reason:  # which the user may not publish
        return f"topic '{one.routing_key}' in exchange '{one.exchange}'" in reason
    return f"'{one.exchange}'" in reason or f"message size {len(one.body)} " in reason
