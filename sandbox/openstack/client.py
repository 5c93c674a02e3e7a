"""Starting a simulated cloud, and pulling its strings."""

import json
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from sandbox.openstack.state import PASSWORD
from sandbox.processes import PrivateServer, SandboxError, Server, free_ports, listens

#: The entries of clouds.yaml: who logs in, and to which project at first.
_CLOUDS = {
    "ecs-worker": ("ecs-worker", "tenant-a"),
    "admin": ("admin", "admin"),
    "tenant-a": ("user-a", "tenant-a"),
    "tenant-b": ("user-b", "tenant-b"),
    "almighty": ("almighty", "tenant-a"),
}


class SimulatedOpenStack(PrivateServer):
    """A cloud in a process of its own, from `start` to `stop`; a context manager. `port` is one of
    127.0.0.1, a free one where none is given.

    `pace` stretches (above 1) or shortens what takes time; `region` is what its catalogue calls it,
    and clouds.yaml; of several, separated by commas, clouds.yaml has the first.
    """

    def __init__(
        self, pace: float = 1.0, region: str = "RegionOne", port: int | None = None
    ) -> None:
        self._region = region
        self._home = Path(tempfile.mkdtemp(prefix="ecs-openstack-"))
        self.port = port or free_ports(1)[0]
        self._pace = pace
        self._server: Server | None = None

    @property
    def url(self) -> str:
        """The URL of the simulated cloud."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        """True while its process runs."""
        return self._server is not None and self._server.alive

    @property
    def clouds(self) -> list[str]:
        """The entries of `clouds_yaml`."""
        return list(_CLOUDS)

    @property
    def clouds_yaml(self) -> Path:
        """The clouds: `ecs-worker` (the service account), `admin`, `tenant-a`, `tenant-b`,
        `almighty`.
        """
        return self._home / "clouds.yaml"

    def start(self) -> Self:
        """Start it and wait until it answers; a second. Raises `SandboxError`."""
        if listens(self.port):
            raise SandboxError(f"port {self.port} is in use; choose another one")
        self.clouds_yaml.write_text(
            json.dumps({"clouds": {name: self._cloud(*who) for name, who in _CLOUDS.items()}})
        )
        self.clouds_yaml.chmod(0o600)
        command = [
            sys.executable,
            "-m",
            "sandbox.openstack",
            str(self.port),
            str(self._pace),
            self._region,
        ]
        self._server = Server(command, self._home / "openstack.log")
        self._server.wait_until(lambda: listens(self.port), 20, "the simulated OpenStack")
        return self

    def stop_server(self) -> None:
        """Stop answering; `start` begins again, on the same port, with a new world."""
        if self._server is not None:
            self._server.stop()

    def stop(self) -> None:
        """Stop it; all that was in it is gone."""
        self.stop_server()
        shutil.rmtree(self._home, ignore_errors=True)

    def fault(self, point: str, **rule: Any) -> None:
        """Put a rule in force (`sandbox.openstack.faults.Rule`)."""
        self._control("POST", "faults", {"point": point, **rule})

    def be_without(self, *extensions: str, **newest: str) -> None:
        """Have no such extensions of Neutron, and no newer microversions than these of `nova` and
        `cinder`.

        It is over with `clear_faults`.
        """
        self._control("POST", "without", {"extensions": extensions, "newest": newest})

    def clear_faults(self, points: str = "") -> None:
        """Forget all rules, or those of points that begin so."""
        self._control("DELETE", f"faults?points={points}")

    @contextmanager
    def keeping_deleted_servers(self, seconds: int = 3600) -> Iterator[None]:
        """Inside it a server that is deleted is kept for so long (Nova's
        `reclaim_instance_interval`).
        """
        self._control("POST", "reclaim-interval", {"seconds": seconds})
        try:
            yield
        finally:
            self._control("POST", "reclaim-interval", {"seconds": 0})

    def trace_contexts(self) -> list[str]:
        """The header `traceparent` of every call that had one."""
        listed: list[str] = json.loads(self._control("GET", "traces"))
        return listed

    def calls(self) -> list[str]:
        """Every call since the start: `SERVICE METHOD PATH`."""
        listed: list[str] = json.loads(self._control("GET", "calls"))
        return listed

    def executed(self) -> list[str]:
        """Every call that changed something: `SERVICE METHOD PATH`, and the word that the body
        begins with.
        """
        listed: list[str] = json.loads(self._control("GET", "executed"))
        return listed

    def save(self) -> Any:
        """Everything in it as JSON values, once nothing is under way."""
        return json.loads(self._control("GET", "world"))

    def load(self, world: Any, later: float = 0.0) -> None:
        """Be what was saved; all times are `later` seconds later."""
        self._control("PUT", "world", {"world": world, "later": later})

    def _control(self, method: str, what: str, body: Any = None) -> bytes:
        request = urllib.request.Request(
            f"{self.url}/_sandbox/{what}",
            method=method,
            data=json.dumps(body).encode() if body else None,
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            answer: bytes = response.read()
        return answer

    def _cloud(self, user: str, project: str) -> dict[str, Any]:
        auth = {
            "auth_url": f"{self.url}/identity/v3",
            "username": user,
            "password": PASSWORD,
            "project_name": project,
            "user_domain_id": "default",
            "project_domain_id": "default",
        }
        return {"auth": auth, "region_name": self._region.partition(",")[0]}
