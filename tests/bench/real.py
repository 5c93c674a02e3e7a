"""A list and a batch of a hundred servers on the real control plane, in turns with the same calls to
it made bare.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from statistics import median
from typing import Any

from requests.adapters import HTTPAdapter

from sandbox.control_plane import ControlPlane
from tests.bench.latency import Caller
from tests.bench.measure import Figures
from tests.bench.site import REBOOT, Bench
from tests.support.tenant import COMPUTE, VOLUME, Tenant

#: Servers; those of a page and of a batch at the most.
SERVERS = 100
TENANT = "tenant-b"
#: How often each is asked, in turns: what the machine does besides differs from call to call.
LISTS, BATCHES = 7, 2
#: As the worker asks for them: the newest first.
_PAGE = (
    f"/servers/detail?limit={SERVERS}&sort_key=created_at&sort_key=uuid&sort_dir=desc&sort_dir=asc"
)


def real(bench: Bench) -> Figures:
    """Return the seconds of `server.list` and of the slowest of its calls alone, and those from a
    batch of hard reboots to its answer, and of its calls alone, all POSTs at once.

    The control plane starts for it, unless `ECS_TEST_OPENSTACK_HOME` names one that runs; the
    project must be empty. The servers take some minutes.
    """
    url = bench.vhost()
    with ControlPlane() as cloud, closing(Tenant(cloud.clouds_yaml, TENANT)) as tenant:
        network = next(
            one.id for one in tenant.connection.network.networks() if one.name.startswith("tenant-")
        )
        ids = tenant.make_servers(SERVERS, networks=[{"uuid": network}])
        settings = bench.settings(url) | {
            "OS_CLIENT_CONFIG_FILE": str(cloud.clouds_yaml),
            "ECS_ADMIN_CLOUD": "admin",
        }
        with bench.worker("workers run", settings), Caller(url) as caller:
            bare = _Bare(tenant)
            return _lists(caller, bare) | _batches(caller, bare, ids)


class _Bare:
    """The same calls by the SDK's own sessions."""

    def __init__(self, tenant: Tenant) -> None:
        self._cloud, self._project_id = tenant.connection, tenant.project_id
        # As many connections as calls at once.
        http: Any = self._cloud.session.session
        http.mount("http://", HTTPAdapter(pool_maxsize=SERVERS))

    def page(self) -> list[Any]:
        """List the servers; the other methods are what a list needs besides."""
        return self._read(self._cloud.compute, _PAGE, "servers", microversion=COMPUTE)

    def ports(self) -> list[Any]:
        path = f"/ports?project_id={self._project_id}"
        return self._read(self._cloud.network, path, "ports")

    def volumes(self) -> list[Any]:
        path = "/volumes/detail"
        return self._read(self._cloud.block_storage, path, "volumes", microversion=VOLUME)

    def batch(self, ids: list[str]) -> None:
        """List the servers, then reboot all of these at once."""

        def reboot(server_id: str) -> None:
            path = f"/servers/{server_id}/action"
            answer = self._cloud.compute.post(path, json=REBOOT, microversion=COMPUTE)
            assert answer.status_code == 202, answer.text

        self.page()
        with ThreadPoolExecutor(SERVERS) as pool:
            list(pool.map(reboot, ids))

    def settle(self) -> None:
        """Wait until nothing is under way with any server."""
        limit = time.monotonic() + 600
        while any(one["OS-EXT-STS:task_state"] for one in self.page()):
            assert time.monotonic() < limit, "the servers are still busy"
            time.sleep(2)

    @staticmethod
    def _read(proxy: Any, path: str, name: str, **options: Any) -> list[Any]:
        answer = proxy.get(path, **options)
        assert answer.status_code == 200, answer.text
        found: list[Any] = answer.json()[name]
        return found


def _lists(caller: Caller, bare: _Bare) -> Figures:
    body = {"operation": "server.list", "tenant_id": TENANT, "pageSize": SERVERS}
    singly: list[Callable[[], object]] = [bare.page, bare.ports, bare.volumes]
    ours: list[float] = []
    alone: list[list[float]] = [[] for _ in singly]
    _ask(caller, "server.list", body)  # who the tenant is has been found out
    for _ in range(LISTS):
        ours.append(_ask(caller, "server.list", body))
        for call, seconds in zip(singly, alone, strict=True):
            seconds.append(_timed(call))
    return {"list": median(ours), "slowest": max(map(median, alone))}


def _batches(caller: Caller, bare: _Bare, ids: list[str]) -> Figures:
    servers = {**REBOOT["reboot"], "servers": [{"id": one} for one in ids]}
    body = {
        "operation": "server.batch_action",
        "tenant_id": TENANT,
        "body": {"reboot": servers},
    }
    ours, alone = [], []
    for _ in range(BATCHES):
        bare.settle()
        alone.append(_timed(lambda: bare.batch(ids)))
        bare.settle()
        ours.append(_ask(caller, "server.batch_action", body))
    bare.settle()  # what is under way with a server keeps it from being deleted
    return {"batch": median(ours), "bare_batch": median(alone)}


def _ask(caller: Caller, operation: str, body: Mapping[str, object]) -> float:
    """Return the seconds from publishing a command to its result."""
    name = caller.publish(operation, body)
    caller.take(len(caller.sent), 180)
    return caller.took[name]


def _timed(act: Callable[[], object]) -> float:
    begun = time.monotonic()
    act()
    return time.monotonic() - begun
