"""Lines of libraries: so many in a while, masked like our own, and none on the terminal beside a
command's data.
"""

import asyncio
import json
import logging
import time

import pytest
import structlog

from handlers.effects.concurrency import ThreadPool
from workers.telemetry import LIBRARY_LINES, configure_logs, log_request


@pytest.fixture(
    params=["kombu", "keystoneauth.identity", "urllib3.connectionpool", "alembic", "asyncio"]
)
def library(request: pytest.FixtureRequest) -> logging.Logger:
    structlog.reset_defaults()
    configure_logs("json", "info")
    return logging.getLogger(request.param)


def lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    return [json.loads(line) for line in capfd.readouterr().err.splitlines()]


def test_a_library_writes_so_many_lines_and_the_rest_is_counted(
    library: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    configure_logs("json", "info", library_window=3.0)
    for number in range(1000):
        library.error("no way to %s, for the %dth time", "http://h", number)
    assert len(lines(capfd)) == LIBRARY_LINES
    time.sleep(3.0)
    library.error("once more")
    told = lines(capfd)
    assert [one["event"] for one in told] == ["library.suppressed", "library"]
    assert told[0]["lines"] == 1000 - LIBRARY_LINES


def test_a_library_keeps_no_secret_and_says_no_less_than_an_error(
    library: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    library.warning("password=geheim")
    library.error(
        "with X-Auth-Token: geheim, password=geheim, eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.geheim \x1b[31m\u202e"
    )
    (line,) = lines(capfd)
    assert line["logger"] == library.name
    assert "geheim" not in str(line)


async def test_the_fields_of_a_request_are_on_its_own_lines_alone_and_masked(
    capfd: pytest.CaptureFixture[str],
) -> None:
    structlog.reset_defaults()
    configure_logs("json", "info")
    log = structlog.get_logger()

    async def handle(number: int) -> None:
        log_request(message_id=f"password=hunter{number}", operation="server.show", tenant=None)
        log_request(tenant=f"tenant-{number}")
        await asyncio.sleep(0)
        log.info("request.done", code=200)

    await asyncio.gather(handle(1), handle(2))
    log.info("worker.ended")
    first, second, last = lines(capfd)
    for number, line in enumerate((first, second), start=1):
        assert line["tenant"] == f"tenant-{number}"
        assert (line["message_id"], line["operation"]) == ("password=***", "server.show")
    assert "tenant" not in last


async def test_lines_from_a_thread_have_the_fields_of_the_request_that_it_works_for(
    capfd: pytest.CaptureFixture[str],
) -> None:
    structlog.reset_defaults()
    configure_logs("json", "info")
    pool = ThreadPool(2, "test")

    async def handle(number: int) -> None:
        log_request(message_id=f"m-{number}", request="r", operation="server.show", attempt=number)
        await pool.run(lambda: logging.getLogger("keystoneauth").error("no log-in"))
        await pool.run(lambda: structlog.get_logger().warning("account.slow"))

    await asyncio.gather(handle(1), handle(2))
    await pool.close()
    told = lines(capfd)
    assert sorted((one["message_id"], one["event"], one["attempt"]) for one in told) == [
        ("m-1", "account.slow", 1),
        ("m-1", "library", 1),
        ("m-2", "account.slow", 2),
        ("m-2", "library", 2),
    ]
    assert {(one["request"], one["operation"]) for one in told} == {("r", "server.show")}
