"""A private RabbitMQ node: free ports, its own folder, its own epmd, its own cookie."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sandbox.processes import (
    PrivateServer,
    SandboxError,
    Server,
    free_ports,
    install_debian,
    listens,
)

#: Debian's wrapper in /usr/sbin would change the user; these do not.
_HOMES = ("/usr/lib/rabbitmq/bin", "/opt/homebrew/sbin", "/usr/local/sbin")
_USER, _PASSWORD = "guest", "guest"
#: Seconds for an administrator's command, and for its connection to the node.
_LIMIT, _CONNECTS = 120.0, 30.0


def program(name: str) -> str | None:
    """The path of one of RabbitMQ's programs, or None where it is missing."""
    # Another RabbitMQ than Debian's: a folder with programs of these names.
    if (other := os.environ.get("ECS_SANDBOX_RABBITMQ")) is not None:
        return f"{other}/{name}" if os.access(f"{other}/{name}", os.X_OK) else None
    for home in _HOMES:
        if os.access(f"{home}/{name}", os.X_OK):
            return f"{home}/{name}"
    return shutil.which(name)


@dataclass(frozen=True, slots=True)
class TlsListener:
    """A second listener, for TLS: the node's certificate with its key, and the CA of clients'
    certificates.

    `asks_for_certificate`: a client without one is turned away.
    """

    certificate: Path
    key: Path
    ca: Path
    asks_for_certificate: bool = False
    #: Where it listens, besides 127.0.0.1.
    addresses: Sequence[str] = ()


