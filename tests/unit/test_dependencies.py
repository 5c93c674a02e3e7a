"""Tests that what pyproject.toml declares is imported, and the other way round."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PRODUCT = ("messages", "handlers", "workers", "sandbox", "ecs_client", "gateway")
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
#: Declared, and not imported by name.
DATA = {
    "tzdata",  # the time zones that zoneinfo reads where the machine has none
    "opentelemetry-exporter-otlp-proto-http",  # found by its entry point
}
#: Folders that several distributions share: their modules are told apart by the second name.
SHARED = {"opentelemetry"}
#: Of the development tools: what is run, not imported.
TOOLS = {
    "cyclonedx-bom",
    "import-linter",
    "kubernetes-validate",
    "mypy",
    "pip-audit",
    "podman-compose",
    "pytest-xdist",
    "pytest-asyncio",
    "pytest-timeout",
    "ruff",
    "setuptools",
    "types-cachetools",
    "types-psutil",
    "types-pyyaml",
    "uv",
}


def declared(requirements: Iterable[str]) -> set[str]:
    return {normal(re.split(r"[\[<>=!~; ]", one, maxsplit=1)[0]) for one in requirements}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def modules(folders: Iterable[str]) -> set[str]:
    """The first names of all that is imported, of the standard library and of the repository itself
    apart.
    """
    found = {
        name
        for folder in folders
        for path in (REPOSITORY / folder).rglob("*.py")
        for name in imported(path)
    }
    return found - set(sys.stdlib_module_names) - {*PRODUCT, "tests"}


def imported(path: Path) -> Iterator[str]:
    if "ministack" in path.parts:  # runs in the control plane's own environment
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (package(one.name) for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield package(node.module)


def package(module: str) -> str:
    """The name that tells which distribution a module is of."""
    names = module.split(".")
    return ".".join(names[: 2 if names[0] in SHARED else 1])


def sharers() -> dict[str, list[str]]:
    """The distributions of the modules in shared folders."""
    found: dict[str, list[str]] = {}
    for one in metadata.distributions():
        for file in one.files or ():
            if file.parts[0] in SHARED and len(file.parts) > 2:
                found.setdefault(".".join(file.parts[:2]), []).append(one.name)
    return found


def distributions(names: Iterable[str]) -> set[str]:
    known = {**metadata.packages_distributions(), **sharers()}
    return {normal(known[name][0]) if name in known else f"unknown: {name}" for name in names}


def test_what_is_imported_is_declared() -> None:
    assert distributions(modules(PRODUCT)) - declared(PROJECT["dependencies"]) == set()


def test_what_is_declared_is_imported() -> None:
    assert declared(PROJECT["dependencies"]) - distributions(modules(PRODUCT)) == DATA


def test_the_extras_hold_what_the_tests_import_and_the_tools_that_are_run() -> None:
    extras = {name: declared(listed) for name, listed in PROJECT["optional-dependencies"].items()}
    needed = distributions(modules(["tests"])) - declared(PROJECT["dependencies"])
    assert needed - extras["dev"] - extras["bench"] == set()
    assert extras["dev"] - needed == TOOLS
    for_bench = distributions(modules(["tests/bench"])) - declared(PROJECT["dependencies"])
    assert extras["bench"] == for_bench


def test_all_that_is_declared_is_pinned() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {normal(one.partition("==")[0]) for one in lines if one and not one.startswith("#")}
    wanted = declared(PROJECT["dependencies"])
    for listed in PROJECT["optional-dependencies"].values():
        wanted |= declared(listed)
    assert wanted <= pinned
