"""Runs a server and ends it when whoever started it is gone, however he went.

    python -m sandbox.guardian COMMAND...

The first line of the output is the server's process id, which is its process group's, too. The end
of the input means that the starter has ended: the group gets SIGTERM, and SIGKILL after a grace.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

#: Seconds between SIGTERM and SIGKILL.
GRACE = 8.0
_PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    """Run the command of the command line."""
    become_reaper()
    with Path(sys.argv[1]).open("ab") as log:
        server = subprocess.Popen(
            sys.argv[2:], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    sys.exit(guard(server.pid))


def become_reaper() -> None:
    """Have whoever outlives the server become a child of this process, so that its end can be
    waited for.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def guard(server: int) -> int:
    """Print the id of a child, which leads a group of its own, and end the group with our input.

    Returns the child's exit status: 128 + N after signal N.
    """
    threading.Thread(target=_end_with_input, args=(server,), daemon=True).start()
    # A starter that was interrupted does not read it: the end of the input follows.
    with contextlib.suppress(BrokenPipeError):
        print(server, flush=True)
    status = 0
    with contextlib.suppress(ChildProcessError):  # the thread was quicker, and ends us
        status = os.waitstatus_to_exitcode(os.waitpid(server, 0)[1])
    if status < 0:
        _outwait(server)
    # Those of the group that outlived their leader: now, while its number can be no other's.
    _signal_group(server, signal.SIGKILL)
    return status if status >= 0 else 128 - status


def _outwait(group: int) -> None:
    """A signal is meant for all of the group: its ports are free when the last one is gone."""
    limit = time.monotonic() + GRACE
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < limit:
            if os.waitpid(-group, os.WNOHANG)[0] == 0:
                time.sleep(0.02)


def _end_with_input(server: int) -> None:
    while os.read(0, 1024):
        pass
    _end_group(server)
    os._exit(0)


def _end_group(group: int) -> None:
    for number in (signal.SIGCONT, signal.SIGTERM):
        _signal_group(group, number)
    limit = time.monotonic() + GRACE
    while time.monotonic() < limit and _signal_group(group, 0):
        time.sleep(0.02)
    _signal_group(group, signal.SIGKILL)


def _signal_group(group: int, number: int) -> bool:
    """Signal the group, and tell whether anybody was left to get it. A zombie leader would count:
    it is reaped first.
    """
    with contextlib.suppress(ChildProcessError):
        os.waitpid(group, os.WNOHANG)
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main()
