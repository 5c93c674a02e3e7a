"""The gateway as a process of its own."""

from collections.abc import Mapping
from pathlib import Path

from sandbox.processes import free_ports
from sandbox.worker import ReadyProcess


class GatewayProcess(ReadyProcess):
    """`ecs-worker gateway` with these settings. `port` is one of 127.0.0.1, a free one where none is
    given.
    """

    what = "the gateway"

    def __init__(
        self,
        settings: Mapping[str, str],
        folder: Path,
        name: str = "gateway",
        port: int | None = None,
    ) -> None:
        listen = f"127.0.0.1:{port or free_ports(1)[0]}"
        super().__init__(
            ["workers", "gateway"],
            f"http://{listen}",
            folder / f"{name}.log",
            {"ECS_GATEWAY_LISTEN": listen} | dict(settings),
        )
