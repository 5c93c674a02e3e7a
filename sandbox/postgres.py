"""A private PostgreSQL server: a free port, its own folder."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from sandbox.processes import PrivateServer, SandboxError, Server, free_ports, install_debian

_HOMES = "/usr/lib/postgresql"


def _tool(name: str) -> str | None:
    found = sorted(Path(_HOMES).glob(f"*/bin/{name}")) if Path(_HOMES).exists() else []
    return str(found[-1]) if found else shutil.which(name)


class PrivatePostgres(PrivateServer):
    """One server, from `start` to `stop`; a context manager. Who is on this machine may log in: it
    holds nothing.
    """

    def __init__(self) -> None:
        install_debian(["postgresql"], lambda: _tool("initdb") is not None, "PostgreSQL")
        self._home = Path(tempfile.mkdtemp(prefix="ecs-postgres-"))
        #: Its port of 127.0.0.1.
        (self.port,) = free_ports(1)
        self._server: Server | None = None
        # It does not run as root.
        self._as_user: list[str] = []
        self._give_away(self._home)
        if os.geteuid() == 0:
            self._as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of its first database."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """The SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"

    def add_database(self, name: str, encoding: str = "UTF8") -> str:
        """Make a database of this encoding and return its URL."""
        kind = (
            []
            if encoding == "UTF8"
            else ["--template=template0", "--locale=C", f"--encoding={encoding}"]
        )
        self._run(
            "createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", *kind, name
        )
        return self.url_of(name)

    def start(self) -> Self:
        """Make the database, unless it is there, and start it; three seconds."""
        data = self._home / "data"
        if not data.exists():
            self._run(
                "initdb", "--pgdata", str(data), "--username=postgres", "--auth=trust", "--no-sync"
            )
        options = ["-p", str(self.port), "-c", "listen_addresses=127.0.0.1", "-k", str(self._home)]
        command = [*self._as_user, _required("postgres"), "-D", str(data), *options]
        self._server = Server(command, Path(f"{self._home}.log"))
        self._server.wait_until(self._is_ready, 30, "PostgreSQL")
        return self

    def standby(self) -> "PrivatePostgres":
        """Make a standby of it, not started yet: `start` has it follow this server."""
        made = PrivatePostgres()
        made._run(
            "pg_basebackup",
            *("-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres"),
            *("--pgdata", str(made._home / "data"), "--write-recovery-conf"),
            *("--checkpoint=fast", "--no-sync"),
        )
        return made

    def promote(self) -> None:
        """Have a standby become a primary, and wait until it is one."""
        self._run("pg_ctl", "promote", "-w", "--pgdata", str(self._home / "data"))

    def execute(self, *statements: str) -> None:
        """Execute statements as its superuser, each by itself."""
        for one in statements:
            self._run(
                "psql",
                *("-h", str(self._home), "-p", str(self.port), "-U", "postgres", "-qAt"),
                *("-v", "ON_ERROR_STOP=1", "-c", one),
            )

    def configure(self, **settings: str) -> None:
        """Change settings that need no restart."""
        self.execute(
            *(f"ALTER SYSTEM SET {name} = '{value}'" for name, value in settings.items()),
            "SELECT pg_reload_conf()",
        )

    def speak_tls(self, certificate: Path, key: Path, ca: Path) -> None:
        """Have it speak TLS from the next connection on, with this certificate, and check clients'
        by this CA.
        """
        for file, name in ((certificate, "server.crt"), (key, "server.key"), (ca, "ca.crt")):
            copy = self._home / "data" / name
            copy.unlink(missing_ok=True)
            copy.touch(0o600)
            copy.write_bytes(file.read_bytes())
            self._give_away(copy)
        self.configure(ssl="on", ssl_ca_file="ca.crt")

    def let_in(self, *lines: str) -> None:
        """Let in whom these lines of pg_hba.conf let in, and its superuser by its own socket."""
        file = self._home / "data" / "pg_hba.conf"
        file.write_text("".join(f"{one}\n" for one in ("local all all trust", *lines)))
        self._run("pg_ctl", "reload", "--pgdata", str(self._home / "data"))

    def restart(self) -> None:
        """Stop it and start it again with its data."""
        assert self._server is not None
        self._server.stop()
        self.start()

    def stop_immediately(self) -> None:
        """Stop without a checkpoint, as an operator in a hurry does: it recovers at its next start."""
        self._run("pg_ctl", "stop", "-m", "immediate", "-w", "--pgdata", str(self._home / "data"))

    def kill(self) -> None:
        """SIGKILL; its data stay."""
        assert self._server is not None
        self._server.kill()

    def stop(self) -> None:
        """Stop it and remove its folder."""
        if self._server is not None:
            self._server.stop()
        shutil.rmtree(self._home, ignore_errors=True)
        Path(f"{self._home}.log").unlink(missing_ok=True)

    @staticmethod
    def _give_away(path: Path) -> None:
        if os.geteuid() == 0:
            shutil.chown(path, "postgres", "postgres")

    def _is_ready(self) -> bool:
        command = [_required("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0

    def _run(self, tool: str, *arguments: str) -> None:
        command = [*self._as_user, _required(tool), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self._home, check=False)
        if done.returncode:
            raise SandboxError(f"{tool}: {done.stderr.strip()[-300:]}")


def _required(tool: str) -> str:
    found = _tool(tool)
    if found is None:
        raise SandboxError(f"{tool} is missing: install postgresql")
    return found
