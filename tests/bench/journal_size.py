"""Bytes that a request takes in the journal, by its kind, whole and pruned, on both databases."""

import time
import uuid
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select, text

from sandbox.openstack import SimulatedOpenStack
from sandbox.postgres import PrivatePostgres
from sandbox.requester import Requester
from tests.bench.measure import Figures
from tests.bench.site import Bench
from tests.support.kinds import (
    Ask,
    change,
    create_image,
    new_servers,
    power,
    renewal,
    taken_down,
    unsubscribe,
)
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.journal import Kind, Retention, schema
from workers.journal.database import migrate, open_engine

#: What a worker carries out once, on the simulated cloud.
_KINDS: dict[str, Ask] = {
    "reboot": power("reboot", {"reboot": {"type": "HARD"}}, "ACTIVE"),
    "createImage": create_image,
    "changeConfigure": change("changed", "resize"),
    "renew": renewal("renewed", "renew"),
    "new (1 server)": new_servers("made", "create:1", 1),
    "unsubscribe": unsubscribe("unsubscribed", "delete:"),
    "softDown": taken_down("taken-down", "stopServer", "os-stop"),
}


@dataclass(frozen=True)
class Stored:
    """The rows of one request."""

    request: dict[str, Any]
    effects: list[dict[str, Any]]


def journal_size(bench: Bench) -> Figures:
    """Carry out a request of each kind, and fill fresh journals with copies of its rows."""
    copies = bench.number(5000)
    found: Figures = {}
    with PrivatePostgres() as postgres:
        for kind, one in _carried_out(bench).items():
            for database in ("SQLite", "PostgreSQL"):
                name = f"size_{uuid.uuid4().hex[:12]}"
                url = f"sqlite:///{bench.folder}/{name}.db"
                if database == "PostgreSQL":
                    url = postgres.add_database(name)
                whole, pruned = _filled(url, one, copies)
                found[f"{kind}, {database} (bytes)"] = whole
                if pruned is not None:
                    found[f"{kind} pruned, {database} (bytes)"] = pruned
    return found


def _carried_out(bench: Bench) -> dict[str, Stored]:
    folder = bench.folder / uuid.uuid4().hex
    folder.mkdir()
    with SimulatedOpenStack(pace=0.1) as cloud, Workshop(bench.vhost(), cloud, folder) as shop:
        shop.worker()
        tenant = shop.tenant()
        asked = {kind: ask(tenant, cloud) for kind, ask in _KINDS.items()}
        with Requester(shop.broker_url) as requester:
            for one in asked.values():
                one.publish(requester)
            for one in asked.values():
                result = requester.order_result_of if one.is_order else requester.result_of
                result(one.message_id, 240)
        # The last updates come after the results of commands.
        eventually(lambda: not _unsettled(folder), 60)
        assert shop.running.terminate() == 0
        return _read(folder)


def _unsettled(folder: Path) -> int:
    with closing(open_engine(f"sqlite:///{folder}/journal.db").connect()) as connection:
        query = select(schema.requests.c.key).where(schema.requests.c.state != "settled")
        return len(connection.execute(query).all())


def _read(folder: Path) -> dict[str, Stored]:
    """Return the rows by kind: each has an operation of its own, or an effect."""
    marks = {
        "reboot": "reboot:",
        "createImage": "createImage",
        "changeConfigure": "resize:",
        "renew": "renew:",
        "new (1 server)": "create:",
        "unsubscribe": "delete:",
        "softDown": "os-stop:",
    }
    found = {}
    with closing(open_engine(f"sqlite:///{folder}/journal.db").connect()) as connection:
        for row in connection.execute(select(schema.requests)).mappings().all():
            of_request = schema.effects.c.request_key == row["key"]
            effects = connection.execute(select(schema.effects).where(of_request)).mappings()
            one = Stored(_plain(row, schema.requests), [_plain(e, schema.effects) for e in effects])
            names = [effect["name"] for effect in one.effects]
            (kind,) = [
                kind for kind, mark in marks.items() if any(n.startswith(mark) for n in names)
            ]
            found[kind] = one
    assert set(found) == set(_KINDS)
    return {kind: found[kind] for kind in _KINDS}


def _plain(row: Any, table: Any) -> dict[str, Any]:
    return {column.key: row[column.name] for column in table.columns}


def _filled(url: str, one: Stored, copies: int) -> tuple[float, float | None]:
    """Return the bytes of each of so many copies, whole and pruned (None: it is deleted whole)."""
    engine = open_engine(url)
    migrate(engine)
    is_order = one.request["kind"] == Kind.ORDER
    with closing(Retention(url)) as retention:
        empty = retention.space().bytes
        for _ in range(0, copies, 500):
            with engine.begin() as connection:
                _copy(connection, one, min(500, copies))
        whole = (retention.space().bytes - empty) / copies
        if not is_order:
            return whole, None
        for _ in retention.prune(time.time() + 1):
            pass
        retention.vacuum()
        if not url.startswith("sqlite"):
            # What is left when the files are made as small as they can be.
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("VACUUM FULL requests"))
                connection.execute(text("VACUUM FULL effects"))
        return whole, (retention.space().bytes - empty) / copies


def _copy(connection: Connection, one: Stored, number: int) -> None:
    """Insert copies with other keys of the same length."""
    old = one.request["name"]
    names: Sequence[str] = [(uuid.uuid4().hex * 8)[: len(old)] for _ in range(number)]
    connection.execute(
        schema.requests.insert(),
        [
            one.request | {"name": name, "key": one.request["key"].replace(old, name)}
            for name in names
        ],
    )
    if one.effects:
        connection.execute(
            schema.effects.insert(),
            [
                effect | {"request_key": one.request["key"].replace(old, name)}
                for name in names
                for effect in one.effects
            ],
        )
