"""HTTP for orchestrators: `/livez`, `/readyz` and `/metrics`, on the worker's own loop."""

import asyncio
from collections.abc import Callable

from prometheus_client import CollectorRegistry


class HealthServer:
    """Serves until it is closed. `problems` says what keeps the worker from working, a line each."""

    def __init__(self, port: int, problems: Callable[[], list[str]], registry: CollectorRegistry) -> None:
        # Imported late: a worker without HTTP does not pay for it.
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest  # noqa: PLC0415
        from starlette.applications import Starlette  # noqa: PLC0415
        from starlette.requests import Request  # noqa: PLC0415
        from starlette.responses import JSONResponse, Response  # noqa: PLC0415
        from starlette.routing import Route  # noqa: PLC0415
        from uvicorn import Config, Server  # noqa: PLC0415

        async def live(_: Request) -> Response:
            return JSONResponse({"status": "ok"})

        async def ready(_: Request) -> Response:
            found = problems()
            body = {"status": "not ready" if found else "ok", "problems": found}
            return JSONResponse(body, status_code=503 if found else 200)

        async def metrics(_: Request) -> Response:
            return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

        routes = [Route("/livez", live), Route("/readyz", ready), Route("/metrics", metrics)]
        config = Config(
            Starlette(routes=routes), host="0.0.0.0", port=port, log_config=None, access_log=False, lifespan="off"
        )
        self._server = Server(config)
        # Signals are the worker's: it drains, and the server goes last.
        self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to serve."""
        self._task = asyncio.create_task(self._server._serve())

    async def close(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        if self._task is not None:
            await asyncio.wait([self._task], timeout=5)
