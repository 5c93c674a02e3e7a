"""A private RabbitMQ cluster: each node in a network namespace of its own, with a link that can be
taken down.
"""

import os
import random
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from enum import Enum, auto
from pathlib import Path
from typing import Self

from sandbox.broker import PrivateBroker
from sandbox.processes import (
    PrivateServer,
    SandboxError,
    Server,
    install_debian,
    one_at_a_time,
)

#: RFC 2544's network for tests of devices: no machine is reached by it.
_NETWORKS = [f"198.{second}.{third}" for second in (18, 19) for third in range(256)]
_AMQP, _DISTRIBUTION, _EPMD = 5672, 25672, 4369


class Network:
    """A bridge in a namespace of its own; this machine and each node have a link to it.

    Nothing of it outlives the process: namespaces end with those that are in them, and links with
    their namespaces.
    """

    def __init__(self, folder: Path) -> None:
        _require_namespaces()
        self._folder = folder
        self._spaces: list[Server] = []
        try:
            self._hub = self._space("hub")
            _ip(self._hub, "link add bridge type bridge", "link set bridge up", "link set lo up")
            self.prefix = self._link_here()
        except BaseException:
            self.close()
            raise

    def join(self, number: int) -> int:
        """Make a namespace with a link and return the id of the process that holds it."""
        space = self._space(f"space-{number}")
        _ip(
            self._hub,
            f"link add node{number} type veth peer name eth0 netns {space}",
            f"link set node{number} master bridge up",
        )
        _ip(
            space,
            "link set lo up",
            f"address add {self.prefix}.{number}/24 dev eth0",
            "link set eth0 up",
        )
        return space

    def switch(self, number: int, state: str) -> None:
        """Take a node's link "down" or "up"."""
        _ip(self._hub, f"link set node{number} {state}")

    def close(self) -> None:
        """End the namespaces and all links."""
        for one in self._spaces:
            one.stop()

    def _space(self, name: str) -> int:
        holder = Server(["unshare", "--net", "sleep", "infinity"], self._folder / f"{name}.log")
        self._spaces.append(holder)
        ours = Path("/proc/self/ns/net").stat().st_ino

        def is_apart() -> bool:
            return Path(f"/proc/{holder.pid}/ns/net").stat().st_ino != ours

        holder.wait_until(is_apart, 10, "a network namespace")
        return holder.pid

    def _link_here(self) -> str:
        # Two that begin at once must not take the same network.
        with one_at_a_time("network"):
            taken = _run(["ip", "-4", "-oneline", "address"])
            prefix = next(
                one for one in random.sample(_NETWORKS, len(_NETWORKS)) if f" {one}." not in taken
            )
            name = f"ecs{prefix.replace('.', '-')[4:]}"
            _run(f"ip link add {name} type veth peer name here netns {self._hub}".split())
            _run(f"ip address add {prefix}.254/24 dev {name}".split())
            _run(f"ip link set {name} up".split())
            _ip(self._hub, "link set here master bridge up")
        return prefix


class _State(Enum):
    UP = auto()
    DOWN = auto()
    PAUSED = auto()
    CUT = auto()


