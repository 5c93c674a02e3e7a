"""docs/quickstart.md: every command is run as a newcomer does, and prints what the page shows."""

import os
import re
import signal
from pathlib import Path

import psutil

from tests.support import REPOSITORY
from tests.support.consoles import Names, Terminal, need_curl, run_page, runs

PAGE = REPOSITORY / "docs" / "quickstart.md"
#: What runs until it is stopped, the last line that it prints before, and what is typed in its
#: place: what `make` installs is there.
STARTED = "make demo ARGS=--stay"
LAST_LINE = "ecs-worker show"
TYPED = "make -o install demo ARGS=--stay"


def test_every_command_of_the_page_prints_what_it_shows(tmp_path: Path) -> None:
    need_curl()
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(tmp_path), "LANG": "C.UTF-8"}
    env |= {name: os.environ[name] for name in ("TMPDIR",) if name in os.environ}
    with (
        Terminal(REPOSITORY, env) as first,
        Terminal(tmp_path, env) as second,
        Terminal(tmp_path, env) as third,
    ):
        said: list[str] = []

        def answer(command: str) -> str:
            if command == STARTED:
                said.append(first.run(TYPED, until=LAST_LINE))
                return said[0]
            return second.run(command)

        try:
            run_page(PAGE, Names((5672, 8081, 15000)), answer)
            # Whoever copies from the terminal gets an answer to each, too.
            for command in re.findall(r"^  ((?:cd|curl|ecs-worker) .*)$", said[0], re.MULTILINE):
                endless = command.startswith("curl -sN")
                third.run(f"timeout 2 {command}; true" if endless else command)
        finally:
            listed = psutil.Process(first.pid).children(recursive=True)
            started = [one for one in listed if runs(one)]
            (demo,) = (one for one in started if one.cmdline()[2:] == ["demo", "--stay"])
            demo.send_signal(signal.SIGINT)
        assert first.hear().endswith("Everything is stopped.\n")
    assert [one for one in started if runs(one)] == []
    folders = set(re.findall(r"(?<=[ =])/\S+/ecs-(?:demo|openstack)-\w+(?=/)", said[0]))
    assert len(folders) == 2
    assert not [one for one in folders if Path(one).exists()]
