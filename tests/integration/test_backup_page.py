"""docs/operations/backup.md: its commands are run beside workers, on both databases; what was done
after the backup is asked for again after the restore, and nothing happens twice.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.broker import PrivateBroker
from sandbox.openstack import SimulatedOpenStack
from sandbox.postgres import PrivatePostgres
from sandbox.processes import install_debian
from sandbox.requester import Heard, Requester
from tests.openstack.test_marks import KINDS, answered, check_cloud, gist, is_changed
from tests.support import REPOSITORY
from tests.support.consoles import Names, run_page
from tests.support.kinds import Asked
from tests.support.orders import carried_out, paid
from tests.support.workshop import Workshop
from workers.amqp.topology import declare, topology

PAGE = REPOSITORY / "docs" / "operations" / "backup.md"
#: The first command of the page that needs the workers to be stopped.
RESTORE = "rm -f ecs-journal.db"
#: All kinds are asked for on PostgreSQL. On SQLite tests/openstack/test_marks.py does so.
ASKED = {"sqlite": ("renew", "new"), "postgresql": tuple(KINDS)}

pytestmark = pytest.mark.slow


class Site:
    """A worker on one database, and what it is asked for between backup and loss."""

    def __init__(self, workshop: Workshop, kinds: tuple[str, ...]) -> None:
        self.workshop = workshop
        self._kinds = kinds
        self.asked: dict[str, Asked] = {}
        self.first: dict[str, Heard] = {}
        workshop.worker()
        self.earlier = paid("renew", workshop.tenant().make_server(disk=None))
        with Requester(workshop.broker_url) as requester:
            carried_out(requester, self.earlier)

    def work(self) -> None:
        """Carry out what the backup does not know, and stop."""
        tenant = self.workshop.tenant()
        self.asked = {name: KINDS[name](tenant, self.workshop.cloud) for name in self._kinds}
        self.first = self.ask_all()
        assert self.workshop.running.terminate() == 0

    def ask_all(self) -> dict[str, Heard]:
        with Requester(self.workshop.broker_url) as requester:
            for one in self.asked.values():
                one.publish(requester)
            return {name: answered(requester, one) for name, one in self.asked.items()}


@pytest.fixture
def sites(
    broker: PrivateBroker, simulated: SimulatedOpenStack, postgres: PrivatePostgres, tmp_path: Path
) -> Iterator[dict[str, Site]]:
    install_debian(["sqlite3"], lambda: shutil.which("sqlite3") is not None, "sqlite3")
    found: dict[str, Site] = {}
    shops: list[Workshop] = []
    try:
        for name, kinds in ASKED.items():
            folder = tmp_path / name
            folder.mkdir()
            url = broker.add_vhost(f"backup-{name}")
            declare(url, topology())
            shops.append(Workshop(url, simulated, folder))
            shops[-1].settings["ECS_JOURNAL_URL"] = (
                f"sqlite:///{folder}/ecs-journal.db"
                if name == "sqlite"
                else postgres.add_database("backup_page")
            )
            found[name] = Site(shops[-1], kinds)
        yield found
    finally:
        for shop in shops:
            shop.__exit__(None, None, None)


@pytest.mark.timeout(600)
def test_a_journal_restored_as_the_page_says_has_nothing_done_twice(
    sites: dict[str, Site], simulated: Any, tmp_path: Path
) -> None:
    sqlite, postgresql = sites["sqlite"].workshop, sites["postgresql"].workshop
    environment = {
        **sqlite.settings,
        "HOME": str(tmp_path),
        "JOURNAL": postgresql.settings["ECS_JOURNAL_URL"].replace("+psycopg", ""),
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONPATH": str(REPOSITORY),
    }
    environment |= {name: os.environ[name] for name in ("TMPDIR",) if name in os.environ}
    has_worked = False

    def answer(command: str) -> str:
        nonlocal has_worked
        if command.startswith(RESTORE):
            for site in sites.values():
                site.work()
            has_worked = True
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=sqlite.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stderr == "", f"{command}: {done.stderr}"
        return done.stdout

    run_page(PAGE, Names(()), answer)
    assert has_worked
    for site in sites.values():
        # The earlier order alone is known.
        listed = site.workshop.command("journal", "list", "-o", "jsonl").stdout.splitlines()
        assert len(listed) == 1
        site.workshop.worker()
        again = site.ask_all()
        for kind, first in site.first.items():
            assert gist(again[kind]) == gist(first), kind
            # That a server is gone tells not by which order.
            expected = False if kind == "unsubscribe" else is_changed(first)
            assert is_changed(again[kind]) is expected, kind
        check_cloud(list(site.asked.values()), site.workshop.tenant(), simulated)
        # What the backup knows is known.
        shown = site.workshop.command("journal", "show", site.earlier["orderId"])
        assert "settled" in shown.stdout
