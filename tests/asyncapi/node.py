"""Packages of Node, AsyncAPI's tools among them: installed through npm, once for all test runs.

The tools take 390 MB and half a minute to a minute. They stand in a cache folder outside the
repository (`$XDG_CACHE_HOME` or `~/.cache`), one for each state of a lock file.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from sandbox.processes import SandboxError

_HERE = Path(__file__).parent
#: The oldest Node that the tools run on; Debian 12's own is 18.
OLDEST = (20, 19)
#: Seconds for npm to install, and for a tool to end.
INSTALL_LIMIT, TOOL_LIMIT = 600, 300


def cache_folder() -> Path:
    """Return the folder of what tests fetch once."""
    found = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ecs-worker"
    found.mkdir(parents=True, exist_ok=True)
    return found


def installed(home: Path = _HERE) -> Path:
    """Return the folder in which `node_modules` has what `home`'s lock file names.

    Raises `SandboxError` where there is no Node or an older one.
    """
    if _version() < OLDEST or shutil.which("npm") is None:
        raise SandboxError(
            "Node 20.19 or newer with npm is missing, which AsyncAPI's tools and the examples need: "
            "install it from https://nodejs.org (Debian 12 has Node 18)"
        )
    lock = (home / "package-lock.json").read_bytes()
    cache = cache_folder()
    folder = cache / f"node-{hashlib.sha256(lock).hexdigest()[:16]}"
    with (cache / "node.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not folder.is_dir():
            _install(home, folder)
    return folder


def _version() -> tuple[int, ...]:
    if shutil.which("node") is None:
        return ()
    done = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    return tuple(int(one) for one in done.stdout.strip().removeprefix("v").split(".")[:2])


def _install(home: Path, folder: Path) -> None:
    """Install beside the folder, then rename: a folder that is there is whole."""
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(home / name, part)
    # No scripts of packages are run: one of them would download a browser, another reports home.
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(
        command, cwd=part, capture_output=True, text=True, timeout=INSTALL_LIMIT, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stderr[-3000:]}"
    part.rename(folder)


def run_tool(
    command: str,
    document: Path,
    target: Path,
    script: Path = _HERE / "tools.mjs",
    home: Path = _HERE,
) -> str:
    """Run a tool with the packages of `home`'s lock file, and return what it prints; it writes into
    the folder `target`.
    """
    done = subprocess.run(
        ["node", "--input-type=module", "-", command, str(document), str(target)],
        cwd=installed(home),
        input=script.read_text(encoding="utf-8"),
        capture_output=True,
        text=True,
        timeout=TOOL_LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
