"""The least that a consumer can do with pika alone: validate, answer, await the confirm, ack.

BENCH_BROKER is the AMQP URL, BENCH_QUEUE the queue. What a whole worker costs is compared with it.
"""

import asyncio
import json
import os
import time
import uuid
from itertools import takewhile
from typing import Any

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from pydantic import BaseModel, ValidationError

#: As the worker's default.
PREFETCH = 500
_OK = json.dumps({"code": 200, "message": "OK", "data": None}).encode()


class Action(BaseModel):
    operation: str
    tenant_id: str
    server_id: uuid.UUID
    body: dict[str, Any]


class Echo:
    """Consumes on one channel of a connection and answers on another, with confirms."""

    def __init__(self, url: str, queue: str) -> None:
        self._queue = queue
        #: Delivery tags by the number of the answer, until that is confirmed.
        self._unconfirmed: dict[int, int] = {}
        self._published = 0
        self._answers: Any = None
        self._deliveries: Any = None
        #: Set when the connection has ended.
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        AsyncioConnection(
            pika.URLParameters(url),
            on_open_callback=lambda one: one.channel(on_open_callback=self._answers_open),
            on_close_callback=lambda *_: self.closed.set_result(None),
        )

    def _answers_open(self, channel: Any) -> None:
        self._answers = channel
        # An answer that nobody takes is returned, and confirmed all the same.
        channel.add_on_return_callback(lambda *_: None)
        channel.confirm_delivery(
            self._confirmed,
            callback=lambda _: channel.connection.channel(on_open_callback=self._deliveries_open),
        )

    def _deliveries_open(self, channel: Any) -> None:
        self._deliveries = channel
        channel.basic_qos(
            prefetch_count=PREFETCH,
            callback=lambda _: channel.basic_consume(self._queue, self._delivered),
        )

    def _delivered(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        try:
            Action.model_validate_json(body)
        except ValidationError:
            channel.basic_reject(method.delivery_tag, requeue=False)
            return
        self._published += 1
        self._unconfirmed[self._published] = method.delivery_tag
        answer = pika.BasicProperties(
            content_type="application/json",
            delivery_mode=2,
            correlation_id=properties.correlation_id or properties.message_id,
            message_id=uuid.uuid4().hex,
            timestamp=int(time.time()),
        )
        self._answers.basic_publish("", properties.reply_to, _OK, answer, mandatory=True)

    def _confirmed(self, frame: Any) -> None:
        number, is_ack = frame.method.delivery_tag, isinstance(frame.method, pika.spec.Basic.Ack)
        unconfirmed = self._unconfirmed
        several = takewhile(lambda one: one <= number, unconfirmed)
        for one in list(several) if frame.method.multiple else [number]:
            delivery = unconfirmed.pop(one)
            if is_ack:
                self._deliveries.basic_ack(delivery)
            else:
                self._deliveries.basic_nack(delivery)


async def _main() -> None:
    await Echo(os.environ["BENCH_BROKER"], os.environ["BENCH_QUEUE"]).closed


if __name__ == "__main__":
    asyncio.run(_main())
