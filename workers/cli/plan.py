"""`ecs-worker plan`: print the preview of an order."""

import asyncio
import sys
from pathlib import Path
from typing import Any

from handlers.context import Environment, NoReplies, NoRequests, RequestContext, RequestTimes
from handlers.effects.backoff import Deadline
from handlers.effects.ledger import NoLedger
from handlers.effects.once import Effects
from handlers.openstack.cloud import Cloud
from handlers.openstack.errors import CloudRefusal
from handlers.orders.preview import preview_order
from messages.errors import Refused, Transient
from messages.results import Verdict
from messages.wire import decode
from workers.bootstrap import cloud_settings
from workers.cli.exits import CommandFailed, Exit, policy_or_fail
from workers.cli.output import Format, Report, show_json
from workers.settings import Settings

#: Seconds for which calls to the cloud are retried, and for which a busy server is waited for.
_PATIENCE, _WAITING = 15.0, 5.0


def plan_file(settings: Settings, file: str, tenant: str | None, output: Format) -> Exit:
    """Print the preview of the order in a file (`-`: stdin). The exit code is `CHECK_FAILED` where
    the order would not be carried out.
    """
    message = _read(file)
    try:
        plan = asyncio.run(_preview(settings, message, tenant))
    except (Transient, CloudRefusal) as error:
        raise CommandFailed(
            Exit.UNREACHABLE, f"the cloud cannot be asked: {error}; see ecs-worker check"
        ) from error
    if output is Format.TABLE:
        _show(plan)
    else:
        show_json([plan], output)
    return Exit.OK if plan["verdict"] == Verdict.CARRIED_OUT else Exit.CHECK_FAILED


def _read(file: str) -> dict[str, Any]:
    try:
        body = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise CommandFailed(Exit.USAGE, f"{file} cannot be read: {error.strerror}") from error
    try:
        return decode(body, None, None)
    except Refused as refused:
        raise CommandFailed(
            Exit.CHECK_FAILED, f"{file} is no order message: {refused}"
        ) from refused


async def _preview(
    settings: Settings, message: dict[str, Any], tenant: str | None
) -> dict[str, Any]:
    cloud = Cloud(cloud_settings(settings))
    environment = Environment(cloud, policy_or_fail(settings), NoRequests())
    context = RequestContext(
        environment=environment,
        effects=Effects(NoLedger(), Deadline.after(_PATIENCE)),
        times=RequestTimes(Deadline.after(_WAITING), _WAITING),
        replies=NoReplies(),
        key="",
    )
    try:
        project = (await cloud.find_project(tenant)).id if tenant is not None else None
        preview = await preview_order(message, context, project)
        return preview.answer().model_dump(mode="json")
    except Refused as refused:
        raise CommandFailed(Exit.USAGE, f"--tenant {tenant}: {refused}") from refused
    finally:
        environment.close()
        await cloud.close()


def _show(plan: dict[str, Any]) -> None:
    report = Report()
    report.heading(
        f"order.{plan['orderType']} {plan['orderId'] or 'without id'}: {_VERDICTS[plan['verdict']]}"
    )
    report.line()
    report.table(
        [
            {
                "check": one["name"],
                "result": "ok" if one["passed"] else "FAILED",
                "instance": one["instanceId"],
                "code": None if one["passed"] else one["code"],
                "why": None if one["passed"] else _why(one),
            }
            for one in plan["checks"]
        ],
        keep=("result",),
    )
    if plan["steps"]:
        report.line()
        report.table(
            [
                {
                    "step": one["number"],
                    "does": one["name"],
                    "undo": "yes" if one["canBeUndone"] else "NO",
                    "target": one["target"],
                    "before": _brief(one["before"]),
                    "after": _brief(one["after"]),
                    "instance": one["instanceId"],
                }
                for one in plan["steps"]
            ],
            keep=("undo",),
        )
    elif plan["verdict"] == Verdict.CARRIED_OUT:
        report.line("nothing is to be done")


def _brief(value: Any) -> Any:
    """Shorten a value for a table cell: a server to its status and flavor."""
    if not isinstance(value, dict):
        return value
    if "status" in value and "flavor" in value:
        return f"{value['status']}, {value['flavor']}"
    return (
        ", ".join(f"{name} {_brief(one)}" for name, one in value.items() if one is not None) or None
    )


def _why(failed: dict[str, Any]) -> str:
    return "; ".join(
        one for one in (failed["message"], failed["detail"] or failed["reason"]) if one
    )


_VERDICTS = {
    Verdict.CARRIED_OUT: "would be carried out",
    Verdict.REFUSED: "would be refused",
    Verdict.RETRIED: "would be retried later",
}
