"""Packages: wheels, source distribution and bill of materials as `make` builds them; that the
wheel works where it is installed; and that the repository holds nothing that it must not.
"""

import email
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from pathlib import Path

import pytest

from tests.support.archives import extract

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
        name
        for name in listed.stdout.decode().split("\0")
        if name and ((ROOT / name).is_file() or (ROOT / name).is_symlink())
    ]
    made = {
        ".venv",
        "__pycache__",
        ".git",
        "build",
        "dist",
        "ecs_worker.egg-info",
        ".import_linter_cache",
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


def make(*words: str, folder: Path = ROOT, **variables: str) -> None:
    """Run targets of the Makefile with this environment's tools."""
    # -o: the environment is there.
    given = [f"{name}={value}" for name, value in variables.items()]
    done = subprocess.run(
        ["make", "-s", "-o", "install", f"BIN={Path(sys.executable).parent}", *given, *words],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's files, in a folder of their own: builds write beside what they build."""
    folder = tmp_path_factory.mktemp("tree")
    for name in repository():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_symlink():
            (folder / name).symlink_to((ROOT / name).readlink())
        else:
            (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def dist(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what `make dist` and `make sbom` build, without a project's page."""
    folder = tmp_path_factory.mktemp("dist")
    make("dist", "sbom", folder=tree, DIST=str(folder), ECS_PROJECT_URL="")
    return folder


def one(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("dist-info/METADATA")]
        return email.message_from_bytes(archive.read(name))


def uv(*words: str) -> str:
    done = subprocess.run(
        [Path(sys.executable).with_name("uv"), *words],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with what requirements.txt pins by hashes, and the wheel: its Python."""
    folder = tmp_path_factory.mktemp("installed")
    uv("venv", "--quiet", "--python", sys.executable, str(folder / "venv"))
    python = str(folder / "venv" / "bin" / "python")
    install = ("pip", "install", "--quiet", "--python", python)
    uv(*install, "--require-hashes", "--requirement", str(ROOT / "requirements.txt"))
    uv(*install, "--no-deps", str(one(dist, "ecs_worker-*.whl")))
    uv("pip", "check", "--python", python)
    return Path(python)


def run(python: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    # -P: not the folder that we are in; only what is installed.
    return subprocess.run(
        [python, "-P", *words],
        cwd=python.parents[2],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_installed_command_runs(installed: Path) -> None:
    done = run(installed, "-m", "workers", "--help")
    assert done.returncode == 0, done.stderr
    assert "topology" in done.stdout
    assert run(installed, str(installed.with_name("ecs-worker")), "probe").returncode == 4


def test_the_wheel_brings_a_manual_page_of_each_command(installed: Path) -> None:
    pages = {page.stem for page in (installed.parents[1] / "share" / "man" / "man1").glob("*.1")}
    listed = run(installed, "-c", "from workers.cli.man import pages\nprint(*dict(pages('1')))")
    assert pages == set(listed.stdout.split())
    assert {"ecs-worker", "ecs-worker-run", "ecs-worker-journal-prune"} <= pages


def test_the_installed_package_has_its_migrations_and_examples(installed: Path) -> None:
    script = (
        "import asyncio, messages, workers, gateway.app\n"
        "from pathlib import Path\n"
        "from workers.journal import Journal\n"
        "journal = Journal('sqlite:///wheel.db')\n"
        "asyncio.run(journal.open())\n"
        "assert Path(messages.__file__).with_name('examples.json').is_file()\n"
        "print(workers.__file__)\n"
    )
    done = run(installed, "-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(installed.parents[1]))


def test_the_demo_has_a_wheel_of_its_own_and_is_missed_with_a_word(
    installed: Path, dist: Path
) -> None:
    for command in ("demo", "simulated-openstack"):
        done = run(installed, "-m", "workers", command)
        assert (done.returncode, "ecs_worker_sandbox" in done.stderr) == (3, True)
    wheel = str(one(dist, "ecs_worker_sandbox-*.whl"))
    uv("pip", "install", "--quiet", "--python", str(installed), "--no-deps", wheel)
    uv("pip", "check", "--python", str(installed))
    done = run(installed, "-m", "workers", "demo", "--openstack", "imagined")
    assert (done.returncode, "simulated or real" in done.stderr) == (2, True)
    script = (
        "import sandbox.documents, sandbox.openstack, workers.demo.scenarios\n"
        "assert 'changeConfigure ' in sandbox.documents.change_configure('a', 'b')\n"
    )
    done = run(installed, "-c", script)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("pattern", "folders", "without"),
    [
        (
            "ecs_worker-*.whl",
            ("messages/", "handlers/", "workers/", "ecs_client/", "gateway/"),
            ("workers/demo/", "ecs_client/VERSION", "ecs_client/pyproject.toml"),
        ),
        (
            "ecs_worker_sandbox-*.whl",
            ("sandbox/", "workers/demo/"),
            ("sandbox/VERSION", "sandbox/pyproject.toml"),
        ),
    ],
)
def test_a_wheel_has_every_file_of_its_packages_and_no_other(
    dist: Path, pattern: str, folders: tuple[str, ...], without: tuple[str, ...]
) -> None:
    with zipfile.ZipFile(one(dist, pattern)) as archive:
        # Beside the packages: metadata, and the manual pages.
        found = {
            name for name in archive.namelist() if not re.match(r"[^/]+\.(dist-info|data)/", name)
        }
    wanted = {name for name in repository() if name.startswith(folders)}
    assert found == {name for name in wanted if not name.startswith(without)}


def test_the_source_distribution_is_the_repository_and_its_tests_run(
    dist: Path, tmp_path: Path
) -> None:
    with tarfile.open(one(dist, "ecs_worker-*.tar.gz")) as archive:
        extract(archive, tmp_path)
    (unpacked,) = tmp_path.iterdir()
    found = {
        str(path.relative_to(unpacked))
        for path in unpacked.rglob("*")
        if path.is_file() and "ecs_worker.egg-info" not in path.parts
    }
    # A link to a folder becomes the files in it.
    links = tuple(f"{name}/" for name in repository() if (ROOT / name).is_dir())
    found = {name for name in found if not name.startswith(links)}
    wanted = {name for name in repository() if not (ROOT / name).is_dir()}
    assert found == wanted | {"PKG-INFO", "setup.cfg"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/test_docs.py"],
        cwd=unpacked,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]


def links_of(text: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", text)


def test_the_wheels_links_lead_to_the_projects_page_or_there_are_none(
    dist: Path, tree: Path, tmp_path: Path
) -> None:
    without = metadata(one(dist, "ecs_worker-*.whl"))
    assert without.get_all("Project-URL") is None
    assert [one for one in links_of(str(without.get_payload())) if "://" not in one] == []

    page = "https://git.example/cloud/ecs-worker"
    make("dist", folder=tree, DIST=str(tmp_path), ECS_PROJECT_URL=page)
    for built in (one(tmp_path, "ecs_worker-*.whl"), one(tmp_path, "ecs_worker-*.tar.gz")):
        if built.suffix == ".whl":
            made = metadata(built)
        else:
            with tarfile.open(built) as archive:
                (info,) = [one for one in archive.getnames() if re.fullmatch("[^/]+/PKG-INFO", one)]
                file = archive.extractfile(info)
                assert file is not None
                made = email.message_from_bytes(file.read())
        assert f"Homepage, {page}" in made.get_all("Project-URL", [])
        base = f"{page}/blob/v{made['Version']}/"
        links = [one for one in links_of(str(made.get_payload())) if not one.startswith("#")]
        ours = [one for one in links if one.startswith(page)]
        assert len(ours) > 20
        assert [one for one in links if "://" not in one] == []
        for link in ours:
            path = link.replace("/raw/", "/blob/").removeprefix(base).partition("#")[0]
            assert (ROOT / path).exists(), link


def test_what_is_pinned_by_hash_is_what_is_pinned(dist: Path) -> None:
    def pins(name: str) -> dict[str, str]:
        found = re.findall(r"(?m)^([\w.-]+)==([\w.]+)", (ROOT / name).read_text(encoding="utf-8"))
        return {re.sub(r"[-_.]+", "-", package).lower(): version for package, version in found}

    hashed, pinned = pins("requirements.txt"), pins("constraints.txt")
    # colorama is needed on Windows alone, for which nothing is pinned.
    assert {name: hashed[name] for name in hashed.keys() - {"colorama"}}.items() <= pinned.items()

    bill = json.loads((dist / "ecs-worker.cdx.json").read_text(encoding="utf-8"))
    version = (ROOT / "ecs_client" / "VERSION").read_text(encoding="utf-8").strip()
    whole = bill["metadata"]["component"]
    assert (bill["bomFormat"], whole["name"], whole["version"]) == (
        "CycloneDX",
        "ecs-worker",
        version,
    )
    listed = {
        re.sub(r"[-_.]+", "-", part["name"]).lower(): part["version"] for part in bill["components"]
    }
    assert listed == {name: hashed[name] for name in hashed.keys() - {"colorama"}}
    assert all(part["purl"].startswith("pkg:pypi/") for part in bill["components"])
    assert str(ROOT) not in json.dumps(bill)


def test_the_image_is_given_what_its_wheel_is_made_of() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    script = (ROOT / "setup.py").read_text(encoding="utf-8")
    packages = set(re.findall(r'"(\w+)\*"', script.partition("PRODUCT = ")[2].partition("\n")[0]))
    assert packages <= allowed
    assert {"pyproject.toml", "setup.py", "requirements.txt", "README.md", "LICENSE"} <= allowed


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
        if (ROOT / name).is_file() and ROOT / name != Path(__file__):
            text = (ROOT / name).read_text(encoding="utf-8", errors="replace")
            found += [
                f"{name}: {what}" for what, pattern in FORBIDDEN.items() if pattern.search(text)
            ]
    assert found == []
