"""`ecs-worker journal prune`: settled orders lose all but key, digest and outcome."""

import signal
import time
from contextlib import closing
from typing import Any

from messages.record import record
from workers.admin import audit
from workers.cli.exits import CommandFailed, Exit
from workers.cli.journal import journal_failed
from workers.cli.output import Format, complain, show_record
from workers.cli.questions import confirm, require_answer
from workers.cli.times import json_time, shown_time
from workers.journal import JournalError, Retention
from workers.settings import Settings


@record
class Pruning:
    """Selects orders to prune, those settled before a time (Unix seconds), and says how."""

    before: float
    yes: bool = False
    dry_run: bool = False
    vacuum: bool = False
    operator: str | None = None


def prune_orders(settings: Settings, pruning: Pruning, output: Format) -> Exit:
    """Prune settled orders after a question, on record; return the exit code. Raises `CommandFailed`."""
    if not pruning.dry_run:
        require_answer(yes=pruning.yes)
    try:
        with closing(Retention(settings.journal_url.get_secret_value())) as retention:
            return _prune(settings, retention, pruning, output)
    except JournalError as error:
        raise journal_failed(error) from error


def _prune(settings: Settings, retention: Retention, pruning: Pruning, output: Format) -> Exit:
    found, size = retention.prunable(pruning.before), retention.space().bytes
    row: dict[str, Any] = {
        "before": json_time(pruning.before),
        "orders": found.orders,
        "oldest": json_time(found.oldest),
        "newest": json_time(found.newest),
        "bytes": found.bytes,
    }
    if pruning.dry_run:
        show_record({**row, "journal_bytes": size}, output)
        return Exit.OK
    if found.orders and not pruning.yes:
        complain(
            f"{found.orders} orders were settled from {shown_time(found.oldest)} to {shown_time(found.newest)}."
            " Their effects, updates and what was ordered are deleted for good;"
            " key, digest and outcome stay, so that none is ever carried out again."
            " (ecs-worker journal export FILE keeps all of it in a file.)"
        )
        confirm(f"{found.orders} orders will be pruned")
    begun = time.monotonic()
    pruned, is_stopped = _pruned(settings, retention, pruning, found.orders)
    if pruning.vacuum and not is_stopped:
        retention.vacuum()
    after = {"pruned": pruned, "seconds": round(time.monotonic() - begun, 1)}
    space = retention.space()
    sizes = {"journal_bytes_before": size, "journal_bytes": space.bytes, "free_bytes": space.free}
    show_record({**row, **after, **sizes}, output)
    return Exit.PARTLY if is_stopped else Exit.OK


def _pruned(
    settings: Settings, retention: Retention, pruning: Pruning, total: int
) -> tuple[int, bool]:
    """Prune, and record it. Return how many were pruned, and whether SIGINT has stopped it: between
    two transactions, so that none is left open.
    """
    pruned, signals = 0, list[int]()
    former = signal.signal(signal.SIGINT, lambda number, _: signals.append(number))
    try:
        for count in retention.prune(pruning.before):
            pruned += count
            if signals:
                break
    except JournalError as error:
        text = f"{error}; {pruned} of {total} orders are pruned, the same command goes on"
        raise CommandFailed(Exit.UNREACHABLE, text) from error
    finally:
        signal.signal(signal.SIGINT, former)
        if pruned:
            details = {"before": json_time(pruning.before), "orders": pruned}
            actor = audit.local_actor(pruning.operator)
            audit.record(settings, "journal prune", actor, details=details)
    if signals:
        complain(f"stopped: {pruned} of {total} orders are pruned; the same command goes on")
    return pruned, bool(signals)
