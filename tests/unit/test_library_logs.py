"""Lines of libraries: so many in a while, masked like our own, and none on the terminal beside a
command's data.
"""

import json
import logging
import time

import pytest
import structlog

from workers.telemetry import LIBRARY_LINES, configure_logs


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
