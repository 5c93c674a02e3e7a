"""The table of operations is whole, and says of each request what it locks and what it owes."""

import json

import pytest

from messages.commands import Operation, task_of
from messages.operations import (
    OPERATIONS,
    Finals,
    IncompleteTable,
    Mode,
    Resource,
    _by_task,
    parse_command,
    parse_order,
    spec_of,
)
from messages.orders import OrderType
from tests.support.corpus.case import ID, action, command, ids, order, soft_down

OTHER = ids(1)[0]["id"]


def test_every_operation_and_order_type_has_a_row() -> None:
    assert set(OPERATIONS) == {*Operation, *OrderType}


@pytest.mark.parametrize("missing", [*Operation, *OrderType])
def test_a_missing_row_ends_the_start(
    missing: Operation | OrderType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(OPERATIONS, missing)
    with pytest.raises(IncompleteTable, match=missing.value):
        _by_task()


@pytest.mark.parametrize(
    ("body", "locks", "resources"),
    [
        ({"os-stop": None}, (ID, f"{ID} hard"), (Resource("server", ID, "os-stop"),)),
        ({"reboot": {"type": "SOFT"}}, (ID,), (Resource("server", ID, "reboot"),)),
        ({"reboot": {"type": "HARD"}}, (f"{ID} hard",), (Resource("server", ID, "reboot"),)),
        ({"createImage": {"name": "n", "description": ""}}, (ID, f"{ID} hard"), ()),
        ({"os-getVNCConsole": {"type": "novnc"}}, (), ()),
    ],
)
def test_an_action_locks_its_server(
    body: dict[str, object], locks: tuple[str, ...], resources: tuple[Resource, ...]
) -> None:
    task = task_of(parse_command(action(body), "server.action"))
    spec = spec_of(task)
    assert (spec.locks(task), spec.resources(task)) == (locks, resources)


def test_a_batch_locks_all_its_servers_and_an_order_those_that_it_names() -> None:
    servers = [{"id": ID}, {"id": OTHER}]
    body = {"os-start": {"servers": servers}}
    batch = task_of(parse_command(command("server.batch_action", body=body), "server.batch_action"))
    assert spec_of(batch).locks(batch) == (ID, f"{ID} hard", OTHER, f"{OTHER} hard")
    assert spec_of(batch).finals is Finals.EACH
    for message in (order(), soft_down()):
        found = parse_order(json.loads(json.dumps(message)))
        assert spec_of(found).locks(found) == (ID, f"{ID} hard")


def test_what_changes_nothing_is_not_journaled() -> None:
    modes = {key: {row.mode for row in spec.tasks} for key, spec in OPERATIONS.items()}
    assert modes[Operation.SERVER_LIST] == modes[Operation.ORDER_PLAN] == {Mode.READ}
    assert modes[Operation.SERVER_ACTION] == {Mode.CHANGE, Mode.CONFIDENTIAL}
