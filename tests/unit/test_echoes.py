"""Tests what a stranger wrote, where it is shown again: in logs, tables, dead letters, results.
Never in its own way.
"""

import gzip
import hashlib
import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from messages.codes import Code
from messages.errors import Refused
from messages.results import unread_order_result
from messages.secrets import could_hold_secret, is_secret_name, mask, mask_text
from messages.texts import is_line, terminal_safe
from messages.wire import MAX_BODY, decode, encode, fits
from sandbox.documents import new_token
from tests.support.corpus import order, soft_down
from tests.support.corpus.commands import TEXTS
from workers.cli.output import Format, show
from workers.pipeline.replies import masked_body

HOSTILE = "a\x1b[2J\x1b]0;x\x07\r\nb\u202ec\u2028d\x9be 😀中"
NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)


def logged(log_format: str, statement: str) -> list[bytes]:
    """The lines that a process of its own logs."""
    program = "from workers.telemetry import configure_logs\nimport structlog\n"
    program += f"configure_logs({log_format!r}, 'info')\n"
    program += f"log = structlog.get_logger()\n{statement}\n"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=60, check=True
    )
    return done.stderr.splitlines()


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_log_line_is_one_line_whatever_a_message_says(log_format: str) -> None:
    lines = logged(
        log_format,
        f"log.info('message.malformed', message_id={HOSTILE!r}, why={HOSTILE * 2!r}, data={{'a': {HOSTILE!r}}})",
    )
    assert len(lines) == 1
    assert not {0x1B, 0x07, 0x0D} & set(lines[0])
    if log_format == "console":
        assert lines[0].decode().isprintable()
        assert r"\x1b[2J" in lines[0].decode()
        assert "😀中" in lines[0].decode()
    else:
        assert json.loads(lines[0])["message_id"] == HOSTILE


def test_a_console_tells_a_traceback_line_by_line_and_no_more() -> None:
    lines = logged(
        "console",
        f"try:\n    raise ValueError({HOSTILE!r})\nexcept ValueError:\n    log.exception('x')",
    )
    assert any(line.startswith(b"Traceback") for line in lines)
    assert all(line.decode().isprintable() for line in lines)


def test_what_cannot_be_logged_as_json_is_logged_all_the_same() -> None:
    (line,) = logged(
        "json", r"log.info('x', text='\ud800', number=2**70, odd={'a': b'\xff'}, thing=object)"
    )
    found = json.loads(line)
    assert (found["text"], found["number"]) == ("\ud800", 2**70)


def test_a_long_value_is_cut_and_a_token_masked_before() -> None:
    (line,) = logged(
        "json", f"log.info('x', why='y' * 100_000, token='opaque', said={new_token()!r})"
    )
    found = json.loads(line)
    assert len(found["why"]) == 2001
    assert (found["token"], found["said"]) == ("***", "***")


def test_a_table_shows_what_would_move_the_cursor_escaped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows: list[dict[str, Any]] = [
        {"id": HOSTILE, "key": "[/red][bold]x", "operation": None, "code": 7}
    ]
    show(rows, Format.TABLE)
    printed = capsys.readouterr().out
    assert all(line.isprintable() for line in printed.splitlines())
    assert "[/red][bold]x" in printed
    show(rows, Format.JSON)
    assert json.loads(capsys.readouterr().out) == rows


def test_a_text_is_made_safe_for_a_terminal() -> None:
    hostile = "\x1b[2J\u202eabc\r\n参数"
    assert terminal_safe(hostile) == "\\x1b[2J\\u202eabc\\r\\n参数"
    assert terminal_safe(hostile, lines=True) == "\\x1b[2J\\u202eabc\\r\n参数"
    assert json.loads(f'"{terminal_safe(hostile, json=True)}"') == hostile


@pytest.mark.parametrize("text", TEXTS)
def test_text_of_all_kinds_is_a_line_and_stays_as_it_is(text: str) -> None:
    assert is_line(text)
    assert decode(encode({"a": text}), None, None) == {"a": text}
    assert mask_text(text) == text


@pytest.mark.parametrize(
    "text", ["a\nb", "a\x00", "\x1b", "\x7f", "\x9b", "\u2028", "\u2029", "\ud800", "\uffff"]
)
def test_what_is_more_or_less_than_a_line_is_none(text: str) -> None:
    assert not is_line(text)
    assert terminal_safe(text).isprintable()


# Dead letters.


