"""The user of this process, for the record of what operators do."""

import os
import pwd
import socket
from pathlib import Path

_LONGEST = 255
#: The file in which Linux has the user id of the login, which neither su nor sudo changes; and the
#: id that it gives for none.
_LOGIN_ID, _NOBODY = Path("/proc/self/loginuid"), 2**32 - 1


def default_operator() -> str:
    """Return the user of this command, `user@host`, with the caller of sudo where it was used."""
    user, caller = _user_name(os.getuid()), os.environ.get("SUDO_USER")
    return f"{f'{caller} (as {user})' if caller else user}@{socket.gethostname()}"


def real_user() -> str:
    """Return the user that this process runs as according to the kernel: `user@host`.

    Another user who logged in is added where the kernel knows it: `root (logged in as alice)@host`.
    Neither an option nor the environment (USER, LOGNAME, SUDO_USER) changes it.
    """
    user = os.getuid()
    try:
        login = int(_LOGIN_ID.read_text())
    except (OSError, ValueError):
        login = _NOBODY
    shown = _user_name(user)
    if login not in (_NOBODY, user):
        shown += f" (logged in as {_user_name(login)})"
    return f"{shown}@{socket.gethostname()}"[:_LONGEST]


def _user_name(user_id: int) -> str:
    """Return a user's name; one without an entry, as in a container, is shown by number."""
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return f"uid {user_id}"
