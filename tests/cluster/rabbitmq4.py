"""RabbitMQ 4 on a Debian that has RabbitMQ 3: the newer Debian's, in a folder of its own."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from sandbox.processes import SandboxError, install_debian
from tests.asyncapi.node import cache_folder

#: The Debian that has RabbitMQ 4.0.
SUITE = "trixie"
_PROGRAMS = ("rabbitmq-server", "rabbitmqctl", "rabbitmq-upgrade")
#: Seconds for debootstrap.
_LIMIT = 1800
# The mounts are in a namespace of each program's own, and gone with it: nothing is ever mounted
# where somebody removes the folder.
_PROGRAM = """#!/bin/sh
exec unshare --mount sh -c '
root=$1; shift
mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" &&
mkdir -p "$root$TEMPORARY" && mount --bind "$TEMPORARY" "$root$TEMPORARY" &&
exec chroot "$root" /usr/bin/env PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "$@"
' sh {root} /usr/lib/rabbitmq/bin/{name} "$@"
"""


def programs() -> Path:
    """Return the folder with RabbitMQ 4's programs, for ECS_SANDBOX_RABBITMQ; made the first time,
    which takes some minutes.

    Raises `SandboxError` that says what is missing.
    """
    if os.geteuid() != 0:
        raise SandboxError("RabbitMQ 4 runs in a folder with the newer Debian: run as root")
    root = cache_folder() / f"rabbitmq-{SUITE}"
    if not root.exists():
        _bootstrap(root)
    folder = Path(tempfile.mkdtemp(prefix="ecs-rabbitmq-4-"))
    for name in _PROGRAMS:
        text = _PROGRAM.format(root=shlex.quote(str(root)), name=name)
        (folder / name).write_text(text.replace("$TEMPORARY", tempfile.gettempdir()))
        (folder / name).chmod(0o755)
    return folder


def _bootstrap(root: Path) -> None:
    install_debian(["debootstrap"], lambda: shutil.which("debootstrap") is not None, "debootstrap")
    print(f"making {root} with RabbitMQ 4 ...", file=sys.stderr, flush=True)
    partial = Path(tempfile.mkdtemp(dir=root.parent, prefix=f"{root.name}-"))
    partial.chmod(0o755)
    words = ["debootstrap", "--variant=minbase", "--include=rabbitmq-server", SUITE]
    try:
        done = subprocess.run(
            # What debootstrap mounts and leaves after a failure is gone with the namespace.
            ["unshare", "--mount", *words, str(partial), _mirror()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_LIMIT,
            check=False,
        )
        if done.returncode:
            raise SandboxError(f"debootstrap of Debian {SUITE} failed: {done.stdout[-500:]}")
        partial.rename(root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _mirror() -> str:
    """Return the URL of this machine's own source of Debian packages."""
    form = "$(LABEL)\t$(REPO_URI)"
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", form, "Created-By: Packages"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    ).stdout
    for line in listed.splitlines():
        label, _, uri = line.partition("\t")
        if label == "Debian" and uri:
            return uri
    raise SandboxError("no source of Debian packages is known here: run apt-get update")
