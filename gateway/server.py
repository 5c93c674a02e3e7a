"""The gateway from start to drained: uvicorn within bounds, the client, the updates."""

import asyncio
import contextlib
import errno
import gc
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog
import uvicorn

from ecs_client import AsyncEcsClient, AsyncStream, EcsError, StatusEvent
from gateway.app import CONSOLE, Gateway, Limits, make_app
from gateway.callers import Callers, TokenCallers, TrustedCallers
from gateway.connections import IDLE_SECONDS, OTHER_FILES, Connection, Connections, file_limit
from gateway.console.app import Console
from gateway.console.operators import Guard, LocalGuard, TokenGuard, is_loopback
from gateway.events import update_event
from handlers.effects.concurrency import in_daemon_thread
from handlers.openstack.cloud import Cloud
from handlers.openstack.sessions import CloudSettings
from messages.texts import without_urls
from workers.health import PortUnusable
from workers.identity.jwks_source import key_source
from workers.pipeline.large_bodies import SWITCH_INTERVAL
from workers.settings import ConfigurationError, GatewaySettings, load_settings, traces_of

if TYPE_CHECKING:
    from workers.identity.jwt import Expected
    from workers.identity.key_set import KeySet

log = structlog.get_logger()

#: Threads for log-ins to the cloud, which is asked for the ids of projects.
_THREADS = 4
#: Seconds that a drain may take longer than a command, and that connections have to end then.
_DRAIN_GRACE, _GOODBYE = 2.0, 3
#: Seconds between two looks at the subscription of updates, and before it is made anew.
_LOOK_EVERY, _AGAIN_AFTER = 0.25, 2.0
#: Seconds for the broker to take a message.
_TAKEN_WITHIN = 5.0


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: whoever runs it decides when it ends."""

    def __init__(self, config: uvicorn.Config, connections: Connections) -> None:
        super().__init__(config)
        self.server_state = connections

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


class GatewayServer:
    """The gateway from start to drained.

    `announce` is called with each one-time address of the operations console, where there are such.
    """

    def __init__(
        self, settings: GatewaySettings, announce: Callable[[str], None] = lambda _: None
    ) -> None:
        self._settings = settings
        self._announce = announce
        self._traces = traces_of("ecs-gateway")
        broker = settings.broker
        self._client = AsyncEcsClient(
            broker.url,
            namespace=settings.namespace,
            ca_file=broker.ca_file,
            cert_file=broker.cert_file,
            key_file=broker.key_file,
            broker_timeout=_TAKEN_WITHIN,
        )
        self._keys: KeySet | None = None
        self._expected: Expected | None = None
        self._cloud = Cloud(_clouds(settings)) if settings.has_cloud else None
        connections = file_limit() - OTHER_FILES
        self.gateway = Gateway(
            self._client,
            self._callers(),
            Limits(settings.gateway_max_in_flight, settings.command_timeout, connections),
            settings.region,
        )
        self._console = self._make_console()
        self._connections = Connections(connections)
        self._show_numbers()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain. Raises `PortUnusable`."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stopping.set)
        listening = listen(*self._settings.listen)
        if self._traces is not None:
            self._traces.begin()
        gc.freeze()  # modules stay: they need not be looked at again and again
        sys.setswitchinterval(SWITCH_INTERVAL)
        server = self._server()
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        besides = [asyncio.create_task(self._connections.watch())]
        besides.append(asyncio.create_task(self._hear()))
        if self._keys is not None:
            besides.append(asyncio.create_task(self._keys.watch()))
        log.info("gateway.started", listen=self._settings.gateway_listen)
        if isinstance(self._console.guard, LocalGuard) and self._console.backend is not None:
            self._console.guard.renew()
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        await self._drain()
        server.should_exit = True
        await serving
        for task in (*besides, stopping):
            task.cancel()
        await self._console.close()
        await self._client.close()
        if self._cloud is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._cloud.close(), _GOODBYE)
        if self._traces is not None:
            with contextlib.suppress(TimeoutError):
                closing = in_daemon_thread(self._traces.close, "traces")
                await asyncio.wait_for(closing, _GOODBYE)
        log.info("gateway.ended")

    def problems(self) -> list[str]:
        """Return what keeps the gateway from working now, without URLs."""
        found = []
        if self.gateway.is_draining:
            found.append("draining")
        if (trouble := self._client.problem) is not None:
            found.append(f"broker: {trouble}")
        if not self.gateway.is_hearing:
            found.append("no status updates are heard from the broker")
        if self._keys is not None and self._keys.is_empty:
            found.append(f"no key set, so nobody can be told: {self._keys.trouble}")
        return [without_urls(one) for one in found]

    def _server(self) -> _Server:
        app = make_app(self.gateway, self.problems, self._console.app())
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=_GOODBYE,
        )
        return _Server(config, self._connections)

    def _callers(self) -> Callers:
        settings = self._settings
        if settings.jwt_jwks is None:
            return TrustedCallers(self._cloud)
        # 45 ms and 10 MB, of cryptography most of all: only where tokens are verified.
        from workers.identity.jwt import Expected  # noqa: PLC0415
        from workers.identity.key_set import KeySet  # noqa: PLC0415
        from workers.identity.token_authentication import TokenVerifier  # noqa: PLC0415

        self._keys = KeySet(key_source(settings.jwt_jwks))
        self._expected = expected = Expected(
            settings.jwt_issuer,
            settings.jwt_audience,
            settings.jwt_tenant_claim,
            settings.token_grace,
        )
        verifier = TokenVerifier(self._keys, expected)
        return TokenCallers(verifier, self._cloud, settings.jwt_tenant_is)

    def _make_console(self) -> Console:
        """Return the operations console; one that says what is missing where it cannot work."""
        guard, role = self._guard(), self._settings.operator_role
        if self._settings.console_journal is None:
            return Console(guard, role, None)
        try:
            # The workers' settings: what the console shows and does is what their commands do.
            settings = load_settings()
        except ConfigurationError as error:
            return Console(guard, role, None, tuple(error.problems))
        from gateway.console.backend import Backend  # noqa: PLC0415 - comes with SQLAlchemy

        return Console(guard, role, Backend(settings))

    def _guard(self) -> Guard:
        settings = self._settings
        if self._expected is None or self._keys is None:
            from workers.admin.audit import local_actor  # noqa: PLC0415 - comes with SQLAlchemy

            host, port = settings.listen
            # Where it listens on all addresses, this one is among them.
            local = host if is_loopback(host) else "127.0.0.1"
            shown = f"[{local}]" if ":" in local else local
            return LocalGuard(
                port,
                local_actor().real_user,
                lambda code: self._announce(f"http://{shown}:{port}{CONSOLE}/enter?code={code}"),
            )
        from workers.identity.token_authentication import TokenVerifier  # noqa: PLC0415

        # An operator acts for no tenant, and need not have one.
        verifier = TokenVerifier(self._keys, replace(self._expected, tenant_claim=None))
        return TokenGuard(verifier, settings.operator_role)

    async def _drain(self) -> None:
        """Take nothing new, end streams, and wait for what is under way."""
        gateway = self.gateway
        gateway.is_draining = True
        log.info("gateway.draining", in_flight=gateway.places.taken)
        gateway.updates.finish("draining")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(gateway.timeout + _DRAIN_GRACE):
                await gateway.places.idle.wait()

    async def _hear(self) -> None:
        """Hear the updates of all tenants, again and again, until cancelled."""
        while True:
            try:
                await self._hear_once()
            except EcsError as error:
                log.warning("gateway.updates_lost", why=str(error))
            except Exception:
                # Streams that hear nothing any more would not be noticed.
                log.exception("gateway.updates_lost")
            self.gateway.is_hearing = False
            await asyncio.sleep(_AGAIN_AFTER)

    async def _hear_once(self) -> None:
        updates = self.gateway.updates
        async with self._client.updates() as stream:
            looking = asyncio.create_task(self._look_at(stream))
            try:
                async for one in stream:
                    # An id of several lines would be more than an id to a reader.
                    if one.tenant_id is not None and one.event_id and one.event_id.isprintable():
                        found = (one.event_id, one.tenant_id, one.resource, one.id, one.body)
                        updates.publish(update_event(*found))
            finally:
                looking.cancel()
                updates.lose()

    async def _look_at(self, stream: AsyncStream[StatusEvent]) -> None:
        """Notice that the connection of the updates is another one: some may have been missed."""
        known = 0
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            self.gateway.updates.expire(time.monotonic())
            self.gateway.is_hearing = stream.is_consuming
            if stream.epoch != known:
                if known:
                    self.gateway.updates.lose()
                known = stream.epoch

    def _show_numbers(self) -> None:
        gateway, show = self.gateway, self.gateway.metrics.show
        show("ecs_gateway_in_flight", "Requests under way", lambda: gateway.places.taken)
        show("ecs_gateway_streams", "Streams of updates", lambda: gateway.updates.streams)
        show(
            "ecs_gateway_streams_cut_total",
            "Streams that were cut off, for their readers were too slow",
            lambda: gateway.updates.cut,
        )
        show(
            "ecs_gateway_connections",
            "Connections of clients",
            lambda: len(self._connections.connections),
        )
        show(
            "ecs_gateway_broker_up",
            "1 while the broker takes messages",
            lambda: self._client.problem is None,
        )
        show("ecs_gateway_ready", "1 while /readyz answers 200", lambda: not self.problems())


def _clouds(settings: GatewaySettings) -> CloudSettings:
    return CloudSettings(
        cloud=settings.os_cloud,
        config_file=settings.os_client_config_file,
        project_domain=settings.project_domain,
        threads=_THREADS,
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises `PortUnusable`."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # With its protocol, by which asyncio tells that Nagle's algorithm is to be turned off:
        # otherwise every answer is 40 ms late.
        family, kind, protocol, _, address = found[0]
        one = socket.socket(family, kind, protocol)
    except OSError as error:
        raise PortUnusable(_advice(error, host, port)) from error
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(address)
        one.listen(1024)
        one.setblocking(False)
    except OSError as error:
        one.close()
        raise PortUnusable(_advice(error, host, port)) from error
    return one


def _advice(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"ECS_GATEWAY_LISTEN: port {port} of {host} is in use; choose another"
    if error.errno == errno.EACCES:
        return f"ECS_GATEWAY_LISTEN: port {port} may only be used by root; choose one from 1024 on"
    why = error.strerror or type(error).__name__
    return f"ECS_GATEWAY_LISTEN: nothing can listen on {host!r} ({why}); it must be an address of this machine"
