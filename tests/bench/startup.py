"""A worker that is started and is idle: how soon it consumes, and its memory."""

import time

import psutil

from tests.bench.measure import Figures
from tests.bench.site import Bench


def startup(bench: Bench) -> Figures:
    """Measure the second start: the first one migrates the journal, which takes time and memory once
    in a version's life. The HTTP port is off; OpenStack has not been called.
    """
    settings = bench.settings(bench.vhost())
    with bench.worker("workers run", settings):
        pass
    with bench.worker("workers run", settings) as (server, seconds):
        time.sleep(2)
        return {"seconds": seconds, "memory": psutil.Process(server.pid).memory_info().rss / 1e6}
