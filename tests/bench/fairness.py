"""A tenant's single requests beside another tenant's flood."""

import time
import uuid
from collections.abc import Callable
from statistics import median

from tests.bench.latency import Caller
from tests.bench.measure import Figures, percentile, preload, replies
from tests.bench.site import REBOOT, Bench, action, stub_nova

#: Seconds that each call to the cloud takes.
TAKES = 0.1
#: Requests of the flood, and of each kind on an idle worker.
FLOOD, IDLE = 5000, 20
STOP = {"os-stop": None}


def fairness(bench: Bench) -> Figures:
    """Ask an os-stop and a `server.list` in turns, of an idle worker and while the reboots of
    another tenant wait, all of which must be answered.

    `behind` is the number of reboots that were not answered when the last of these requests was.
    """
    url, number = bench.vhost(), max(int(FLOOD * bench.scale), 500)
    with (
        stub_nova(bench.folder, str(TAKES)) as (_, clouds_yaml),
        bench.worker(
            "workers run", bench.settings(url) | {"OS_CLIENT_CONFIG_FILE": str(clouds_yaml)}
        ),
        Caller(url) as caller,
        replies(url) as (queue, answered),
    ):

        def ask(operation: str, body: dict[str, object]) -> float:
            name = caller.publish(operation, body | {"tenant_id": "tenant-1"})
            caller.take(len(caller.sent), 60)
            return caller.took[name] * 1000

        def stop() -> float:
            return ask("server.action", action(str(uuid.uuid4()), STOP))

        def show() -> float:
            return ask("server.list", {"operation": "server.list"})

        stop(), show()  # it has logged in
        idle = _alternate(lambda done: done < IDLE, stop, show)
        reboots = [action(str(uuid.uuid4()), REBOOT) for _ in range(number)]
        begun = time.monotonic()
        preload(url, "ecs.commands", "server.action", reboots, reply_to=queue)
        beside = _alternate(lambda _: answered() < number * 0.9, stop, show)
        behind = number - answered()
        limit = time.monotonic() + 120
        while answered() < number:
            if time.monotonic() > limit:
                raise RuntimeError(f"only {answered()} of {number} reboots were answered")
            time.sleep(0.1)
        took = time.monotonic() - begun
    found: Figures = {"asked": float(len(beside[0])), "behind": float(behind), "flood": took}
    for name, alone, busy in zip(("stop", "list"), idle, beside, strict=True):
        found |= {
            f"{name}_idle": median(alone),
            name: median(busy),
            f"{name}_p90": percentile(busy, 0.9),
            f"{name}_worst": max(busy),
        }
    return found


def _alternate(
    goes_on: Callable[[int], bool], *ask: Callable[[], float]
) -> tuple[list[float], ...]:
    """Ask one after the other, again and again; return the milliseconds of each."""
    found: tuple[list[float], ...] = tuple([] for _ in ask)
    while goes_on(len(found[0])):
        for one, listed in zip(ask, found, strict=True):
            listed.append(one())
            time.sleep(0.05)
    return found
