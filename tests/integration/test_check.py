"""`ecs-worker check` of a journal and of clouds.yaml; a worker is not ready where the check fails."""

import json
import os
import stat
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.broker import PrivateBroker
from sandbox.postgres import PrivatePostgres
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.journal.database import open_engine

pytestmark = pytest.mark.slow


def checked(workshop: Workshop, code: int, **settings: str) -> dict[str, dict[str, str]]:
    """The last line of each kind that the command prints; it must end with this code."""
    done = workshop.command("check", "-o", "json", **settings)
    assert done.returncode == code, done.stdout + done.stderr
    return {row["check"]: row for row in json.loads(done.stdout)}


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_does_not_hold_every_text_is_refused(
    workshop: Workshop, postgres: PrivatePostgres, encoding: str
) -> None:
    url = postgres.add_database(f"odd-{uuid.uuid4().hex[:8]}", encoding)
    found = checked(workshop, 5, ECS_JOURNAL_URL=url)["journal"]
    assert (found["result"], encoding in found["found"], "UTF8" in found["found"]) == (
        "failed",
        True,
        True,
    )
    done = workshop.command("run", ECS_JOURNAL_URL=url)
    assert done.returncode == 7
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert line.startswith("ECS_JOURNAL_URL: ")
    assert encoding in line


def test_texts_are_utf8_whatever_the_url_and_the_environment_say(
    workshop: Workshop, postgres: PrivatePostgres
) -> None:
    url = postgres.add_database(f"utf8-{uuid.uuid4().hex[:8]}") + "?client_encoding=latin1"
    with open_engine(url).connect() as connection:
        assert connection.exec_driver_sql("SELECT '云服务器'").scalar() == "云服务器"
        assert connection.exec_driver_sql("SHOW client_encoding").scalar() == "UTF8"
    assert (
        checked(workshop, 0, ECS_JOURNAL_URL=url, PGCLIENTENCODING="LATIN1")["journal"]["result"]
        != "failed"
    )


def test_a_password_among_the_journals_options_is_not_shown(workshop: Workshop) -> None:
    url = "postgresql://127.0.0.1:1/x?user=u&password=geheim"
    done = workshop.command("check", ECS_JOURNAL_URL=url)
    assert done.returncode == 4
    assert "geheim" not in done.stdout + done.stderr


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_only_its_owner_may_read_the_journal_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    folder = tmp_path / "new"
    before = os.umask(umask)
    try:
        engine = open_engine(f"sqlite:///{folder}/journal.db")
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE x (y)")
            modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in folder.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"journal.db": 0o600, "journal.db-wal": 0o600, "journal.db-shm": 0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_journal_that_others_may_read_is_a_warning(workshop: Workshop) -> None:
    workshop.folder.chmod(0o700)
    workshop.worker()
    rows = json.loads(workshop.command("check", "-o", "json").stdout)
    assert [row["result"] for row in rows if row["check"] == "journal"] == ["ok"]
    (workshop.folder / "journal.db").chmod(0o640)
    workshop.folder.chmod(0o755)
    rows = json.loads(workshop.command("check", "-o", "json").stdout)
    told = [
        row["found"] for row in rows if row["check"] == "journal" and row["result"] == "warning"
    ]
    assert {one.partition(" ")[0].rpartition("/")[2] for one in told} >= {
        workshop.folder.name,
        "journal.db",
    }
    assert any("drwxr-xr-x" in one for one in told)
    assert any("-rw-r-----" in one for one in told)


def _written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


BROKEN: dict[str, tuple[Callable[[Path], str], str]] = {
    "missing": (lambda folder: str(folder / "nowhere.yaml"), "cannot be read: No such file"),
    "a folder": (str, "cannot be read: Is a directory"),
    "no YAML": (
        lambda folder: _written(folder / "bad.yaml", "clouds: [geheim\n  - {"),
        "is no YAML",
    ),
    "empty": (lambda folder: _written(folder / "empty.yaml", ""), "has no clouds"),
    "no text": (lambda folder: _written(folder / "bytes.yaml", "\x00\x01geheim"), "is no YAML"),
    "another's": (
        lambda folder: _written(folder / "other.yaml", "clouds: {other: {auth: {}}}"),
        "ecs-worker was not found",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_clouds_yaml_that_cannot_be_used_is_reported(workshop: Workshop, case: str) -> None:
    make, word = BROKEN[case]
    file = make(workshop.folder)
    settings = {"OS_CLIENT_CONFIG_FILE": file}
    for name in ("ECS_ADMIN_CLOUD", "ECS_REGION"):
        workshop.settings.pop(name, None)
    found = checked(workshop, 5, ECS_REGION="RegionOne", **settings)["keystone"]
    assert found["result"] == "failed"
    assert word in found["found"]
    assert "geheim" not in str(found)
    # The region stands there, too: without it nothing is begun.
    done = workshop.command("run", **settings)
    assert done.returncode == 3
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert word in line
    if case in ("missing", "another's"):
        worker = workshop.worker(wait=False, ECS_REGION="RegionOne", **settings)
        eventually(lambda: any(word in one for one in worker.problems()), 30)
        assert not any("://" in one for one in worker.problems())


def test_nodes_that_do_not_know_each_other_are_told(workshop: Workshop) -> None:
    # Both run, as nodes do that a partition has left apart, and each takes what it is given.
    ours = workshop.settings["ECS_BROKER_URL"]
    with PrivateBroker() as other:
        theirs = other.add_vhost(ours.rpartition("/")[2])
        found = checked(workshop, 5, ECS_BROKER_URL=f"{ours},{theirs}")["broker"]
    assert found["result"] == "failed"
    assert "does not know the queues of the other nodes" in found["found"]


def test_nodes_that_know_each_other_are_ok(workshop: Workshop) -> None:
    ours = workshop.settings["ECS_BROKER_URL"]
    again = ours.replace("127.0.0.1", "localhost")
    assert checked(workshop, 0, ECS_BROKER_URL=f"{ours},{again}")["broker"]["result"] == "ok"
