"""Tables on 80 columns (R47): ids whole and never wrapped, errors on one line, nothing idle."""

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO

import pytest
from rich.cells import cell_len

from workers.cli.output import Report

UUID = "616fb98f-46ca-475e-917e-2563e5a8cd1"
ROWS = [
    {
        "id": f"{UUID}{number}",
        "error": f"参数imageId不符合规范; the image of {number} is not there " * 3,
        "tenant": "a5c01e95d15b4fc7a60fbd0954c74dee",
        "key": "",
        "operation": f"order.{'new' if number else 'renew'}",
        "message": f"{number}{UUID}",
    }
    for number in range(3)
]


@pytest.fixture(autouse=True)
def _narrow() -> Iterator[None]:
    yield
    Report.is_wide = False


def printed(rows: list[dict[str, object]], indent: int = 0) -> list[str]:
    out = StringIO()
    Report(out).table(rows, indent)
    return out.getvalue().splitlines()


def test_ids_are_whole_errors_on_one_line_and_nothing_is_wider_than_80_columns() -> None:
    lines = printed(ROWS, 2)
    assert all(cell_len(line) <= 80 for line in lines)
    body = [line for line in lines if UUID in line]
    assert len(body) == 3
    for row, line in zip(ROWS, body, strict=True):
        assert row["id"] in line
        assert "参数imageId" in line
        assert line.rstrip().endswith("…") or "order." in line


def test_empty_columns_are_dropped_constant_ones_said_once_and_the_rest_named() -> None:
    lines = printed(ROWS)
    assert lines[0] == "all: tenant a5c01e95d15b4fc7a60fbd0954c74dee"
    assert "key" not in lines[1].split()
    assert lines[-1] == "no room for: message (-o wide)"
    # Of one row nothing is constant.
    assert not printed(ROWS[:1])[0].startswith("all:")


def test_wide_shows_all_columns_whole() -> None:
    Report.is_wide = True
    lines = printed(ROWS)
    assert len(lines) == 4
    assert lines[0].split() == list(ROWS[0])
    for row, line in zip(ROWS, lines[1:], strict=True):
        assert all(str(value) in line for value in row.values())


def test_facts_are_wrapped_between_words_and_ids_are_not_broken() -> None:
    out = StringIO()
    Report(out).facts({"why": f"waits behind {UUID}1 and {UUID}2, which is resize_finish " * 2})
    lines = out.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert sum(line.count(f"{UUID}1") + line.count(f"{UUID}2") for line in lines) == 4


def test_a_wider_terminal_has_room_for_more() -> None:
    script = (
        "import fcntl, struct, sys, termios\n"
        "fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack('HHHH', 50, 160, 0, 0))\n"
        "from workers.cli.output import Report\n"
        f"Report().table({ROWS!r})\n"
    )
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("COLUMNS", None)
    command = [sys.executable, "-c", script]
    subprocess.run(command, stdout=follower, env=environment, check=True, timeout=60)
    text = os.read(leader, 65536).decode()
    os.close(leader)
    os.close(follower)
    assert "no room" not in text
    assert f"2{UUID}" in text
