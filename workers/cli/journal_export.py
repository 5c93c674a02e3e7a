"""`ecs-worker journal export`: requests as JSON lines, and a request of such a file."""

import gzip
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from messages.record import record
from workers.admin import audit
from workers.cli.exits import CommandFailed, Exit
from workers.cli.journal import journal_failed, open_history, print_request, request_record
from workers.cli.output import Format, Report, complain, show_json, show_record
from workers.cli.times import json_time
from workers.journal import (
    EffectRecord,
    JournalError,
    Kind,
    Replay,
    ReplayState,
    RequestFilter,
    RequestRecord,
    State,
)
from workers.settings import Settings

STDOUT = "-"
#: Files with this end are compressed.
_PACKED = ".gz"


@record
class Export:
    """Names the file that requests are exported to, and who exports them."""

    file: str
    replaces: bool = False
    operator: str | None = None


def export_requests(
    settings: Settings, export: Export, wanted: RequestFilter, output: Format
) -> None:
    """Write requests, oldest first, a JSON object a line, as the journal is at one instant.

    A file is there as a whole or not at all. Raises `CommandFailed`.
    """
    path = Path(export.file)
    if export.file != STDOUT and path.exists():
        # A device or a pipe must never be replaced by a file: root could.
        if not path.is_file():
            text = f"{export.file} is no file: name a file, or - for stdout"
            raise CommandFailed(Exit.REFUSED, text)
        if not export.replaces:
            text = f"{export.file} exists: name another file, or --force to replace it"
            raise CommandFailed(Exit.REFUSED, text)
    count = 0

    def write(out: IO[str]) -> None:
        nonlocal count
        with open_history(settings) as history, closing(history.export(wanted)) as found:
            for request, replays in found:
                out.write(json.dumps(exported_record(request, replays), ensure_ascii=False) + "\n")
                count += 1
        # ORDER: on record before the file is there.
        target = "stdout" if export.file == STDOUT else str(path.absolute())
        details = {"requests": count, **_told(wanted)}
        try:
            actor = audit.local_actor(export.operator)
            audit.record(settings, "journal export", actor, target=target, details=details)
        except JournalError as error:
            raise journal_failed(error) from error

    if export.file == STDOUT:
        with _quiet_when_nobody_reads():
            write(sys.stdout)
            sys.stdout.flush()
        complain(f"{count} requests exported")
        return
    _write_file(path, write)
    row = {"file": str(path), "requests": count, "bytes": path.stat().st_size}
    show_record(row, output)


def show_exported(file: str, key: str, output: Format) -> None:
    """Print the requests of an exported file with this name or key, as `journal show` does."""
    found = []
    try:
        opened = gzip.open if file.endswith(_PACKED) else open
        with opened(file, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                # A line is read whole only where it can be the one.
                if json.dumps(key, ensure_ascii=False) in line:
                    one = _line(file, number, line)
                    if key in (one["name"], one["key"]):
                        found.append(one)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no file that journal export has written"
        raise CommandFailed(Exit.USAGE, f"{file} cannot be read: {why}") from error
    if not found:
        raise CommandFailed(Exit.CHECK_FAILED, f"{file} has no request {key!r}")
    if output in (Format.JSON, Format.JSONL):
        show_json(found, output)
        return
    for one in found:
        print_request(Report(), *restored(one))


def exported_record(request: RequestRecord, replays: list[Replay]) -> dict[str, Any]:
    """Return a request as a line of an export: as `journal show` prints it, and what it needs
    besides to be shown again.
    """
    return {
        "name": request.name,
        "kind": request.kind.value,
        **request_record(request, replays),
        "digest": request.digest,
        "pruned_at": json_time(request.pruned_at),
    }


def restored(line: dict[str, Any]) -> tuple[RequestRecord, list[Replay]]:
    """Return the request of a line, and the replays of its dead letters. What it waited for when it
    was exported is not restored.
    """
    effects = [
        EffectRecord(
            one["name"], _seconds(one["intended_at"]), None, one["outcome"], one["request_id"]
        )
        for one in line["effects"]
    ]
    effects += [
        EffectRecord(
            f"told:{one['status']}", _seconds(one["time"]), None, {"value": one["progress"]}, None
        )
        for one in line["course"]
    ]
    request = RequestRecord(
        key=line["key"],
        name=line["name"],
        kind=Kind(line["kind"]),
        operation=line["operation"],
        tenant=line["tenant"],
        digest=line["digest"],
        state=State(line["state"]),
        attempts=line["attempts"],
        deliveries=line["deliveries"],
        received_at=_seconds(line["received_at"]),
        updated_at=_seconds(line["updated_at"]),
        owner=None,
        result=line["result"],
        updates=tuple(line["updates"]),
        effects=tuple(effects),
        pruned_at=_seconds(line["pruned_at"]) if line["pruned_at"] else None,
    )
    return request, [_replay(one) for one in line["replays"]]


def _replay(row: dict[str, Any]) -> Replay:
    times: dict[str, Any] = {
        name: _seconds(row[name]) if row[name] is not None else None
        for name in ("done_at", "arrived_at")
    }
    names = ("batch", "action", "operator", "operation", "origin", "code", "failed_at")
    return Replay(
        **{name: row[name] for name in (*names, "real_user", "vouched")},
        **times,
        id="",
        position=0,
        selection="",
        identity="",
        digest="",
        tenant=None,
        name=row["key"],
        message_id=row["id"],
        state=ReplayState(row["state"]),
        pinned_at=_seconds(row["pinned_at"]),
    )


def _line(file: str, number: int, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
        restored(found)
    except (ValueError, KeyError, TypeError) as error:
        text = f"line {number} of {file} is none of an export of this version"
        raise CommandFailed(Exit.USAGE, text) from error
    return dict(found)


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _told(wanted: RequestFilter) -> dict[str, Any]:
    """Return the filter for the audit record."""
    told = {
        "state": wanted.state.value if wanted.state is not None else None,
        "operation": wanted.operation,
        "tenant": wanted.tenant,
        "since": json_time(wanted.since),
        "before": json_time(wanted.before),
    }
    return {name: value for name, value in told.items() if value is not None}


def _write_file(path: Path, write: Callable[[IO[str]], None]) -> None:
    """Write a file of mode 0600 beside where it is to be, and put it there when it is complete."""
    temporary, target = None, path.resolve()  # what a link leads to is replaced, not the link
    try:
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as raw:
            if path.name.endswith(_PACKED):
                with gzip.open(raw, "wt", encoding="utf-8") as packed:
                    write(packed)
            else:
                with open(raw.fileno(), "w", encoding="utf-8", closefd=False) as plain:
                    write(plain)
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(temporary, target)
        temporary = None
    except OSError as error:
        text = f"{path} cannot be written: {error.strerror or error}"
        raise CommandFailed(Exit.UNEXPECTED, text) from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)


@contextmanager
def _quiet_when_nobody_reads() -> Iterator[None]:
    """Take a reader that has seen enough (`| head`) for no error."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
