"""What must never be kept, logged or sent back, and how it is masked."""

import re
from typing import Any

MASK = "***"
_SECRET_NAMES = frozenset(
    name.lower()
    for name in (
        "token", "access_token", "refresh_token", "id_token", "authorization", "password", "passwd", "adminPass",
        "admin_password", "secret", "client_secret", "api_key", "apikey", "private_key", "x-auth-token", "userData",
        "user_data",
    )
)  # fmt: skip
#: A signed token wherever it stands: three parts of base64url, the first of which begins as `{"` does.
_TOKEN = re.compile(r"eyJ[\w-]{5,}\.[\w-]*(?:\.[\w-]*)?")


def is_secret_name(name: str) -> bool:
    """Whether a field of this name holds a secret."""
    return name.lower() in _SECRET_NAMES


def mask(value: Any) -> Any:
    """A copy in which every secret is replaced, at any depth."""
    if isinstance(value, dict):
        return {key: MASK if is_secret_name(key) and inner is not None else mask(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [mask(inner) for inner in value]
    return mask_text(value) if isinstance(value, str) else value


def mask_text(text: str) -> str:
    """A text without the tokens in it."""
    return _TOKEN.sub(MASK, text) if "eyJ" in text else text


def could_hold_secret(raw: bytes) -> bool:
    """Whether bytes that could not be read may hold a secret: then they are not kept as they came."""
    lowered = raw.lower()
    return b"eyj" in lowered or any(name.encode() in lowered for name in _SECRET_NAMES)
