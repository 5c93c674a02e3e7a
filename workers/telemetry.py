"""Logs."""

import json
import logging
import os
import sys
import time
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import orjson
import structlog

from messages.secrets import MASK, is_secret_name, mask, mask_text
from messages.texts import terminal_safe

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
#: The only ASCII control character that JSON does not escape.
_DELETE = b"\x7f"
#: Lines of one library's logger that are written in each `library_window` of `configure_logs`.
LIBRARY_LINES = 10
#: Characters of one value in a log line.
_LONGEST = 2000


#: What every line of the current request says of it. Never changed in place: tasks share it.
_request_fields: ContextVar[dict[str, Any]] = ContextVar("request_fields")
_NO_FIELDS: dict[str, Any] = {}


def log_request(*, anew: bool = False, **fields: Any) -> None:
    """Have every line from now on, of this task and of those that it starts, say these fields.

    `anew`: and none of those that were said before. Texts are masked here, once for all lines: they
    come from a message.
    """
    known = _NO_FIELDS if anew else _request_fields.get(_NO_FIELDS)
    said = {
        name: mask_text(value) if isinstance(value, str) else value
        for name, value in fields.items()
    }
    _request_fields.set({**known, **said})


class LogStream:
    """Writes log lines to a file descriptor. A line that cannot be written is dropped and counted:
    a full disk, or a reader that is gone, must not fail a request.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        #: Lines that were not written, or not to their end.
        self.lost = 0

    def write(self, line: bytes | str) -> None:
        """Write a line, or count it as lost."""
        rest = line.encode("utf-8", "backslashreplace") if isinstance(line, str) else line
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            self.lost += 1

    def flush(self) -> None:
        """Do nothing: every line is written at once."""


_stderr = LogStream(2)


def lost_lines() -> int:
    """Return how many log lines of this process could not be written."""
    return _stderr.lost


def configure_logs(log_format: str, level: str, library_window: float = 60.0) -> None:
    """Log to stderr, as JSON lines or for a terminal; errors of libraries, too, `LIBRARY_LINES` of
    each logger in `library_window` seconds.
    """
    factory: Any
    if log_format == "json":
        rendering: list[Any] = [_json_line]
        factory = structlog.BytesLoggerFactory(file=_stderr)  # type: ignore[arg-type]
    else:
        rendering = [_escape, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
        factory = structlog.PrintLoggerFactory(file=_stderr)  # type: ignore[arg-type]
    structlog.configure(
        processors=[structlog.processors.format_exc_info, _complete, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.ERROR, handlers=[_LibraryHandler(library_window)], force=True)
    # It writes ten lines about every reconnect, where the worker writes one.
    logging.getLogger("pika").setLevel(logging.CRITICAL)


class _LibraryHandler(logging.Handler):
    """Writes libraries' log records as the worker's own lines, with a limit for each logger: what
    strangers send, or how often they connect, must not decide how much is written.
    """

    def __init__(self, window: float) -> None:
        super().__init__()
        self._window = window
        #: By logger: when its window began (monotonic), lines in it, and lines that were dropped.
        self._windows: dict[str, list[float]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        window = self._windows.setdefault(record.name, [now, 0, 0])
        if now - window[0] > self._window:
            if window[2]:
                structlog.get_logger().warning(
                    "library.suppressed", logger=record.name, lines=int(window[2])
                )
            window[:] = [now, 0, 0]
        window[1] += 1
        if window[1] > LIBRARY_LINES:
            window[2] += 1
            return
        structlog.get_logger().log(
            record.levelno, "library", logger=record.name, said=record.getMessage()
        )


def _complete(_logger: Any, method: str, event: Any) -> Any:
    """Return the fields of a line: the request's, which are masked already, and the line's own.

    Secrets, which should not be logged in the first place, are masked, and long values shortened.
    """
    # This runs for every line: the names, which the worker itself chose, are not searched.
    line = {**_request_fields.get(_NO_FIELDS), **event}
    for key, value in event.items():
        if value is not None and is_secret_name(key):
            line[key] = MASK
        elif isinstance(value, str):
            masked = mask_text(value)
            line[key] = (
                f"{masked[:_LONGEST]}…" if len(masked) > _LONGEST and key != "exception" else masked
            )
        elif value and isinstance(value, (dict, list)):
            line[key] = mask(value)
    line["level"] = method
    line["timestamp"] = _timestamp()
    return line


@lru_cache(maxsize=2)
def _second(number: int) -> str:
    """Return a second (Unix time) written out, once for all of its lines."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(number))


def _timestamp() -> str:
    """Return the time now in UTC, as `2026-11-23T10:00:00.123456Z`."""
    now = time.time()
    second = int(now)
    return f"{_second(second)}.{int((now - second) * 1e6):06d}Z"


def _escape(_logger: Any, _method: str, event: Any) -> Any:
    """Escape control characters, which come from messages; only a traceback keeps its lines."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = terminal_safe(value, lines=key == "exception")
    return event


def _json_line(_logger: Any, _method: str, event: Any) -> bytes:
    """Return a line as JSON; a value that is no JSON is written as text, so that no line fails."""
    try:
        line = orjson.dumps(event, default=_text)
    except TypeError:
        return json.dumps(event, default=_text, skipkeys=True).encode()
    if line.isascii() and _DELETE not in line:
        return line
    # Logs are also read on terminals.
    return terminal_safe(line.decode(), json=True).encode()


def _text(value: Any) -> str:
    return mask_text(str(value))
