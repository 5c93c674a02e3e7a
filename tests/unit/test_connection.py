"""The broker's URL is read in one way, by whichever library."""

import inspect

import pytest
from kombu import Connection
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.adapters.base_connection import BaseConnection
from pika.adapters.utils.io_services_utils import _AsyncTransportBase as Transport
from pika.connection import Connection as PikaConnection
from pika.heartbeat import HeartbeatChecker

from workers.amqp.broker import Broker
from workers.amqp.connection import CoalescingConnection, parameters


@pytest.mark.parametrize(
    "tail", ["", "/", "//", "/%2F", "/shop", "/a%2Fb", "//?heartbeat=7", "/%2F?heartbeat=7"]
)
def test_the_virtual_host_is_what_kombu_reads(tail: str) -> None:
    url = f"amqp://u:p%40ss@127.0.0.1:5672{tail}"
    broker = Broker(url)
    found, known = parameters(broker, broker.targets()[0], "test"), Connection(url)
    assert found.virtual_host == (known.virtual_host or "/")
    assert found.credentials.password == known.password == "p@ss"
    assert found.heartbeat == (7 if "heartbeat" in tail else 15)


@pytest.mark.parametrize(
    ("owner", "name", "caller", "call"),
    [
        (
            BaseConnection,
            "_on_data_available",
            "_proto_data_received",
            "self._on_data_available(data)",
        ),
        (PikaConnection, "_process_frame", "_on_data_available", "self._process_frame("),
        (PikaConnection, "_read_frame", "_read_frame", "decode_frame(self._frame_buffer)"),
        (PikaConnection, "_trim_frame_buffer", "_trim_frame_buffer", "self.bytes_received += "),
        (
            PikaConnection,
            "_adapter_emit_data",
            "_output_marshaled_frames",
            "self._adapter_emit_data(",
        ),
        (
            PikaConnection,
            "_create_heartbeat_checker",
            "_on_connection_tune",
            "self._create_heartbeat_checker()",
        ),
        (
            BaseConnection,
            "_proto_connection_made",
            "_proto_connection_made",
            "self._transport = transport",
        ),
        (Transport, "_consume", "_consume", "self._MAX_RECV_BYTES)"),
        (Transport, "_consume", "_consume", "bytes_consumed < self._MAX_CONSUME_BYTES"),
        (Transport, "_produce", "_produce", "self._sock"),
        (Transport, "get_write_buffer_size", "get_write_buffer_size", ""),
        (PikaConnection, "_terminate_stream", "_on_stream_terminated", ""),
        (AsyncioConnection, "_adapter_emit_data", "_adapter_emit_data", "self._transport.write("),
        (HeartbeatChecker, "_start_check_timer", "__init__", "self._start_check_timer()"),
        (HeartbeatChecker, "_start_check_timer", "_start_check_timer", "self._check_interval"),
        (HeartbeatChecker, "_start_check_timer", "__init__", "self._timeout = timeout"),
    ],
)
def test_pika_calls_the_private_names_that_are_used(
    owner: type, name: str, caller: str, call: str
) -> None:
    """Decision 24: an update of pika must not switch a protection off silently."""
    assert callable(getattr(owner, name))
    assert call in inspect.getsource(getattr(owner, caller))


def test_what_is_overridden_takes_the_same_parameters_as_in_pika() -> None:
    for name in ("_on_data_available", "_create_heartbeat_checker", "_adapter_emit_data"):
        ours = inspect.signature(getattr(CoalescingConnection, name))
        assert list(ours.parameters) == list(
            inspect.signature(getattr(AsyncioConnection, name)).parameters
        )
