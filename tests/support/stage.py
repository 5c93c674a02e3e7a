"""Holds what fault tests have in common."""

from typing import Any

from sandbox.requester import Requester
from sandbox.worker import WorkerProcess
from tests.support.dying_worker import Hold, settings_for
from tests.support.names import INPUT_QUEUES
from tests.support.waiting import eventually
from tests.support.workshop import Workshop


def dying(
    workshop: Workshop,
    holds: list[Hold],
    *,
    stay: bool = False,
    constants: dict[str, Any] | None = None,
    cloud: dict[str, Any] | None = None,
    module: str = "tests.support.dying_worker",
    **settings: str,
) -> WorkerProcess:
    """A worker that is held at the instants of these requests, and then kills itself, or stays."""
    told = settings_for(holds, stay=stay, constants=constants, cloud=cloud)
    return workshop.worker(module=module, **told, **settings)


def await_held(workshop: Workshop, worker: WorkerProcess | None = None) -> None:
    """Wait until all are held; of a worker that kills itself then, until it is dead."""
    missing = workshop.folder / "missing"
    try:
        eventually((workshop.folder / "held").exists, 120)
        if worker is not None:
            eventually(lambda: not worker.alive)
    except AssertionError:
        raise AssertionError(
            f"not held: {missing.read_text() if missing.exists() else 'anybody'}"
        ) from None


def settled(workshop: Workshop, requester: Requester) -> None:
    """Wait until the worker that runs has nothing left, and drain it: what it leaves in a queue was
    not acked.
    """
    # What has come again a moment ago is not begun by a worker that is to end.
    eventually(
        lambda: (
            not any(requester.depth(queue) for queue in INPUT_QUEUES)
            and "ecs_in_flight 0.0" in workshop.running.metrics()
        ),
        60,
    )
    assert workshop.running.terminate() == 0
    requester.listen(0.5)
    assert {queue: requester.depth(queue) for queue in INPUT_QUEUES} == dict.fromkeys(
        INPUT_QUEUES, 0
    )