class ClusterNode(PrivateBroker):
    """One node of a cluster, reached by an address of its own."""

    def __init__(self, network: Network, number: int, settings: Sequence[str], tick: int) -> None:
        super().__init__()
        self._network, self._number = network, number
        self._settings, self._tick = settings, tick
        space = network.join(number)
        self._inside = ["nsenter", f"--net=/proc/{space}/ns/net"]
        self.host = f"{network.prefix}.{number}"
        self.name = self._node = node_name(number)
        self.port, self._dist_port, self._epmd_port = _AMQP, _DISTRIBUTION, _EPMD
        self._state = _State.DOWN

    @property
    def is_up(self) -> bool:
        """Tell whether it can be asked: it runs, does not stand still, and its link is up."""
        return self._state is _State.UP

    def launch(self) -> None:
        """Start the node, and do not wait until it takes connections."""
        super().launch()
        self._state = _State.UP

    def kill(self) -> None:
        """SIGKILL to the node; its data stay."""
        self._state = _State.DOWN
        super().kill()

    def shut_down(self) -> None:
        """SIGTERM to the node, as an administrator stops it; its data stay."""
        self._state = _State.DOWN
        if self._server is not None:
            self._server.stop()

    def drain(self) -> None:
        """Have the node give up its leaders and its clients, as before an upgrade."""
        self._run("rabbitmq-upgrade", "drain")

    def restart(self) -> None:
        """Stop the node, unless it is down, and start it again with its data."""
        self.shut_down()
        self.start()

    def pause(self) -> None:
        """SIGSTOP."""
        self._state = _State.PAUSED
        super().pause()

    def resume(self) -> None:
        """SIGCONT."""
        super().resume()
        self._state = _State.UP

    def cut(self) -> None:
        """Take the node's link down: it reaches nobody, and nobody hears of it."""
        self._state = _State.CUT
        self._network.switch(self._number, "down")

    def heal(self) -> None:
        """Take the node's link up again."""
        self._network.switch(self._number, "up")
        self._state = _State.UP

    def bring_back(self) -> None:
        """Start, resume or heal the node, whatever was done to it."""
        match self._state:
            case _State.DOWN:
                self.start()
            case _State.PAUSED:
                self.resume()
            case _State.CUT:
                self.heal()
            case _State.UP:
                pass

    def _write_configuration(self) -> None:
        super()._write_configuration()
        configuration = self._home / "rabbitmq.conf"
        configuration.write_text(
            f"listeners.tcp.1 = {self.host}:{self.port}\n"
            # The user that RabbitMQ makes by itself, once for all nodes.
            "loopback_users = none\n"
            "disk_free_limit.absolute = 50MB\n"
            "log.file.level = warning\n" + "".join(f"{one}\n" for one in self._settings)
        )
        hosts = [
            f'{{host, {{{self._network.prefix.replace(".", ",")},{number}}}, ["ecs{number}"]}}.\n'
            for number in range(1, 10)
        ]
        (self._home / "inetrc").write_text("".join(hosts) + "{lookup, [file, native]}.\n")
        # All nodes have one; it opens nothing outside of their namespaces.
        cookie = self._home / ".erlang.cookie"
        cookie.chmod(0o600)
        cookie.write_text("ECSCLUSTER")
        cookie.chmod(0o400)

    def _environment(self) -> dict[str, str]:
        return super()._environment() | {
            "ERL_INETRC": str(self._home / "inetrc"),
            "ERL_EPMD_ADDRESS": self.host,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-kernel net_ticktime {self._tick} +sbwt none",
        }


