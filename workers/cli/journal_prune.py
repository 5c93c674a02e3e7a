"""`ecs-worker journal prune`: settled orders lose all but key, digest and outcome."""

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
    """What is pruned, and how: orders that were settled before a time (Unix seconds)."""

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
    pruned, ended = 0, Exit.OK
    begun = time.monotonic()
    try:
        for count in retention.prune(pruning.before):
            pruned += count
        if pruning.vacuum:
            retention.vacuum()
    except KeyboardInterrupt:
        ended = Exit.PARTLY
        complain(f"stopped: {pruned} of {found.orders} orders are pruned; the same command goes on")
    except JournalError as error:
        text = f"{error}; {pruned} of {found.orders} orders are pruned, the same command goes on"
        raise CommandFailed(Exit.UNREACHABLE, text) from error
    finally:
        if pruned:
            audit.record(
                settings,
                "journal prune",
                audit.local_actor(pruning.operator),
                details={"before": json_time(pruning.before), "orders": pruned},
            )
    after = {"pruned": pruned, "seconds": round(time.monotonic() - begun, 1)}
    space = retention.space()
    sizes = {"journal_bytes_before": size, "journal_bytes": space.bytes, "free_bytes": space.free}
    show_record({**row, **after, **sizes}, output)
    return ended
