"""`ecs-worker run` that writes down each message's way: `python -m tests.trace.worker run`.

Nothing in the worker knows of it. A profile function sees every function of the product that is
entered in a message's own context: its task, tasks made by it, calls to OpenStack in threads. What
goes out is seen where it leaves: SQL statements of the journal, HTTP requests, AMQP methods. Shared
threads and timers (the journal's writer, heartbeats, the health server) belong to no message.

Messages must come one after another: what the journal's writer does is put down to the message that
is under way. For each message a line of JSON, once it is acked, is appended to `ECS_TRACE_FILE`.
"""

import json
import os
import re
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from pathlib import Path
from types import CodeType, FrameType
from typing import Any
from urllib.parse import urlsplit

from requests.adapters import HTTPAdapter
from sqlalchemy import Engine, event

from handlers.openstack.http_client import HttpClient
from workers.amqp.consumer import Consumer, Delivery, _ConsumedQueue
from workers.amqp.publisher import Lane
from workers.amqp.send_queue import Entry
from workers.cli import main as work

_ROOT = f"{Path(__file__).parents[2]}/"
_PRODUCT = tuple(f"{_ROOT}{folder}/" for folder in ("messages", "handlers", "workers"))
#: What is no function that somebody wrote.
_UNNAMED = frozenset({"<module>", "<lambda>", "<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>"})
#: Takes what comes off the wire; the way begins where a delivery is handed on.
_CONSUMER = "workers/amqp/"
#: What is replaced by what: ids, names of queues, dates.
_VARYING = (
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<id>"),
    (r"req-<id>", "<request id>"),
    (r"\b(requester-)?[0-9a-f]{32}\b(-replies)?", "<id>"),
    (r"\b\d{18}\b", "<id>"),
)
_WRITE = re.compile(r"(INSERT INTO|UPDATE|DELETE FROM) (\w+)")


class Recorder:
    """Holds what happened to the message that is under way, in order."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._context: ContextVar[str | None] = ContextVar("traced", default=None)
        self._entered: set[CodeType] = set()
        #: The message that came last and is not acked.
        self._message: str | None = None
        self._events: list[dict[str, Any]] = []

    def profile(self, frame: FrameType, what: str, _: Any) -> None:
        """Called by the interpreter; a function counts where it is entered for the first time."""
        code = frame.f_code
        if what != "call" or code in self._entered or not code.co_filename.startswith(_PRODUCT):
            return
        if self._context.get() is None or code.co_name in _UNNAMED:
            return
        self._entered.add(code)
        file = code.co_filename.removeprefix(_ROOT)
        if self._events or not file.startswith(_CONSUMER):
            self._events.append({"file": file, "function": code.co_qualname})

    def delivered(self, message_id: str, take: Callable[[], None]) -> None:
        """A message has come; `take` is what the worker does with it."""
        self._message = message_id
        self._entered.clear()
        self._events = []
        context = copy_context()
        context.run(self._context.set, message_id)
        context.run(take)

    def outside(self, kind: str, text: str) -> None:
        """Something leaves the process, or is read from outside."""
        if self._message is None:
            return
        for pattern, name in _VARYING:
            text = re.sub(pattern, name, text)
        self._events.append({"kind": kind, "text": text})

    @property
    def is_open(self) -> bool:
        """True while a message is under way."""
        return self._message is not None

    def acked(self) -> None:
        """The message has been settled: its line is written."""
        line = json.dumps({"message": self._message, "events": self._events})
        with self._target.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        self._message = None


def _watch_broker(recorder: Recorder) -> None:
    make, send, flush = Consumer.__init__, Lane._send, _ConsumedQueue.flush

    def watched(
        consumer: Any, where: Any, consuming: Any, take: Any, *rest: Any, **more: Any
    ) -> None:
        def deliver(delivery: Delivery) -> None:
            message_id = delivery.envelope.message_id
            assert message_id is not None
            recorder.delivered(message_id, lambda: take(delivery))

        make(consumer, where, consuming, deliver, *rest, **more)

    def traced_send(lane: Lane, channel: Any, entry: Entry) -> None:
        exchange, key = entry.publication.exchange, entry.publication.routing_key
        recorder.outside(
            "broker",
            f"publish {key} to {exchange}" if exchange else "publish the answer to `reply_to`",
        )
        send(lane, channel, entry)

    def traced_flush(consumed: Any) -> None:
        flush(consumed)
        if recorder.is_open:
            recorder.outside("broker", "ack")
            recorder.acked()

    Consumer.__init__ = watched  # type: ignore[method-assign]
    Lane._send = traced_send  # type: ignore[method-assign]
    _ConsumedQueue.flush = traced_flush  # type: ignore[method-assign]


def _watch_cloud(recorder: Recorder) -> None:
    send, submit, call = HTTPAdapter.send, ThreadPoolExecutor.submit, HttpClient.call

    def traced_send(adapter: Any, request: Any, *rest: Any, **more: Any) -> Any:
        recorder.outside("cloud", f"{request.method} {urlsplit(request.url).path}")
        return send(adapter, request, *rest, **more)

    async def traced_call(client: Any, origin: Any, request: bytes, *rest: Any) -> Any:
        method, target, _ = request.decode("latin-1").split(" ", 2)
        recorder.outside("cloud", f"{method} {urlsplit(target).path}")
        return await call(client, origin, request, *rest)

    def in_context(pool: Any, function: Any, /, *rest: Any, **more: Any) -> Any:
        return submit(pool, copy_context().run, function, *rest, **more)

    HTTPAdapter.send = traced_send  # type: ignore[assignment,method-assign]
    HttpClient.call = traced_call  # type: ignore[assignment,method-assign]
    ThreadPoolExecutor.submit = in_context  # type: ignore[method-assign]


def _watch_journal(recorder: Recorder) -> None:
    @event.listens_for(Engine, "before_cursor_execute")
    def execute(_c: Any, _r: Any, statement: str, values: Any, _x: Any, many: bool) -> None:
        found = _WRITE.match(statement)
        # The worker's heartbeat belongs to no message.
        if found and found[2] != "workers":
            for row in values if many else (values,):
                recorder.outside("journal", _named(found[1], found[2], statement, row))


def _named(verb: str, table: str, statement: str, row: tuple[Any, ...]) -> str:
    """The write in words: an effect by its name, a request by its new state."""
    if table == "effects" and verb == "INSERT INTO":
        return f"effects: {row[0]}, {'intent' if row[3] is None else 'value'}"
    if table == "effects":
        return f"effects: {row[4]}, outcome"
    state = re.search(r"SET state = '(\w+)'", statement)
    return f"{table}: {state[1] if state else verb.partition(' ')[0].lower()}"


def main() -> None:
    """Run the command line, watched."""
    recorder = Recorder(Path(os.environ["ECS_TRACE_FILE"]))
    _watch_broker(recorder)
    _watch_cloud(recorder)
    _watch_journal(recorder)
    threading.setprofile(recorder.profile)
    sys.setprofile(recorder.profile)
    work()


if __name__ == "__main__":
    main()
