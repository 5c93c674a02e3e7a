"""A private PgBouncer in front of a private PostgreSQL server."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Self

from sandbox.processes import PrivateServer, Server, free_ports, install_debian, listens

_CONFIGURATION = """\
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = {mode}
server_round_robin = {in_turn}
default_pool_size = {size}
"""


class PrivatePgBouncer(PrivateServer):
    """One pooler, from `start` to `stop`; a context manager. Who is on this machine may log in.

    `mode` is PgBouncer's `pool_mode`, `size` its sessions for a database and user. `in_turn`: the
    session that is free the longest is used next, not the one that was used last.
    """

    def __init__(self, server: int, mode: str, *, size: int = 20, in_turn: bool = False) -> None:
        """`server` is PostgreSQL's port."""
        install_debian(["pgbouncer"], lambda: _program() is not None, "PgBouncer")
        self._home = Path(tempfile.mkdtemp(prefix="ecs-pgbouncer-"))
        (self.port,) = free_ports(1)
        self._pooled = server
        self._size = size
        self._in_turn = in_turn
        self._server: Server | None = None
        self._write(mode)

    def _write(self, mode: str) -> None:
        users = self._home / "users"
        users.write_text('"postgres" ""\n')
        file = self._home / "pgbouncer.ini"
        file.write_text(
            _CONFIGURATION.format(
                server=self._pooled,
                port=self.port,
                users=users,
                mode=mode,
                in_turn=int(self._in_turn),
                size=self._size,
            )
        )
        if os.geteuid() == 0:  # it does not run as root
            for one in (self._home, users, file):
                shutil.chown(one, "postgres", "postgres")

    def url_of(self, url: str) -> str:
        """The SQLAlchemy URL of a database of the server, by way of the pooler."""
        return url.replace(f":{self._pooled}/", f":{self.port}/")

    def start(self) -> Self:
        """Start it; a tenth of a second."""
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        command = [str(_program()), str(self._home / "pgbouncer.ini")]
        command = [*as_user, *command] if os.geteuid() == 0 else command
        self._server = Server(command, Path(f"{self._home}.log"))
        self._server.wait_until(lambda: listens(self.port), 10, "PgBouncer")
        return self

    def change_mode(self, mode: str) -> None:
        """Start it again, with another `pool_mode`."""
        assert self._server is not None
        self._server.stop()
        self._write(mode)
        self.start()

    def stop(self) -> None:
        """Stop it and remove its folder."""
        if self._server is not None:
            self._server.stop()
        shutil.rmtree(self._home, ignore_errors=True)
        Path(f"{self._home}.log").unlink(missing_ok=True)


def _program() -> str | None:
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
