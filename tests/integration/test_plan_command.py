"""`ecs-worker plan`: the preview of an order, with the cloud alone; no broker, journal or worker."""

import json
from pathlib import Path
from typing import Any

from tests.support.new_orders import new
from tests.support.orders import paid, soft_down
from tests.support.workshop import Workshop

UNKNOWN = "00000000-0000-4000-8000-000000000000"
NO_BROKER = {
    "ECS_BROKER_URL": "amqp://guest:guest@127.0.0.1:1//",
    "ECS_JOURNAL_URL": "sqlite:////nowhere/journal.db",
}


def written(workshop: Workshop, order: Any) -> str:
    path: Path = workshop.folder / "order.json"
    path.write_text(order if isinstance(order, str) else json.dumps(order), encoding="utf-8")
    return str(path)


def test_a_preview_is_printed_and_nothing_is_changed(workshop: Workshop) -> None:
    tenant = workshop.tenant()
    server_id = tenant.make_server(disk=None)
    order = paid("changeConfigure", server_id, tenant=None)
    order["productList"][0]["itemList"] = [
        {"code": "std_2C4G", "value": "S1.medium.2", "name": "S1.medium.2"}
    ]
    executed = workshop.cloud.executed()
    path = written(workshop, order)
    told = workshop.command("plan", path, **NO_BROKER)
    assert (told.returncode, told.stderr) == (0, "")
    assert f"order.changeConfigure {order['orderId']}: would be carried out" in told.stdout
    assert [line.split()[1] for line in told.stdout.splitlines() if line[:1].isdigit()] == [
        "resize",
        "confirm",
        "feeData",
    ]
    (plan,) = json.loads(workshop.command("plan", path, "-o", "json", **NO_BROKER).stdout)
    assert (plan["verdict"], plan["cannotBeUndone"]) == ("carried_out", [2])
    line = workshop.command("plan", path, "-o", "jsonl", **NO_BROKER).stdout
    assert json.loads(line) == plan
    assert tenant.actions(server_id) == ["create"]
    assert [
        one for one in workshop.cloud.executed()[len(executed) :] if not one.startswith("keystone")
    ] == []


def test_an_order_that_would_be_refused_exits_5(workshop: Workshop) -> None:
    told = workshop.command("plan", written(workshop, paid("renew", UNKNOWN)))
    assert told.returncode == 5
    assert "would be refused" in told.stdout
    assert "FAILED" in told.stdout
    assert "101.001033" in told.stdout
    wrong = workshop.command("plan", written(workshop, paid("paint", UNKNOWN)), "-o", "json")
    assert wrong.returncode == 5
    assert json.loads(wrong.stdout)[0]["message"] == "参数orderType不符合规范"


def test_servers_of_several_tenants_and_orders_without_a_tenant(workshop: Workshop) -> None:
    mine, theirs = (
        workshop.tenant(name).make_server(disk=None) for name in ("tenant-a", "tenant-b")
    )
    both = workshop.command(
        "plan", written(workshop, soft_down((mine, "stopServer"), (theirs, "stopServer")))
    )
    assert both.returncode == 0
    assert both.stdout.count(" stop ") == 2
    order = new(workshop.tenant(), tenant_id=None)
    assert workshop.command("plan", written(workshop, order)).returncode == 5
    assert (
        workshop.command("plan", written(workshop, order), "--tenant", "tenant-a").returncode == 0
    )
    assert workshop.command("plan", written(workshop, order), "--tenant", "nobody").returncode == 2


def test_secrets_are_not_shown(workshop: Workshop) -> None:
    order = new(
        workshop.tenant(),
        chosen={"adminPass": "Tr0ub4dor", "userData": "#cloud-config"},
        token="eyJhbGci.x.y",
    )
    told = workshop.command("plan", written(workshop, order), "-o", "json")
    assert told.returncode == 0
    for secret in ("Tr0ub4dor", "cloud-config", "eyJhbGci"):
        assert secret not in told.stdout + told.stderr


def test_a_malformed_order_and_a_cloud_that_is_down_are_reported_in_one_line(
    workshop: Workshop,
) -> None:
    for text, code in (("{", 5), ('{"a": 1}', 5)):
        told = workshop.command("plan", written(workshop, text))
        assert told.returncode == code
    missing = workshop.command("plan", str(workshop.folder / "nowhere.json"))
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)
    workshop.cloud.fault("api.nova", error="down", status=503)
    away = workshop.command("plan", written(workshop, paid("renew", UNKNOWN)))
    assert (away.returncode, away.stderr.count("\n"), "Traceback" in away.stderr) == (4, 1, False)
