"""`ecs-worker journal list|show`: requests with their effects, updates and results."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from handlers.effects.waits import Wait
from handlers.orders.show import told_wait
from messages.secrets import mask
from workers.admin.timeline import UPDATE, is_effect, outcome_line, remembered, result_line
from workers.cli.exits import CommandFailed, Exit
from workers.cli.output import Format, Report, show_json
from workers.cli.times import ago, json_time, shown_time
from workers.journal import (
    History,
    JournalError,
    JournalUnfit,
    Replay,
    ReplayOutcome,
    RequestFilter,
    RequestRecord,
    State,
)
from workers.settings import Settings

_STATES = {
    State.RUNNING: "running: begun, no result yet",
    State.DONE: "done: has its result, which may not be published yet",
    State.SETTLED: "settled: its result is published and confirmed",
}


@contextmanager
def open_history(settings: Settings) -> Iterator[History]:
    """Open the journal for reading. Raises `CommandFailed` where it cannot be read."""
    try:
        history = History(settings.journal_url.get_secret_value()).open()
        try:
            yield history
        finally:
            history.close()
    except JournalError as error:
        raise journal_failed(error) from error


def journal_failed(error: JournalError) -> CommandFailed:
    """Return the failure of a command that needs the journal."""
    if isinstance(error, JournalUnfit):
        return CommandFailed(Exit.REFUSED, f"ECS_JOURNAL_URL: {error}")
    text = str(error) if error.advice else f"{error}; see ecs-worker check, ECS_JOURNAL_URL"
    return CommandFailed(Exit.UNREACHABLE, text)


def list_requests(settings: Settings, wanted: RequestFilter, output: Format) -> None:
    """Print requests, newest first."""
    with open_history(settings) as history:
        found = history.with_waits(history.requests(wanted))
    if output is not Format.TABLE:
        results = [one.result or {} for one in found]
        rows = [
            {**_common(one), "code": result.get("code"), "reason": reason_of(result)}
            for one, result in zip(found, results, strict=True)
        ]
        show_json(rows, output)
        return
    report = Report()
    report.table(
        [
            {
                "received": shown_time(one.received_at),
                "state": one.state.value,
                "request": one.name,
                "operation": one.operation,
                "tenant": one.tenant,
                "deliveries": one.deliveries,
                "result": result_line(one.result) or _waits_line(one),
            }
            for one in found
        ]
    )
    if wanted.limit is not None and len(found) == wanted.limit:
        report.line(f"the newest {wanted.limit}; --limit shows more")


def show_request(settings: Settings, key: str, output: Format) -> None:
    """Print the history of each request with this name or key."""
    with open_history(settings) as history:
        found = history.with_waits(history.find(key))
        replays = {one.key: history.replays(name=one.name) for one in found}
    if not found:
        raise CommandFailed(
            Exit.CHECK_FAILED,
            f"the journal knows no request {key!r}; KEY is a message_id, orderId, flowId or the whole"
            " key (requests that were rejected for form or identity are not in the journal: see"
            " ecs-worker dead list)",
        )
    if output is not Format.TABLE:
        show_json([request_record(one, replays[one.key]) for one in found], output)
        return
    for one in found:
        print_request(Report(), one, replays[one.key])


def _common(request: RequestRecord) -> dict[str, Any]:
    return {
        "key": request.key,
        "operation": request.operation,
        "tenant": request.tenant,
        "state": request.state.value,
        "received_at": json_time(request.received_at),
        "updated_at": json_time(request.updated_at),
        "deliveries": request.deliveries,
        "attempts": request.attempts,
        "waits_for": _wait_record(request.wait),
    }


def _wait_record(wait: Wait | None) -> dict[str, Any] | None:
    """Return what a request waits for as `order.show` tells it, for operators: `behind` is the
    whole key, and `detail` says more of the last failure.
    """
    if wait is None:
        return None
    behind = wait.behind.key if wait.behind is not None else None
    return {**told_wait(wait).model_dump(mode="json"), "behind": behind, "detail": wait.detail}


def _waits_line(request: RequestRecord) -> str:
    return told_wait(request.wait).message if request.wait is not None else ""


def request_record(request: RequestRecord, replays: list[Replay]) -> dict[str, Any]:
    """Return a request as JSON (contract 9)."""
    updates = [one for one in request.effects if one.name.startswith(UPDATE)]
    return {
        **_common(request),
        "effects": [
            {
                "name": one.name,
                "intended_at": json_time(one.intended_at),
                "outcome": one.outcome,
                "request_id": one.request_id,
            }
            for one in request.effects
            if is_effect(one)
        ],
        "result": mask(request.result),
        "course": [
            {
                "status": one.name.removeprefix(UPDATE),
                "progress": remembered(one),
                "time": json_time(one.intended_at),
            }
            for one in updates
        ],
        "updates": mask(list(request.updates)),
        "remembered": {
            one.name: mask(remembered(one))
            for one in request.effects
            if not is_effect(one) and one not in updates
        },
        "replays": [replay_row(one) for one in replays],
    }


def replay_row(replay: Replay) -> dict[str, Any]:
    """Return a replay or discard of a message as JSON."""
    return {
        "batch": replay.batch,
        "action": replay.action,
        "operator": replay.by,
        "real_user": replay.by_user,
        "begun_by": replay.operator,
        "id": replay.message_id,
        "key": replay.name,
        "operation": replay.operation,
        "origin": replay.origin,
        "code": replay.code,
        "failed_at": replay.failed_at,
        "state": replay.state.value,
        "pinned_at": json_time(replay.pinned_at),
        "done_at": json_time(replay.done_at),
        "arrived_at": json_time(replay.arrived_at),
        "vouched": replay.vouched,
        "outcome": replay.outcome.value if replay.outcome is not None else None,
        "outcome_text": replay.outcome_text,
    }


def print_request(report: Report, request: RequestRecord, replays: list[Replay]) -> None:
    """Print a request as a report."""
    report.heading(request.key)
    report.facts(request_facts(request) | _waits_facts(request.wait))
    effects = [one for one in request.effects if is_effect(one)]
    report.line("effects in OpenStack" if effects else "no effects in OpenStack")
    report.table(
        [
            {
                "effect": one.name,
                "outcome": outcome_line(one, request),
                "intended at": shown_time(one.intended_at),
                "OpenStack request": one.request_id or "",
            }
            for one in effects
        ],
        indent=2,
    )
    _print_updates(report, request)
    if replays:
        report.line("replays and discards of its dead letters")
        report.table([replay_line(one) for one in replays], indent=2)


def request_facts(request: RequestRecord) -> dict[str, str]:
    """Return what is shown of a request first."""
    return {
        "operation": request.operation,
        "tenant": request.tenant,
        "state": _STATES[request.state],
        "received": f"{shown_time(request.received_at)} ({ago(request.received_at)})",
        "last change": f"{shown_time(request.updated_at)} ({ago(request.updated_at)})",
        "deliveries": f"{request.deliveries}, failed attempts before the last: {request.attempts}",
        "result": result_line(request.result) or "none yet",
        "pruned": f"{shown_time(request.pruned_at)}: effects, updates and what was ordered are deleted"
        if request.pruned_at is not None
        else "",
    }


def _print_updates(report: Report, request: RequestRecord) -> None:
    rows = [
        {
            "time": shown_time(one.intended_at),
            "status": f"{one.name.removeprefix(UPDATE)} {remembered(one)} %",
            "resource": "order",
            "id": request.name,
        }
        for one in request.effects
        if one.name.startswith(UPDATE)
    ]
    for update in request.updates:
        final = ", final" if update.get("final") else ""
        rows.append(
            {
                "time": str(update.get("time"))[:19].replace("T", " ") + "Z",
                "status": f"{update.get('status')}{final}",
                "resource": str(update.get("resource")),
                "id": str(update.get("id")),
            }
        )
    if rows:
        report.line("status updates")
        report.table(rows, indent=2)


def replay_line(replay: Replay) -> dict[str, Any]:
    """Return a replay or discard as a row of a table."""
    return {
        "at": shown_time(replay.done_at or replay.pinned_at),
        "what": _replay_words(replay),
        "by": replay.by,
        "user": replay.by_user,
        "batch": replay.batch,
        "arrived at a worker": shown_time(replay.arrived_at),
    }


def _replay_words(replay: Replay) -> str:
    outcome = {ReplayOutcome.PARKED: "refused, parked again", ReplayOutcome.REFUSED: "refused"}
    became = outcome[replay.outcome] if replay.outcome is not None else replay.state.value
    return f"{replay.action}: {became}"


def _waits_facts(wait: Wait | None) -> dict[str, str]:
    if wait is None:
        return {}
    facts = {
        "waits for": told_wait(wait).message.removeprefix("waits for "),
        "since": f"{shown_time(wait.since)} ({ago(wait.since)})",
    }
    if wait.until is not None:
        facts["next attempt"] = shown_time(wait.until)
    if wait.behind is not None:
        facts["behind"] = wait.behind.key
    if wait.detail:
        facts["last error"] = wait.detail
    return facts


def reason_of(result: Mapping[str, Any]) -> str | None:
    """Return `data.reason` of a result; None where there is none."""
    data = result.get("data")
    reason = data.get("reason") if isinstance(data, dict) else None
    return reason if isinstance(reason, str) else None
