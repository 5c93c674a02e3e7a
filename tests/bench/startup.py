"""A worker that is started and is idle: how soon it consumes, and its memory."""

import time

import psutil

from tests.bench.measure import Figures
from tests.bench.site import Bench


def startup(bench: Bench) -> Figures:
    """Measure the second start: the first one migrates the journal, which takes time and memory once
    in a version's life. The HTTP port is off.

    `memory` is that of the worker as soon as it consumes; `memory_logged_in` after the service
    account's first calls.
    """
    settings = bench.settings(bench.vhost())
    with bench.worker("workers run", settings):
        pass
    with bench.worker("workers run", settings) as (server, seconds):
        memory = psutil.Process(server.pid).memory_info
        found = {"seconds": seconds, "memory": memory().rss / 1e6}
        time.sleep(3)
        return found | {"memory_logged_in": memory().rss / 1e6}