def test_a_body_that_can_be_read_is_parked_without_its_secrets() -> None:
    body = json.dumps(
        {"token": "opaque", "a": [{"adminPass": "x"}], "n": 2**70, "😀": 1.5, "deep": [[[]]] * 3}
    ).encode()
    assert json.loads(masked_body(body)) == {
        "token": "***",
        "a": [{"adminPass": "***"}],
        "n": 2**70,
        "😀": 1.5,
        "deep": [[[]]] * 3,
    }


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"operation": "x"} x',
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"a": "\xe9"}',
    ],
)
def test_a_body_that_cannot_be_read_is_parked_as_it_came(body: bytes) -> None:
    """Written anew, one of two values would be gone: what was refused might be carried out when it
    is replayed.
    """
    assert masked_body(body) == body


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1, "a": 2, "token": "opaque"}',
        b'{"t\\u006fken": "opaque", ',
        '{"token": "opaque"}'.encode("utf-16"),
        gzip.compress(b'{"token": "opaque"}', mtime=0),
        b'{"Admin-Pass": "x"',
        new_token().encode(),
        b'{"x": "Bearer abcdef',
    ],
)
def test_a_body_that_cannot_be_read_and_may_hold_a_secret_is_not_kept(body: bytes) -> None:
    assert json.loads(masked_body(body)) == {"masked": "***", "bytes": len(body)}


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("token", True),
        ("Access-Token", True),
        ("adminPass", True),
        ("newPassword", True),
        ("user_data", True),
        (" token ", True),
        ("x" * 1000 + "Token", True),
        ("clientSecret", True),
        ("tokens_left", False),
        ("keyName", False),
        ("userId", False),
        ("", False),
    ],
)
def test_secrets_are_known_by_their_names(name: str, secret: bool) -> None:
    assert is_secret_name(name) is secret


@pytest.mark.parametrize(
    "text",
    [
        "eyJ" * 21_000,
        "eyJaaaaa." * 7000,
        "." * 65_000,
        "token" * 13_000,
        "token:" * 10_000,
        "token" + '"' * 65_000,
        "bearer " * 9000,
        "eyJ.eyJ-" * 8000,
        "a" * 65_000,
        "password=\\" * 6000,
    ],
)
def test_no_text_takes_long_to_be_searched_for_secrets(text: str) -> None:
    """One of these took a minute for a message of 1 MiB; a heartbeat is due every fifteen seconds."""
    started = time.process_time()
    mask({"a": [text] * 16})
    could_hold_secret(text.encode() * 16)
    assert time.process_time() - started < 5


def test_a_body_of_many_megabytes_is_not_read_to_be_parked() -> None:
    body = b'{"a":[' + b"[]," * 5_000_000 + b"[]]}"
    started = time.process_time()
    assert json.loads(masked_body(body)) == {
        "bytes": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    assert time.process_time() - started < 5


def test_a_secret_is_found_wherever_it_stands_in_a_large_text() -> None:
    """It is looked through in parts."""
    for begin in range(16 * 1024 - 40, 16 * 1024 + 40):
        assert could_hold_secret(b"x" * begin + b" Basic dXNlcjpwYXNz " + b"y" * 20_000)
        assert not could_hold_secret(b"x" * begin + b" basi dXNlcjpwYXNz " + b"y" * 20_000)


# Results.


def test_an_echo_is_within_the_limits_of_a_body_itself() -> None:
    refused = Refused(Code.PARAMETER, "productList")
    deep: Any = 1
    for _ in range(29):
        deep = [deep]
    for message in (
        order(productList=[{}] * 300_000),
        order(productList=[{"itemList": deep, "region": "cn"}], orderId=deep),
        order(productList=[{f"{number}": "x" * 60_000 for number in range(17)}] * 1),
        order(orderType="x" * 60_000, productList=[{"a": ["x" * 60_000] * 17}]),
        soft_down(instanceList=[{"a": ["x" * 60_000] * 17, "subFlowId": "s"}], region="x" * 60_000),
    ):
        result = unread_order_result(message, refused, NOW)
        assert fits(result.data)
        assert len(encode(result.envelope())) < MAX_BODY
    assert result.data["instanceList"][0]["subFlowId"] == "s"


def test_a_code_that_looks_like_a_token_is_not_given_back() -> None:
    refused = Refused(Code.PARAMETER, new_token())
    assert "eyJ" not in unread_order_result({}, refused, NOW).message
