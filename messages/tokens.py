"""What a token says about who it was given to. Whether it is to be believed is not judged here."""

import base64
import binascii
import json
from typing import Any

from messages.errors import Refused
from messages.fields import stored_word

#: Characters of a payload that are looked at.
_MAX_PAYLOAD = 64 * 1024


def user_name_in(token: Any) -> str | None:
    """The `preferred_username` of a JWT, with or without `Bearer `; None where it says none that
    could be kept.
    """
    parts = token.removeprefix("Bearer ").split(".") if isinstance(token, str) else []
    if len(parts) != 3 or len(parts[1]) > _MAX_PAYLOAD:
        return None
    try:
        payload = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return stored_word(payload.get("preferred_username"), "token")
    except (binascii.Error, ValueError, RecursionError, AttributeError, Refused):
        return None