class Cluster(PrivateServer):
    """A RabbitMQ cluster, from `start` to `stop`; a context manager.

    `partitions`: RabbitMQ's `cluster_partition_handling`. `tick`: Erlang's net_ticktime in seconds;
    a node whose link is down is given up after about as many.
    """

    def __init__(
        self, nodes: int = 3, *, partitions: str = "pause_minority", tick: int = 8
    ) -> None:
        self._stack = ExitStack()
        folder = Path(tempfile.mkdtemp(prefix="ecs-network-"))
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        numbers = range(1, nodes + 1)
        settings = [
            f"cluster_partition_handling = {partitions}",
            "cluster_formation.peer_discovery_backend = classic_config",
            *(
                f"cluster_formation.classic_config.nodes.{number} = {node_name(number)}"
                for number in numbers
            ),
        ]
        try:
            network = Network(folder)
            self._stack.callback(network.close)
            self.nodes: list[ClusterNode] = []
            for number in numbers:
                self.nodes.append(ClusterNode(network, number, settings, tick))
                self._stack.callback(self.nodes[-1].stop)
        except BaseException:
            self._stack.close()
            raise

    def start(self) -> Self:
        """Start all nodes and wait until they are one cluster; twenty seconds."""
        # All at once: RabbitMQ 4's first waits for the others, and all agree on who is first.
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait_ready(180)
        self.wait_for_members(len(self.nodes))
        return self

    def stop(self) -> None:
        """Stop all nodes, and remove their folders and the network."""
        self._stack.close()

    def settle(self, struck: Sequence[ClusterNode] = (), seconds: float = 30) -> bool:
        """Wait until all nodes are one cluster again, and restart those that were struck where they
        stay apart; return whether that was needed.
        """
        try:
            # Nodes that were apart for some seconds may notice it when they are together again.
            self.wait_for_members(len(self.nodes), seconds, looks=4)
        except SandboxError:
            for node in struck:
                node.restart()
            self.wait_for_members(len(self.nodes))
            return True
        return False

    def wait_for_members(self, number: int, seconds: float = 90, *, looks: int = 1) -> None:
        """Wait until so many nodes know each other and run, at so many looks in a row."""
        limit, seen = time.monotonic() + seconds, 0
        while (seen := seen + 1 if len(self.running()) >= number else 0) < looks:
            if time.monotonic() > limit:
                raise SandboxError(f"the cluster has {self.running()} after {seconds:.0f} s")
            time.sleep(0.5)

    def running(self) -> list[str]:
        """The names of the nodes that each node that can be asked sees as running; none where they
        differ.
        """
        views: set[frozenset[str]] = set()
        for node in self.nodes:
            if node.is_up:
                try:
                    # A node that has just found the others again may not answer for minutes.
                    told = node.rabbitmqctl(
                        "--timeout", "15", "eval", "rabbit_mnesia:cluster_nodes(running)."
                    )
                except SandboxError:
                    return []
                views.add(frozenset(re.findall(r"ecs@ecs\d", told)))
        return sorted(views.pop()) if len(views) == 1 else []

    @property
    def urls(self) -> list[str]:
        """The AMQP URLs of the default virtual host, one for each node."""
        return self.urls_of("/")

    def urls_of(self, vhost: str) -> list[str]:
        """The AMQP URLs of a virtual host, one for each node."""
        return [one.url_of(vhost) for one in self.nodes]

    def add_vhost(self, name: str) -> list[str]:
        """Make a virtual host and return its URLs, one for each node."""
        self.rabbitmqctl("add_vhost", name)
        self.rabbitmqctl("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
        return self.urls_of(name)

    def rabbitmqctl(self, *arguments: str) -> str:
        """The output of an administrator's command on the first node that can be asked."""
        for node in self.nodes:
            if node.is_up:
                return node.rabbitmqctl(*arguments)
        raise SandboxError("no node of the cluster can be asked")

    def leader_of(self, queue: str, vhost: str = "/") -> ClusterNode:
        """The node of a queue's leader; of a classic queue, its only one."""
        columns = ("name", "leader", "pid")
        listed = self.rabbitmqctl("list_queues", "-p", vhost, "--no-table-headers", *columns)
        for line in listed.splitlines():
            name, _, place = line.partition("\t")
            if name == queue and (found := re.search(r"ecs@ecs(\d)", place)):
                return self.nodes[int(found[1]) - 1]
        raise SandboxError(f"queue {queue} has no leader: {listed.strip()[-500:]}")

    def version(self) -> str:
        """The version of RabbitMQ."""
        told = self.rabbitmqctl("eval", "rabbit_misc:version().")
        return told.strip().strip('"<>')

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise


def node_name(number: int) -> str:
    """The Erlang name of a node; the first is 1."""
    return f"ecs@ecs{number}"


def _require_namespaces() -> None:
    """Raise `SandboxError` where no network namespace can be made here."""
    missing = "a cluster of RabbitMQ nodes needs network namespaces of its own"
    if os.geteuid() != 0:
        raise SandboxError(f"{missing}: run as root")
    install_debian(["iproute2"], lambda: shutil.which("ip") is not None, "ip")
    try:
        _run(["unshare", "--net", "ip", "link", "add", "bridge", "type", "bridge"])
    except (SandboxError, OSError) as error:
        raise SandboxError(
            f"{missing}, and none with a bridge can be made here (in a container: with the"
            f" capabilities SYS_ADMIN and NET_ADMIN): {error}"
        ) from error


def _ip(space: int, *commands: str) -> None:
    """Run commands of `ip` in the namespace of a process."""
    for command in commands:
        _run(["nsenter", f"--net=/proc/{space}/ns/net", "ip", *command.split()])


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise SandboxError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-300:]}")
    return done.stdout
