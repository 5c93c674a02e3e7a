"""Texts from messages cannot control the terminal on which they are shown."""

import json
import os
import pty
import re
import subprocess
import sys
import threading
import uuid
from contextlib import suppress
from io import StringIO

import pytest

from sandbox.documents import change_configure, new_order_id
from sandbox.requester import Requester
from tests.support import REPOSITORY
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.cli.output import Format, Report, json_text, show

pytestmark = pytest.mark.slow

#: Escape, C1's own way to say it, a bell, a title, delete, bidirectional overrides and isolates,
#: what joins, line ends of all kinds, a byte order mark, rich's own markup.
NASTY = (
    "a\x1b[31mb\x9b2Jc\x07d\x1b]0;title\x07e\x7ff\u202eg\u2066h\u200di"
    "\r\nj\u2028k\x85l\ufeffm [bold]n[/bold] :smile:"
)
#: The same as far as AMQP's own texts and RabbitMQ take it.
SHORT = "a\x1b[31mb\x9b2J\x07\x7f\u202eg\u2066\u2028\x85[bold]n[/bold]"


def odd_characters(text: str) -> set[str]:
    return {one for one in text if not one.isprintable() and one != "\n"}


def send_hostile(requester: Requester) -> tuple[str, str]:
    """Send a command with such texts everywhere, and an order whose texts reach the journal; both
    are dead-lettered.
    """
    message_id = f"{SHORT}-{uuid.uuid4().hex}"
    requester.command(
        "server.action",
        tenant=NASTY,
        server_id=NASTY,
        message_id=message_id,
        reply_to="ecs.orders",
        correlation_id=SHORT,
        headers={SHORT: NASTY, f"x-{SHORT}": {SHORT: [NASTY]}},
        type=SHORT,
        body={NASTY: NASTY},
    )
    order = json.loads(
        change_configure(str(uuid.uuid4()), str(uuid.uuid4()), order_id=new_order_id())
    )
    order |= {"tenant_id": "tenant-a", "orderType": NASTY, NASTY: NASTY}
    order["productList"][0]["productName"] = NASTY
    requester.order(
        json.dumps(order), "order.odd", message_id=f"{SHORT}-order", headers={SHORT: NASTY}
    )
    # No JSON, so its text is shown as it came; and a known request.
    requester.publish("ecs.commands", "server.action", NASTY.encode(), message_id=f"{SHORT}-text")
    return message_id, order["orderId"]


def test_commands_and_logs_escape_control_characters(workshop: Workshop) -> None:
    workshop.worker(ECS_LOG_FORMAT="console", ECS_LOG_LEVEL="debug")
    with Requester(workshop.broker_url) as requester:
        send_hostile(requester)
        known = requester.command(
            "server.action",
            server_id=str(uuid.uuid4()),
            body={"os-start": None},
            message_id=f"{SHORT}-known",
            headers={SHORT: NASTY},
        )
        requester.result_of(known)
        eventually(lambda: requester.depth("ecs.dead") == 3)
        workshop.running.terminate()
        with_json = workshop.worker(ECS_LOG_LEVEL="debug")
        send_hostile(requester)
        eventually(lambda: requester.depth("ecs.dead") == 6)
        with_json.terminate()
    logs = workshop.logs()
    assert "server.action" in logs
    assert odd_characters(logs) == set()
    for words in (
        ("dead", "list"),
        ("dead", "show", "--all"),
        ("dead", "replay", "--all", "--dry-run"),
        ("journal", "list"),
        ("journal", "show", known),
        ("journal", "show", NASTY),
        ("dead", "show", "--id", NASTY),
    ):
        for output in ("table", "json"):
            done = workshop.command(*words, "-o", output)
            assert odd_characters(done.stdout + done.stderr) == set(), words
            if done.stdout and output == "json":
                json.loads(done.stdout)
    # Nothing is lost for a program: it reads what was sent.
    shown = json.loads(workshop.command("dead", "show", "--all", "-o", "json").stdout)
    assert NASTY in {one["body"]["server_id"] for one in shown if "server_id" in one["body"]}
    at_terminal = shown_at_terminal(workshop, "dead", "show", "--all")
    assert odd_characters(at_terminal.replace("\r\n", "\n")) == set()
    assert "[bold]n[/bold]" in at_terminal


def shown_at_terminal(workshop: Workshop, *words: str) -> str:
    """Return what is printed at a terminal without colours."""
    ours, theirs = pty.openpty()
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(REPOSITORY),
        "HOME": str(workshop.folder),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "workers", *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=workshop.folder,
        env=environment | workshop.settings | {"TERM": "dumb", "COLUMNS": "400", "NO_COLOR": "1"},
    )
    os.close(theirs)
    seen = bytearray()

    def read() -> None:
        with suppress(OSError):  # its end is an error to a terminal
            while chunk := os.read(ours, 65536):
                seen.extend(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    assert process.wait(60) == 0
    reader.join(10)
    os.close(ours)
    return seen.decode()


def test_error_texts_are_escaped_too(workshop: Workshop) -> None:
    """An error, a file's name, a virtual host: whatever comes back in an error's text."""
    odd = f"{workshop.folder}/\x1b[31m\u202e\x9b"
    for words, settings in (
        (("check",), {"ECS_JOURNAL_URL": f"sqlite:///{odd}/x/journal.db"}),
        (
            ("topology", "apply"),
            {"ECS_BROKER_URL": workshop.broker_url + "%1B%5B31m%E2%80%AE%C2%9B"},
        ),
        (("check",), {"ECS_BROKER_URL": workshop.broker_url + "%1B%5B31m%E2%80%AE%C2%9B"}),
        (("plan", odd), {}),
        (("journal", "list"), {"ECS_JOURNAL_URL": f"sqlite:///{odd}/x/journal.db"}),
        (("check",), {"OS_CLIENT_CONFIG_FILE": odd}),
        (("-v", "plan", odd), {}),
    ):
        done = workshop.command(*words, **settings)
        assert done.returncode != 0
        assert odd_characters(done.stdout + done.stderr) == set(), done.stdout + done.stderr


@pytest.mark.parametrize("terminal", [False, True])
def test_every_part_of_a_report_is_escaped(terminal: bool) -> None:
    class File(StringIO):
        def isatty(self) -> bool:
            return terminal

    file = File()
    report = Report(file)
    report.heading(NASTY)
    report.line(NASTY)
    report.facts({NASTY: NASTY})
    report.table([{"name": NASTY, "value": {NASTY: [NASTY]}}])
    report.document({NASTY: NASTY}, 10_000)
    report.document(NASTY, 10_000)
    without_colours = (
        re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue()) if terminal else file.getvalue()
    )
    assert odd_characters(without_colours) == set()
    assert without_colours.count("[bold]n[/bold]") >= 1


def test_json_output_stays_json(capsys: pytest.CaptureFixture[str]) -> None:
    value = {NASTY: [NASTY, "\udc80", "中文 \U0001f600", {"a": None}]}
    assert json.loads(json_text(value)) == value
    assert json.loads(json_text(value, 2)) == value
    assert "中文" in json_text(value)
    show([value], Format.JSONL)
    assert odd_characters(capsys.readouterr().out) == set()
