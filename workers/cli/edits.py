"""`ecs-worker dead edit`: changing the body of a dead letter before its replay."""

import difflib
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from messages.record import record
from messages.texts import terminal_safe
from workers.admin.audit import local_actor
from workers.cli.batches import Execution, previews_of
from workers.cli.dead_letter_views import select, unmatched_line
from workers.cli.exits import CommandFailed, Exit
from workers.cli.output import Format, Report, complain, json_text, show
from workers.cli.questions import confirm, require_answer
from workers.dead_letters.archive import readable_body
from workers.dead_letters.batch import BatchRequest
from workers.dead_letters.dead_letter import DeadLetter
from workers.dead_letters.dry_run_result import DryRunResult
from workers.dead_letters.edit import Edit, EditRefused, check_edit, make_edit
from workers.dead_letters.selection import Selection
from workers.journal import Action
from workers.settings import Settings


@record
class EditCommand:
    """An edit as an operator asks for it. `body` is a file, `-` stdin, None the editor."""

    message: str
    body: str | None
    operator: str | None
    why: str | None
    dry_run: bool
    yes: bool
    output: Format


def edit(settings: Settings, command: EditCommand) -> Exit:
    """Check the new body, show what changes and what a replay would do, ask, and put it in place."""
    require_answer(yes=command.yes or command.dry_run)
    if command.body is None and not sys.stdin.isatty():
        text = "nothing was done: without a terminal --body FILE is required"
        raise CommandFailed(Exit.REFUSED, text)
    if command.body == "-" and not (command.yes or command.dry_run):
        text = "nothing was done: --body - leaves no stdin for the answer: add --yes or --dry-run"
        raise CommandFailed(Exit.USAGE, text)
    actor = local_actor(command.operator)
    with Execution(settings) as execution:
        letter = _letter(execution, command.message)
        try:
            body = _body(command.body, letter)
            change = execution.run(check_edit(settings, letter, body))
            request = BatchRequest(Action.REPLAY, actor, "", vouch=True)
            (preview,) = previews_of(execution, request, [change.edited])
            if command.output is Format.TABLE or not command.yes:
                _print_change(change, preview)
            if not (command.dry_run or command.yes):
                confirm(f"{command.message} will be changed by {actor.name}")
            if not command.dry_run:
                access = execution.access()
                execution.run(make_edit(access, change, actor, command.why))
        except EditRefused as error:
            raise CommandFailed(Exit.REFUSED, str(error)) from error
    if command.output is not Format.TABLE:
        row = {
            "id": change.edited.id,
            "key": change.edited.key,
            "archive": change.archive_id if not command.dry_run else None,
            "would": preview.outcome.value,
            "detail": preview.detail,
            "done": not command.dry_run,
        }
        show([row], command.output)
    if not command.dry_run:
        name = change.edited.id or change.edited.key
        unproven = change.edited.is_unproven(trusting=settings.trust_publishers)
        vouch = " --vouch" if unproven else ""
        complain(f"changed; replay it with: ecs-worker dead replay {name}{vouch}")
    return Exit.OK


def _letter(execution: Execution, named: str) -> DeadLetter:
    selected = select(execution.settings, Selection(ids=(named,)), execution.runner)
    if (line := unmatched_line(selected)) is not None:
        raise CommandFailed(Exit.CHECK_FAILED, f"nothing was done: {line}")
    if len(selected.letters) > 1:
        text = (
            f"nothing was done: {len(selected.letters)} dead letters have the id {named!r};"
            " ecs-worker dead show shows them; discard the others, or edit by a message_id"
        )
        raise CommandFailed(Exit.REFUSED, text)
    return selected.letters[0]


def _body(source: str | None, letter: DeadLetter) -> bytes:
    if source == "-":
        return sys.stdin.buffer.read()
    if source is not None:
        try:
            return Path(source).read_bytes()
        except OSError as error:
            text = f"{source} cannot be read: {error.strerror}"
            raise CommandFailed(Exit.USAGE, text) from None
    return _from_editor(_readable(letter))


def _from_editor(text: str) -> bytes:
    """Have the operator change a text; the file is his alone, and is removed afterwards."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "body.json"
        file.write_text(text, encoding="utf-8")
        try:
            # The operator's own command.
            done = subprocess.run([*shlex.split(editor), str(file)], check=False)  # noqa: S603
        except OSError as error:
            raise CommandFailed(
                Exit.CONFIGURATION,
                f"nothing was done: {editor} cannot be started ({error.strerror}): set EDITOR, or use"
                " --body FILE",
            ) from None
        if done.returncode:
            text = f"nothing was done: {editor} ended with {done.returncode}"
            raise CommandFailed(Exit.REFUSED, text)
        return file.read_bytes()


def _readable(letter: DeadLetter) -> str:
    body = readable_body(letter.envelope.body)
    return body if isinstance(body, str) else json_text(body, 2)


def _print_change(change: Edit, preview: DryRunResult) -> None:
    report = Report(sys.stderr)
    old, new = _readable(change.letter).splitlines(), _readable(change.edited).splitlines()
    for line in difflib.unified_diff(old, new, "as it is", "as it would be", lineterm=""):
        report.line(terminal_safe(line))
    report.line(f"its replay {preview.outcome.text}: {preview.detail}")
