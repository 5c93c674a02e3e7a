"""Questions at a terminal."""

import sys
import termios

from messages.texts import terminal_safe
from workers.cli.exits import CommandFailed, Exit


def require_answer(*, yes: bool) -> None:
    """Raise `CommandFailed` where a question would have to be asked and nobody can answer it."""
    if not yes and not sys.stdin.isatty():
        text = "nothing was done: without a terminal --yes is required; --dry-run only shows"
        raise CommandFailed(Exit.REFUSED, text)


def confirm(question: str) -> None:
    """Ask on stderr, and raise `CommandFailed` unless the answer is yes.

    ORDER: what was typed before is thrown away first. It was the answer to something else, or
    typed in the wrong window: nobody has read the question yet.
    """
    sys.stderr.flush()
    if sys.stdin.isatty():
        termios.tcflush(sys.stdin, termios.TCIFLUSH)
    print(f"{terminal_safe(question)}. Continue? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandFailed(Exit.REFUSED, "nothing was done")
