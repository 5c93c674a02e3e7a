"""Brings up a real OpenStack in a folder of its own, and takes both away when whoever asked is
gone, however he went.

    python -m sandbox.keeper MINISTACK HOME

"ready" on the output, or "failed" while its log is still there; the end of the input ends it.
MINISTACK is the control plane's own command.
"""

import os
import shutil
import subprocess
import sys


def main() -> None:
    """Keep one control plane."""
    tool, home = sys.argv[1:]
    try:
        done = subprocess.run(
            [sys.executable, tool, "up"], stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False
        )
        print("ready" if done.returncode == 0 else "failed", flush=True)
        while done.returncode == 0 and os.read(0, 1024):
            pass
    finally:
        subprocess.run(
            [sys.executable, tool, "down"],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            check=False,
        )
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
