"""Manual pages, made from the command line itself: one for each command and group.

Whoever builds the wheel imports this (setup.py): it needs nothing but what the commands' help needs.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.main import get_command

from workers.cli.app import app
from workers.cli.exits import Exit

PROGRAM = "ecs-worker"
EXITS = {
    Exit.OK: "ok; also: a filter matched nothing",
    Exit.UNEXPECTED: "unexpected",
    Exit.USAGE: "usage",
    Exit.CONFIGURATION: "the configuration is wrong",
    Exit.UNREACHABLE: "a dependency cannot be reached",
    Exit.CHECK_FAILED: "a check failed, or there is no such key",
    Exit.PARTLY: "done in part",
    Exit.REFUSED: "refused",
}


def write_pages(folder: Path, version: str) -> list[Path]:
    """Write all pages as `<name>.1` into a folder, which is made, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in pages(version):
        path = folder / f"{name}.1"
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def pages(version: str) -> Iterator[tuple[str, str]]:
    """Yield name and roff text of each page, groups before their commands."""
    yield from _pages(get_command(app), None, version)


def _pages(command: Any, parent: Any, version: str) -> Iterator[tuple[str, str]]:
    own = command.name if parent else PROGRAM
    context = typer.Context(command, info_name=own, parent=parent, **command.context_settings)
    name = context.command_path.replace(" ", "-")
    subcommands = [one for one in getattr(command, "commands", {}).values() if not one.hidden]
    yield name, _page(context, subcommands, version)
    for one in subcommands:
        yield from _pages(one, context, version)


def _page(context: Any, subcommands: list[Any], version: str) -> str:
    command, path = context.command, context.command_path
    name = path.replace(" ", "-")
    summary, _, rest = (command.help or "").strip().partition("\n\n")
    lines = [
        f'.TH "{_text(name.upper())}" "1" "" "{PROGRAM} {version}" "{PROGRAM}"',
        ".SH NAME",
        f"{_text(name)} \\- {_text(_one_line(summary).rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {_text(path)}",
        _text(" ".join(command.collect_usage_pieces(context))),
        ".SH DESCRIPTION",
        _text(_one_line(summary)),
    ]
    for paragraph in filter(None, rest.split("\n\n")):
        lines += [".PP", _text(_one_line(paragraph))]
    records = [(one, one.get_help_record(context)) for one in command.get_params(context)]
    for title, kind in (("ARGUMENTS", "argument"), ("OPTIONS", "option")):
        shown = [record for one, record in records if one.param_type_name == kind and record]
        lines += _listed(title, shown)
    lines += _listed(
        "COMMANDS",
        [(one.name, _one_line((one.help or "").partition("\n\n")[0])) for one in subcommands],
    )
    if context.parent is None:
        lines += _listed("EXIT STATUS", [(str(code.value), text) for code, text in EXITS.items()])
        lines += [
            ".SH ENVIRONMENT",
            "Variables that begin with ECS_ or OS_, also from the file .env of the working directory; the",
            "environment wins. docs/reference/configuration.md has all of them.",
        ]
    seen = [one for one in (context.parent, context.find_root()) if one and one is not context]
    also = dict.fromkeys(one.command_path.replace(" ", "-") for one in seen)
    also |= dict.fromkeys(f"{name}-{one.name}" for one in subcommands)
    lines += [".SH SEE ALSO", ", ".join(f"\\fB{_text(one)}\\fR(1)" for one in also)]
    return "\n".join(lines) + "\n"


def _listed(title: str, rows: list[Any]) -> list[str]:
    """Return a section with a term and its explanation for each row; none without rows."""
    if not rows:
        return []
    return [f".SH {title}"] + [
        line
        for term, text in rows
        for line in (".TP", f".B {_text(term)}", _text(_one_line(text or "")))
    ]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _text(text: str) -> str:
    """Return a text in which nothing is a request of roff's."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^(?=[.'])", r"\\&", escaped, flags=re.MULTILINE)
