"""`ecs-worker demo --stay`: what is printed works, and nothing is left when it ends."""

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support import REPOSITORY
from tests.support.consoles import runs
from tests.support.waiting import eventually
from workers.demo.scenarios import next_steps


class Stay:
    """A demo that stays, as another terminal sees it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "workers", "demo", "--stay"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def processes(self) -> list[psutil.Process]:
        """All that it has started and that run."""
        started = psutil.Process(self._process.pid).children(recursive=True)
        return [one for one in started if runs(one)]

    def end(self, number: signal.Signals | None) -> int:
        """The exit status after a signal, or by itself."""
        if number is not None:
            self._process.send_signal(number)
        status = self._process.wait(60)
        self._reader.join(10)
        return status

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)
        self._reader.join(30)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said += line


@pytest.fixture
def demo() -> Iterator[Stay]:
    stay = Stay()
    yield stay
    stay.close()


def test_a_server_whose_starter_was_interrupted_while_starting_it_is_ended(tmp_path: Path) -> None:
    guardian = subprocess.Popen(
        [sys.executable, "-m", "sandbox.guardian", str(tmp_path / "log"), "sleep", "98765"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert guardian.stdin is not None
    assert guardian.stdout is not None
    guardian.stdin.close()
    guardian.stdout.close()
    guardian.wait(20)
    assert not [one for one in psutil.process_iter(["cmdline"]) if is_sleep(one)]


def is_sleep(process: psutil.Process) -> bool:
    return process.info["cmdline"] == ["sleep", "98765"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_starts_stops_what_was_started(
    demo: Stay, number: signal.Signals
) -> None:
    eventually(lambda: "ready          RabbitMQ" in demo.said, 60)
    begun = time.monotonic()
    eventually(lambda: len(demo.processes()) > 2)
    started = demo.processes()
    assert demo.end(number) == 0
    assert time.monotonic() - begun < 40
    # One that was just being started ends itself when it sees that nobody is left.
    eventually(lambda: [one for one in started if runs(one)] == [])
    assert "In another terminal" not in demo.said


def test_a_part_that_ends_by_itself_ends_the_demo(demo: Stay) -> None:
    eventually(lambda: "Everything runs until Ctrl-C" in demo.said, 90)
    (folder,) = set(re.findall(r"(/\S+/ecs-demo-\w+)/\.env", demo.said))
    started = demo.processes()
    (worker,) = (one for one in started if one.cmdline()[1:] == ["-m", "workers", "run"])
    worker.kill()
    eventually(lambda: "worker-1 has ended" in demo.said, 60)
    assert demo.end(None) == 4
    assert [one for one in started if runs(one)] == []
    assert not Path(folder).exists()


def test_what_the_demo_says_is_next_works(tmp_path: Path) -> None:
    told = next_steps("ecs-worker")
    for page in re.findall(r"docs/[\w/.-]+\.md", told):
        assert (REPOSITORY / page).is_file()
    commands = re.findall(r"^    ecs-worker (.*)$", told, re.MULTILINE)
    assert len(commands) == 5
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY), "HOME": str(tmp_path)}
    for told_words in commands:
        # The first one stays, and is tried by docs/quickstart.md.
        words = told_words.replace("--stay", "--help")
        done = subprocess.run(
            [sys.executable, "-m", "workers", *words.split()],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        # In an empty folder nothing is configured yet.
        expected = 3 if words == "check" else 0
        assert done.returncode == expected, done.stderr
        assert "Traceback" not in done.stderr
        if expected:
            assert "ECS_TRUST_PUBLISHERS" in done.stdout + done.stderr