class PrivateBroker(PrivateServer):
    """One RabbitMQ node, from `start` to `stop`; a context manager. Its data live as long as the
    object.
    """

    def __init__(self, tls: TlsListener | None = None) -> None:
        self.install()
        self._tls = tls
        self._home = Path(tempfile.mkdtemp(prefix="ecs-broker-"))
        self._home.chmod(0o700)
        self.port, self.tls_port, self._dist_port, self._epmd_port = free_ports(4)
        self._node = f"ecs{self.port}@localhost"
        self.host = "127.0.0.1"
        #: Words before each of its commands.
        self._inside: list[str] = []
        self._epmd: Server | None = None
        self._server: Server | None = None

    @staticmethod
    def install() -> None:
        """Install RabbitMQ unless it is there; `SandboxError` says what to install where we may
        not.
        """
        install_debian(
            ["rabbitmq-server"], lambda: program("rabbitmq-server") is not None, "RabbitMQ"
        )

    @property
    def url(self) -> str:
        """The AMQP URL of the node's default virtual host."""
        return self.url_of("/")

    def url_of(self, vhost: str) -> str:
        """The AMQP URL of a virtual host."""
        return f"amqp://{_USER}:{_PASSWORD}@{self.host}:{self.port}/{vhost}"

    def tls_url_of(self, vhost: str, host: str = "localhost") -> str:
        """The AMQP URL of a virtual host by the listener for TLS."""
        return f"amqps://{_USER}:{_PASSWORD}@{host}:{self.tls_port}/{vhost}"

    @property
    def pid(self) -> int:
        """The process id of the node."""
        assert self._server is not None
        return self._server.pid

    def start(self) -> Self:
        """Start the node and wait until it takes connections; some seconds."""
        self.launch()
        self.wait_ready()
        return self

    def launch(self) -> None:
        """Start the node, and do not wait until it takes connections."""
        self._write_configuration()
        if self._epmd is None or not self._epmd.alive:
            epmd = shutil.which("epmd")
            if epmd is None:
                raise SandboxError("epmd is missing: install erlang-base")
            arguments = [epmd, "-port", str(self._epmd_port), "-address", self.host]
            self._epmd = Server([*self._inside, *arguments], self._home / "epmd.log")
            self._epmd.wait_until(lambda: listens(self._epmd_port, self.host), 10, "epmd")
        server = program("rabbitmq-server")
        assert server is not None
        self._server = Server(
            [*self._inside, server], self._home / "node.log", env=self._environment()
        )

    def wait_ready(self, seconds: float = 90) -> None:
        """Wait until the node takes connections."""
        assert self._server is not None
        self._server.wait_until(lambda: listens(self.port, self.host), seconds, "RabbitMQ")

    def stop(self) -> None:
        """Stop the node and its epmd, and remove its folder."""
        for one in (self._server, self._epmd):
            if one is not None:
                one.stop()
        self._server = self._epmd = None
        shutil.rmtree(self._home, ignore_errors=True)

    def kill(self) -> None:
        """SIGKILL to the node; its data stay."""
        assert self._server is not None
        self._server.kill()

    def restart(self) -> None:
        """Stop the node, unless it is down, and start it again with its data."""
        if self._server is not None:
            self._server.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP."""
        assert self._server is not None
        self._server.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        assert self._server is not None
        self._server.signal(signal.SIGCONT)

    def rabbitmqctl(self, *arguments: str) -> str:
        """The output of an administrator's command; it takes a second or two of CPU time."""
        return self._run("rabbitmqctl", *arguments)

    def evaluate(self, expression: str) -> str:
        """Return the value of an Erlang expression on the node, as text; milliseconds. The
        expression is without its final dot.
        """
        tool = shutil.which("erl_call")
        if tool is None:
            raise SandboxError("erl_call is missing: install erlang-base")
        words = [tool, "-sname", self._node, "-e"]
        limit = time.monotonic() + _CONNECTS
        while True:
            try:
                told = self._output_of("erl_call", words, f"{expression}.\n").strip()
                break
            except SandboxError as error:
                # A node with much to do lets it wait for too long; nothing has been evaluated.
                if "failed to connect" not in str(error) or time.monotonic() > limit:
                    raise
            time.sleep(0.2)
        if not told.startswith("{ok, "):
            raise SandboxError(f"{expression}: {told[-500:]}")
        return told.removeprefix("{ok, ").removesuffix("}")

    def _run(self, name: str, *arguments: str) -> str:
        tool = program(name)
        assert tool is not None
        return self._output_of(
            f"{name} {' '.join(arguments)}", [tool, "--quiet", "--node", self._node, *arguments]
        )

    def _output_of(self, what: str, command: list[str], given: str = "") -> str:
        try:
            done = subprocess.run(
                [*self._inside, *command],
                env=os.environ | self._environment(),
                input=given,
                capture_output=True,
                text=True,
                timeout=_LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            # A node that has lost the others may wait for them while it is asked.
            raise SandboxError(f"{what}: no answer in {_LIMIT:.0f} s") from error
        if done.returncode:
            raise SandboxError(f"{what}: {(done.stderr or done.stdout).strip()[-500:]}")
        return done.stdout

    def shell_of_rabbitmqctl(self) -> str:
        """Return a shell script that is `rabbitmqctl` for this node, and leaves stdin alone."""
        environment = self._environment()
        names = ("HOME", "RABBITMQ_CONF_ENV_FILE", "ERL_EPMD_PORT", "ERL_EPMD_ADDRESS")
        exports = "".join(f"export {name}={shlex.quote(environment[name])}\n" for name in names)
        return f'#!/bin/sh\n{exports}exec {program("rabbitmqctl")} --node {self._node} "$@" </dev/null\n'

    def add_vhost(self, name: str) -> str:
        """Make a virtual host and return its URL."""
        own = f'<<"{name}">>, <<".*">>, <<".*">>, <<".*">>'
        self.evaluate(
            f'ok = rabbit_vhost:add(<<"{name}">>, <<"{_USER}">>),'
            f' ok = rabbit_auth_backend_internal:set_permissions(<<"{_USER}">>, {own}, <<"{_USER}">>)'
        )
        return self.url_of(name)

    def delete_vhost(self, name: str) -> None:
        """Remove a virtual host with all that is in it."""
        self.evaluate(f'rabbit_vhost:delete(<<"{name}">>, <<"{_USER}">>)')

    def _write_configuration(self) -> None:
        (self._home / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            f"load_definitions = {self._home}/definitions.json\n"
            "disk_free_limit.absolute = 50MB\n"
            "log.file.level = warning\n" + self._tls_configuration()
        )
        (self._home / "plugins").write_text("[].\n")
        (self._home / "definitions.json").write_text(json.dumps(_definitions()))
        cookie = self._home / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text(os.urandom(16).hex().upper())
            cookie.chmod(0o400)

    def _tls_configuration(self) -> str:
        tls = self._tls
        if tls is None:
            return ""
        listeners = [f"{address}:{self.tls_port}" for address in ("127.0.0.1", *tls.addresses)]
        return (
            "".join(f"listeners.ssl.{number} = {one}\n" for number, one in enumerate(listeners, 1))
            + f"ssl_options.certfile = {tls.certificate}\nssl_options.keyfile = {tls.key}\n"
            + f"ssl_options.cacertfile = {tls.ca}\nssl_options.verify = verify_peer\n"
            + f"ssl_options.fail_if_no_peer_cert = {str(tls.asks_for_certificate).lower()}\n"
        )

    def _environment(self) -> dict[str, str]:
        return {
            "HOME": str(self._home),
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_CONFIG_FILE": str(self._home / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_MNESIA_BASE": str(self._home / "data"),
            "RABBITMQ_LOG_BASE": str(self._home / "logs"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._home / "plugins"),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            # Idle schedulers sleep: they share the cores with what is tested.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP": str(self._home / "erl_crash.dump"),
        }


def _definitions() -> dict[str, object]:
    full = {"configure": ".*", "write": ".*", "read": ".*"}
    return {
        "users": [{"name": _USER, "password": _PASSWORD, "tags": "administrator"}],
        "vhosts": [{"name": "/"}],
        "permissions": [{"user": _USER, "vhost": "/", **full}],
        "parameters": [],
        "policies": [],
        "queues": [],
        "exchanges": [],
        "bindings": [],
    }
