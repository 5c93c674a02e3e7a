"""Pages whose `console` blocks are run: what a command printed is compared with what the page shows.

A line that begins with `$ ` is a command, the lines up to the next one are its output. What differs
from run to run has a name on the page, and a command is run with what the name stands for.
"""

import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

import psutil
import pytest

from sandbox.processes import install_debian
from tests.support import REPOSITORY

_BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.DOTALL | re.MULTILINE)
_TEMPORARY = re.escape(tempfile.gettempdir())
#: What stands for the first, the second … thing of its kind.
_KINDS: tuple[tuple[str, Callable[[int], str]], ...] = (
    (
        r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b",
        lambda n: f"{n:08x}-0000-4000-8000-{n:012x}",
    ),
    (r"\b[0-9a-f]{56}\b", lambda n: f"{n:056x}"),
    (r"\b[0-9a-f]{32}\b", lambda n: f"{n:032x}"),
    (r"\b[1-9][0-9]{17}\b", lambda n: f"{178549870045495295 + n}"),
    (rf"{_TEMPORARY}/ecs-demo-\w+", lambda n: f"/tmp/ecs-demo-{n:08}"),
    (rf"{_TEMPORARY}/ecs-openstack-\w+", lambda n: f"/tmp/ecs-openstack-{n:08}"),
)
#: What is shown in the place of a time, which no command needs.
_TIMES = (
    (r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d", "2026-11-23T10:00:00"),
    (r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d", "2026-11-23 10:00:00"),
    (r"(?<=:\d\d)\.\d{3,6}(?=Z|\b)", ".123"),
    (r" +\d+\.\d s  ready (.*) \(\d+\.\d s\)", r"   1.0 s  ready \1 (1.0 s)"),
    (r"\(\d+s ago\)", "(12s ago)"),
    (r"fa:16:3e(:[0-9a-f]{2}){3}", "fa:16:3e:00:00:01"),
)


def need_curl() -> None:
    """Install curl where it is missing."""
    install_debian(["curl"], lambda: shutil.which("curl") is not None, "curl")


class Names:
    """Holds what the page calls what differs from run to run; `ports` are called so in the sequence
    in which they are seen.
    """

    def __init__(self, ports: tuple[int, ...]) -> None:
        tools = Path(sys.executable).parent
        self._shown = {str(tools): "~/ecs-worker/.venv/bin"}
        self._kinds = (*_KINDS, (r"(?<=127\.0\.0\.1:)\d+", lambda n: str(ports[n - 1])))
        self._counts = [0] * len(self._kinds)

    def shown(self, text: str) -> str:
        """Return a text as the page shows it."""
        for number, (pattern, name) in enumerate(self._kinds):
            for found in re.finditer(pattern, text):
                if found[0] not in self._shown:
                    self._counts[number] += 1
                    self._shown[found[0]] = name(self._counts[number])
        # Of what is shown nothing is replaced again: a port may be called as another one is.
        known = sorted(self._shown, key=len, reverse=True)
        text = re.sub("|".join(map(re.escape, known)), lambda found: self._shown[found[0]], text)
        for pattern, name in _TIMES:
            text = re.sub(pattern, name, text)
        return text

    def meant(self, text: str) -> str:
        """Return a command of the page as it is run."""
        names = {shown: real for real, shown in self._shown.items()}
        known = sorted(names, key=len, reverse=True)
        return re.sub("|".join(map(re.escape, known)), lambda found: names[found[0]], text)


class Terminal:
    """A shell that is typed into; a context manager."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._shell = subprocess.Popen(
            ["bash", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=dict(env),
            start_new_session=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def pid(self) -> int:
        """The process id of the shell, and its group's."""
        return self._shell.pid

    def run(self, command: str, until: str | None = None, seconds: float = 90.0) -> str:
        """Type a command; return what it printed until it ended, or until a line that matches.

        Raises `AssertionError` where it does not end, or ends with another status than 0.
        """
        assert self._shell.stdin is not None
        self._shell.stdin.write(f'{command}\necho "== ended $?"\n'.encode())
        self._shell.stdin.flush()
        try:
            return self.hear(until, seconds)
        except AssertionError as error:
            raise AssertionError(f"{command}\n{error}") from None

    def hear(self, until: str | None = None, seconds: float = 90.0) -> str:
        """Return what is printed next, as `run` does."""
        heard, limit = "", time.monotonic() + seconds
        while True:
            try:
                line = self._lines.get(timeout=max(0.01, limit - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"does not end in {seconds} s: {heard}") from None
            # The last line may have had no end.
            before, ended, status = line.partition("== ended ")
            if ended:
                assert status.strip() == "0", f"ended with {status.strip()}: {heard}{before}"
                return heard + before
            heard += line
            if until is not None and re.search(until, line):
                return heard

    def close(self) -> None:
        """End the shell."""
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        self._shell.wait(30)

    def _read(self) -> None:
        assert self._shell.stdout is not None
        for line in self._shell.stdout:
            self._lines.put(line.decode())

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def runs(process: psutil.Process) -> bool:
    """Tell whether a process has not ended."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def run_page(
    page: Path, names: Names, answer: Callable[[str], str], known: Callable[[str], str] = str
) -> None:
    """Run the commands of a page by `answer`, which returns what a command printed; fail where the
    page shows something else, or write it anew under ECS_WRITE_DOCS. `known` is done to an output
    before it is compared.
    """
    text = page.read_text(encoding="utf-8")

    def as_run(block: re.Match[str]) -> str:
        parts = []
        for command in _commands(block[0]):
            output = known(names.shown(answer(names.meant(command))))
            parts.append(f"$ {command}\n{output.rstrip()}".rstrip() + "\n")
        return "".join(parts)

    found = _BLOCK.sub(as_run, text)
    if os.environ.get("ECS_WRITE_DOCS"):
        page.write_text(found, encoding="utf-8")
    if page.read_text(encoding="utf-8") != found:
        name = page.relative_to(REPOSITORY)
        pytest.fail(f"{name} is out of date (make docs). What was printed:\n{found}")


def _commands(block: str) -> list[str]:
    """Return the commands of a block; one that ends in a backslash goes on in the next line."""
    found: list[str] = []
    goes_on = False
    for line in block.splitlines():
        if goes_on:
            found[-1] += f"\n{line}"
        elif line.startswith("$ "):
            found.append(line[2:])
        else:
            continue
        goes_on = line.endswith("\\")
    return found
