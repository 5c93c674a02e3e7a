"""The same jobs in Celery: threads, acks_late, quorum queue, confirmed publishing, rpc backend."""

import os
from functools import cache
from typing import Any

from celery import Celery
from kombu import Exchange, Queue

QUEUE = "bench"

app = Celery("bench", broker=os.environ["BENCH_BROKER"], backend="rpc://")
app.conf.update(
    task_queues=[
        Queue(QUEUE, Exchange(QUEUE, "direct"), QUEUE, queue_arguments={"x-queue-type": "quorum"})
    ],
    task_default_queue=QUEUE,
    task_acks_late=True,
    broker_transport_options={"confirm_publish": True},
    worker_detect_quorum_queues=True,
    worker_prefetch_multiplier=16,
    result_persistent=True,
    task_serializer="json",
    accept_content=["json"],
    broker_connection_retry_on_startup=True,
)

_OK = {"code": 200, "message": "OK", "data": None}


def echo(_message: dict[str, Any]) -> dict[str, Any]:
    """Answers at once."""
    return _OK


@cache
def connection() -> Any:
    """A warm connection, shared by the threads."""
    import openstack  # noqa: PLC0415

    return openstack.connect(cloud="ecs-worker")


def act(message: dict[str, Any]) -> dict[str, Any]:
    """A reboot with the SDK's own helpers."""
    compute = connection().compute
    server = compute.get_server(message["server_id"])
    if server.status != "ACTIVE" or server.task_state is not None:
        return {"code": "101.001012", "message": "", "data": None}
    compute.reboot_server(server, message["body"]["reboot"]["type"])
    return _OK


app.task(name="echo")(echo)
app.task(name="server.action")(act)
