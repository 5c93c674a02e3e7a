"""`ecs-worker dead archive|restore|export`: what was discarded or edited, and putting it back."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from messages.record import record
from workers.admin.audit import local_actor
from workers.cli.batches import Execution
from workers.cli.dead_letter_views import select, unmatched_line, whole
from workers.cli.exits import CommandFailed, Exit
from workers.cli.journal import open_history
from workers.cli.output import Format, Report, complain, json_text, show, show_json
from workers.cli.questions import confirm, require_answer
from workers.cli.times import ago, json_time, shown_time
from workers.dead_letters import engine
from workers.dead_letters.archive import DISCARDED, document
from workers.dead_letters.archive import restore as put_back
from workers.dead_letters.selection import Selection
from workers.journal import Archived, History
from workers.settings import Settings

#: Characters of a body that a page shows.
_SHOWN = 4000


@record
class ArchiveFilter:
    """Selects from the archive; `words` are ids there or of messages. `since`: Unix seconds."""

    words: tuple[str, ...] = ()
    batch: str | None = None
    since: float | None = None
    limit: int | None = None

    def found(self, history: History) -> list[Archived]:
        """Return it, newest first."""
        return history.archived(self.words, batch=self.batch, since=self.since, limit=self.limit)

    def unmatched(self, found: list[Archived]) -> list[str]:
        """Return the words that name nothing of it."""
        names = {name for one in found for name in (one.id, one.name, one.message_id)}
        return [one for one in self.words if one not in names]


@record
class RestoreCommand:
    """A restoration as an operator asks for it."""

    wanted: ArchiveFilter
    operator: str | None
    why: str | None
    yes: bool
    output: Format


def list_archive(settings: Settings, wanted: ArchiveFilter, output: Format, *, whole: bool) -> None:
    """Print what is in the archive, newest first; with bodies where `whole`."""
    with open_history(settings) as history:
        found = wanted.found(history)
    if not found and (wanted.words or wanted.batch is not None):
        named = " ".join((*wanted.words, wanted.batch or "")).strip()
        text = f"the archive has nothing of {named!r}; ecs-worker dead archive lists it"
        raise CommandFailed(Exit.CHECK_FAILED, text)
    if output is not Format.TABLE:
        show_json([_row(one) | (document(one) if whole else {}) for one in found], output)
        return
    if not whole:
        show([_line(one) for one in found], output)
        if not found:
            Report().line("the archive is empty")
        return
    report = Report()
    for one in found:
        report.heading(one.id)
        report.facts(_row(one))
        shown = document(one)
        for part in ("properties", "headers"):
            report.line(part)
            report.facts(shown[part])
        report.line("body")
        report.document(shown["body"], _SHOWN)
        if "edited" in shown:
            report.line("the body that took its place")
            report.document(shown["edited"], _SHOWN)
        report.line()


def restore(settings: Settings, command: RestoreCommand) -> Exit:
    """Put messages of the archive back into `ecs.dead`."""
    require_answer(yes=command.yes)
    actor = local_actor(command.operator)
    with Execution(settings) as execution:
        access = execution.access()
        found = command.wanted.found(access.history)
        if missing := command.wanted.unmatched(found):
            named = ", ".join(map(repr, missing))
            text = f"nothing was done: the archive has nothing of {named}; see dead archive"
            raise CommandFailed(Exit.CHECK_FAILED, text)
        able = [one for one in found if one.kind == DISCARDED and one.restored_at is None]
        if not found and command.wanted.batch is not None:
            text = f"nothing was done: the archive has nothing of {command.wanted.batch}"
            raise CommandFailed(Exit.CHECK_FAILED, text)
        if left := len(found) - len(able):
            complain(f"{left} stay in the archive: they are originals of edits, or back already")
        if able and not command.yes:
            queue = settings.names.dead_queue
            confirm(f"{len(able)} messages will be put into {queue} again by {actor.name}")
        restored = refused = 0
        if able:
            target = command.wanted.batch or able[0].name or able[0].id
            details = {"messages": len(able)}
            execution.run(
                engine.audit(
                    settings,
                    "dead restore",
                    actor,
                    target=target,
                    reason=command.why,
                    details=details,
                )
            )
            result = execution.run(put_back(settings, access.journal, actor, able))
            restored, refused = result.restored, result.refused
    row = {"restored": restored, "refused": refused, "left": left, "operator": actor.name}
    if command.output is Format.TABLE:
        Report().facts({name: value for name, value in row.items() if value or name == "restored"})
    else:
        show([row], command.output)
    return Exit.PARTLY if refused or left else Exit.OK


def export(settings: Settings, selection: Selection, file: Path, *, archived: bool) -> Exit:
    """Write whole messages to a file, a JSON object a line."""
    line: str | None = None
    rows: list[Mapping[str, Any]]
    if archived:
        rows = _of_archive(settings, selection)
        missing = [] if rows else [*selection.ids]
        line = f"the archive has nothing of {', '.join(missing)}" if missing else None
    else:
        selected = select(settings, selection)
        rows = [whole(one, [], []) for one in selected.letters]
        line = unmatched_line(selected)
    with _target(file) as out:
        for row in rows:
            out.write(f"{json_text(row)}\n")
    complain(f"{len(rows)} messages written to {'stdout' if str(file) == '-' else file}")
    if line is not None:
        complain(line)
        return Exit.CHECK_FAILED
    return Exit.OK


def _of_archive(settings: Settings, selection: Selection) -> list[Mapping[str, Any]]:
    known = Selection(ids=selection.ids, since=selection.since, limit=selection.limit)
    if selection != known:
        text = "of the archive only --id, --since, --limit and --all select"
        raise CommandFailed(Exit.USAGE, text)
    wanted = ArchiveFilter(selection.ids, None, selection.since, selection.limit)
    with open_history(settings) as history:
        return [_row(one) | document(one) for one in wanted.found(history)]


@contextmanager
def _target(file: Path) -> Iterator[TextIO]:
    """Whole messages are for their operator alone: nobody else may read the file."""
    if str(file) == "-":
        yield sys.stdout
        sys.stdout.flush()
        return
    try:
        number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        text = f"{file} cannot be written: {error.strerror}; it must not exist yet"
        raise CommandFailed(Exit.USAGE, text) from None
    with os.fdopen(number, "w", encoding="utf-8") as out:
        yield out


def _row(archived: Archived) -> dict[str, Any]:
    return {
        "archive": archived.id,
        "kind": archived.kind,
        "archived_at": json_time(archived.archived_at),
        "operator": archived.operator,
        "real_user": archived.real_user,
        "why": archived.why,
        "batch": archived.batch,
        "id": archived.message_id,
        "key": archived.name,
        "operation": archived.operation,
        "tenant": archived.tenant,
        "code": archived.code,
        "reason": archived.reason,
        "error": archived.error,
        "origin": archived.origin,
        "failed_at": archived.failed_at,
        "restored_at": json_time(archived.restored_at),
        "restored_by": archived.restored_by,
        "restored_user": archived.restored_user,
    }


def _line(archived: Archived) -> dict[str, Any]:
    restored = archived.restored_at
    back = f"{shown_time(restored)} by {archived.restored_by}" if restored is not None else ""
    return {
        "key": archived.name or archived.message_id,
        "kind": archived.kind,
        "archived": ago(archived.archived_at),
        "restored": back,
        "by": archived.operator,
        "error": archived.error,
        "archive": archived.id,
        "operation": archived.operation,
        "archived at": shown_time(archived.archived_at),
    }
