"""The command line about itself: help, version, suggestions, completion, manual pages."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from sandbox.processes import install_debian
from tests.support import REPOSITORY
from workers.cli.app import app
from workers.cli.exits import Exit
from workers.cli.man import EXITS, pages, write_pages


def commands(
    command: Any = None, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    found = command or get_command(app)
    yield words, found
    for name, one in getattr(found, "commands", {}).items():
        if not one.hidden:
            yield from commands(one, (*words, name))


COMMANDS = dict(commands())


def run(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "workers", *words],
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(REPOSITORY),
            "COLUMNS": "80",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_version_is_that_of_the_package() -> None:
    done = run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"ecs-worker {version('ecs-worker')}\n"


@pytest.mark.parametrize(
    "words", [(), ("run",), ("journal",), ("journal", "prune"), ("dead", "replay"), ("audit",)]
)
def test_h_is_help(words: tuple[str, ...]) -> None:
    short, long = run(*words, "-h"), run(*words, "--help")
    assert (short.returncode, short.stdout) == (0, long.stdout)
    assert "Usage: " in short.stdout


def test_every_command_option_and_argument_says_what_it_is() -> None:
    silent = [words for words, one in COMMANDS.items() if not one.help]
    for words, one in COMMANDS.items():
        silent += [
            (*words, param.name)
            for param in one.params
            if not (param.help or "").strip() and param.name != "help"
        ]
    assert silent == []


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (("joural",), "Did you mean 'journal'? See ecs-worker --help"),
        (("journal", "prun"), "Did you mean 'prune'? See ecs-worker journal --help"),
        (("journal", "list", "--stat", "x"), "--state"),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(typed: tuple[str, ...], meant: str) -> None:
    done = run(*typed)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert meant in done.stderr


def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    """In a real bash, with the script that the command prints for it."""
    program = tmp_path / "ecs-worker"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m workers "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(_ECS_WORKER_COMPLETE=source_bash ecs-worker)"\n'
        'complete_words() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=();'
        ' _ecs_worker_completion ecs-worker; echo "${COMPREPLY[@]}"; }\n'
        "complete_words ecs-worker journ\n"
        "complete_words ecs-worker journal pr\n"
        "complete_words ecs-worker journal prune --dry\n"
    )
    done = subprocess.run(
        ["bash", "-c", script],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.split() == ["journal", "prune", "--dry-run"], done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_zsh_and_fish_have_a_script_and_its_answers(shell: str) -> None:
    script = run(_ECS_WORKER_COMPLETE=f"source_{shell}")
    assert script.returncode == 0
    assert f"complete_{shell}" in script.stdout
    asked = {
        "_TYPER_COMPLETE_ARGS": "ecs-worker journal pr",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    answer = run(_ECS_WORKER_COMPLETE=f"complete_{shell}", **asked)
    assert "prune" in answer.stdout
    assert "export" not in answer.stdout


def test_each_command_has_a_manual_page_with_all_its_options(tmp_path: Path) -> None:
    install_debian(["groff"], lambda: shutil.which("groff") is not None, "groff")
    written = {path.stem: path for path in write_pages(tmp_path, "1.2.3")}
    assert set(written) == {"-".join(("ecs-worker", *words)) for words in COMMANDS}
    assert set(written) == set(dict(pages("1.2.3")))
    for words, one in COMMANDS.items():
        path = written["-".join(("ecs-worker", *words))]
        done = subprocess.run(
            ["groff", "-man", "-ww", "-K", "utf8", "-T", "utf8", "-P", "-c", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), path.name
        # Without bold and underlined letters, hyphens at the ends of lines, and their indents.
        text = re.sub(r".\x08|\x1b\[[0-9;]*m", "", done.stdout)
        text = " ".join(re.sub(r"[‐-]\n\s*", "-", text).replace("−", "-").split())
        assert "ecs-worker 1.2.3" in text
        for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "SEE ALSO"):
            assert section in text, (path.name, section)
        for name in getattr(one, "commands", ()):
            assert name in text, (path.name, name)
        for param in one.params:
            for option in (*param.opts, *param.secondary_opts):
                if option.startswith("-"):
                    assert option in text, (path.name, option)


def test_the_manual_names_every_exit_code() -> None:
    assert set(EXITS) == set(Exit)
