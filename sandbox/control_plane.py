"""The real OpenStack control plane of `tests/openstack/ministack`: installed once, started afresh,
then taken away.
"""

import contextlib
import fcntl
import hashlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self

from sandbox.processes import PrivateServer, SandboxError, one_at_a_time

_TOOL = Path(__file__).parents[1] / "tests" / "openstack" / "ministack" / "ministack"
#: The usual ports of the services that the tool moves by an offset.
_PORTS = (5000, 9292, 8778, 8774, 9696, 8776, 3306, 5672, 5673, 4369, 6080)
#: First those that keep below the ports of `sandbox.processes.free_ports`; all keep below those
#: that the kernel hands out.
_OFFSETS = (500, 1_000, 1_500, 2_000, *range(10_000, 23_000, 500))


class ControlPlane(PrivateServer):
    """Keystone, Nova, Glance, Neutron, Cinder and Placement themselves, from `start` to `stop`; a
    context manager.

    The software is installed once, into the user's cache folder; every start has databases of its
    own. With `ECS_TEST_OPENSTACK_HOME` a control plane that already runs in that folder is used,
    and left running.
    """

    def __init__(self) -> None:
        if not _TOOL.exists():
            raise SandboxError(
                "the real control plane is in the source repository: run `make demo OPENSTACK=real` there"
            )
        given = os.environ.get("ECS_TEST_OPENSTACK_HOME")
        self._given = given is not None
        self._home = Path(given) if given else Path(tempfile.mkdtemp(prefix="ecs-openstack-"))
        #: Held while the ports at the offset are ours, though nobody may listen yet.
        self._reservation: IO[str] | None = None
        if self._given:
            self._offset = os.environ.get("MINISTACK_PORT_OFFSET", "20000")
        else:
            self._offset, self._reservation = _free_offset()
        self._keeper: subprocess.Popen[bytes] | None = None
        # What somebody else put in force in a control plane that already runs is not known.
        self._has_faults = self._given

    @property
    def clouds_yaml(self) -> Path:
        """The clouds: `ecs-worker` (the service account), `admin`, `tenant-a`, `tenant-b`."""
        return self._home / "clouds.yaml"

    @property
    def log(self) -> Path:
        """The output of the start."""
        return self._home / "keeper.log"

    def start(self) -> Self:
        """Install it, unless it is, and start it; a minute, two more the first time.

        One waits for another that starts: both together would take the time that each is given.
        """
        if self._given:
            return self
        installed = install()
        with one_at_a_time("openstack"):
            try:
                self._start(installed)
            except SandboxError as error:
                # On a machine with too much other work a service may be late.
                print(f"{error}; once more ...", file=sys.stderr, flush=True)
                self._end_keeper()
                self._home.mkdir(exist_ok=True)
                self._start(installed)
        return self

    def _start(self, installed: Path) -> None:
        (self._home / "venv").symlink_to(installed / "venv")
        with self.log.open("wb") as log:
            self._keeper = subprocess.Popen(
                [sys.executable, "-m", "sandbox.keeper", str(_TOOL), str(self._home)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                env=self._environment() | {"PYTHONPATH": str(Path(__file__).parents[1])},
            )
        assert self._keeper.stdout is not None
        if self._keeper.stdout.readline() != b"ready\n":
            said = self.log.read_text(errors="replace")[-1500:] if self.log.exists() else ""
            raise SandboxError(f"the control plane does not start: {said}")

    def stop(self) -> None:
        """Stop it and remove its folder, unless it was there before."""
        self._end_keeper()
        if self._reservation is not None:
            self._reservation.close()

    def _end_keeper(self) -> None:
        if self._keeper is not None and self._keeper.stdin is not None:
            self._keeper.stdin.close()
            self._keeper.wait(120)
            self._keeper = None

    def fault(self, point: str, **rule: Any) -> None:
        """Put a rule in force: `match`, `error`, `status`, `delay`, `times`; the tool's README
        lists the points.
        """
        self._has_faults = True
        self.command(
            "fault",
            point,
            *(word for name, value in rule.items() for word in (f"--{name}", str(value))),
        )

    def clear_faults(self) -> None:
        """Forget all rules."""
        if self._has_faults:
            self.command("fault", "--clear")
            self._has_faults = False

    @contextmanager
    def keeping_deleted_servers(self, seconds: int = 3600) -> Iterator[None]:
        """Inside it a server that is deleted is kept for so long (Nova's
        `reclaim_instance_interval`).

        Only Nova's API is told, in some seconds: the hypervisor, which is not, reclaims nothing.
        """
        override = self._home / "override" / "nova.conf"
        before = override.read_text() if override.exists() else ""
        override.parent.mkdir(exist_ok=True)
        override.write_text(f"{before}\n[DEFAULT]\nreclaim_instance_interval = {seconds}\n")
        try:
            self.command("restart", "nova-api")
            yield
        finally:
            override.write_text(before)
            self.command("restart", "nova-api")

    def override(self, name: str, text: str | None, *services: str) -> None:
        """Append a text to one of the configuration files (None: no longer), and restart these
        services.
        """
        path = self._home / "override" / name
        path.parent.mkdir(exist_ok=True)
        if text is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(text)
        self.command("restart", *services)

    def command(self, *words: str) -> str:
        """The output of one of the tool's commands: stop, start, kill, pause, resume, restart,
        fault.
        """
        done = subprocess.run(
            [sys.executable, str(_TOOL), *words],
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode:
            raise SandboxError(
                f"ministack {' '.join(words)}: {(done.stderr or done.stdout).strip()[-500:]}"
            )
        return done.stdout

    def _environment(self) -> dict[str, str]:
        return os.environ | {
            "MINISTACK_HOME": str(self._home),
            "MINISTACK_PORT_OFFSET": self._offset,
        }


def install() -> Path:
    """The folder with the installed services; made under the name of what is pinned and of the
    interpreter that runs this, so that a change is a new one.
    """
    pinned = b"".join(
        (_TOOL.parent / name).read_bytes() for name in ("requirements.txt", "constraints.txt")
    )
    pinned += f"{sys.base_prefix} {sys.version}".encode()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ecs-worker"
    home = cache / f"openstack-{hashlib.sha256(pinned).hexdigest()[:12]}"
    marker = home / "installed"
    if not marker.exists():
        home.mkdir(parents=True, exist_ok=True)
        print(
            "installing the OpenStack control plane, some two minutes ...",
            file=sys.stderr,
            flush=True,
        )
        with (home / "install.log").open("wb") as log:
            done = subprocess.run(
                [sys.executable, str(_TOOL), "install"],
                env=os.environ | {"MINISTACK_HOME": str(home)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=False,
            )
        if done.returncode:
            said = (home / "install.log").read_text(errors="replace")[-1500:]
            raise SandboxError(
                f"the control plane cannot be installed (see {home / 'install.log'}): {said}"
            )
        marker.touch()
    return home


def _free_offset() -> tuple[str, IO[str]]:
    """Return an offset at which none of the ports is taken, and a lock that reserves it."""
    for offset in _OFFSETS:
        name = f"ecs-openstack-{os.geteuid()}-{offset}.lock"
        lock = Path(tempfile.gettempdir(), name).open("w")  # noqa: SIM115 - held by the caller
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if all(_is_free(port + offset) for port in _PORTS):
                return str(offset), lock
        lock.close()
    raise SandboxError("no free range of ports for the control plane")


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


if __name__ == "__main__":
    install()
