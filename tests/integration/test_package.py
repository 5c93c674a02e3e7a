"""What is delivered: the wheel works where it is installed, and the repository holds nothing that
it must not.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: A signed token; anybody's machine; a registry that only some can reach.
FORBIDDEN = {
    "a token": re.compile(r"eyJ[\w-]{20,}\.eyJ[\w-]{20,}\.[\w-]{20,}"),
    "a path of a machine": re.compile(r"(?<![\w.])/(?:home|root|Users)/\w"),
    "a host of a registry": re.compile(r"--(?:extra-)?index-url|\b(?:pypi|npmjs)\.org/simple"),
}


def repository() -> list[str]:
    """The files that git knows; of an unpacked archive, all that no tool has made."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    names = [
        name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()
    ]
    made = {
        ".venv",
        "__pycache__",
        ".git",
        "build",
        ".mypy_cache",
        ".ruff_cache",
        ".pytest_cache",
        ".hypothesis",
    }
    return names or [
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*")
        if path.is_file() and not made & set(path.parts)
    ]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content, in a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    tree = folder / "tree"
    for name in repository():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(tree)],
        check=True,
    )
    (wheel,) = folder.glob("*.whl")
    subprocess.run(
        [*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)], check=True
    )
    return folder / "site"


def run(site: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    # -P: not the folder that we are in; only what is installed.
    return subprocess.run(
        [sys.executable, "-P", *words],
        cwd=site.parent,
        env={"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_installed_command_runs(installed: Path) -> None:
    done = run(installed, "-m", "workers", "--help")
    assert done.returncode == 0, done.stderr
    assert "topology" in done.stdout


def test_the_installed_package_has_its_migrations_and_documents(installed: Path) -> None:
    script = (
        "import asyncio, workers, sandbox.documents\n"
        "from workers.journal import Journal\n"
        "journal = Journal('sqlite:///wheel.db')\n"
        "asyncio.run(journal.open())\n"
        "assert 'changeConfigure ' in sandbox.documents.change_configure('a', 'b')\n"
        "print(workers.__file__)\n"
    )
    done = run(installed, "-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(installed))


def test_the_worker_is_light_until_the_cloud_is_called(installed: Path) -> None:
    # rich comes with the command line's tables, cryptography with tokens that are verified.
    heavy = "('openstack', 'typer', 'alembic', 'rich', 'cryptography', 'prometheus_client')"
    script = (
        f"import sys, workers.bootstrap\nprint([name for name in {heavy} if name in sys.modules])"
    )
    assert run(installed, "-c", script).stdout.strip() == "[]"


def test_the_repository_holds_nothing_that_it_must_not() -> None:
    found = []
    for name in repository():
        if ROOT / name != Path(__file__):
            text = (ROOT / name).read_text(encoding="utf-8", errors="replace")
            found += [
                f"{name}: {what}" for what, pattern in FORBIDDEN.items() if pattern.search(text)
            ]
    assert found == []
