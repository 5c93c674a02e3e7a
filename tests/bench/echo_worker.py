"""The whole worker, but for handlers that answer at once, or after a while: `BENCH_SECONDS`."""

import asyncio
import os

from handlers.context import ProjectContext
from messages.codes import Code
from messages.commands import OpenConsole, PowerAction
from messages.results import Result
from workers.bootstrap import Worker
from workers.settings import load_settings
from workers.telemetry import configure_logs

_SECONDS = float(os.environ.get("BENCH_SECONDS", "0"))


async def _echo(_: object, __: ProjectContext) -> Result:
    if _SECONDS:
        await asyncio.sleep(_SECONDS)
    return Result.of(Code.OK)


async def _main() -> None:
    settings = load_settings()
    configure_logs(settings.log_format, settings.log_level)
    # A console is answered without a journal entry, an action with one.
    await Worker(settings, {PowerAction: _echo, OpenConsole: _echo}).run()


if __name__ == "__main__":
    asyncio.run(_main())
