"""Messages as the API document gives them, character by character, to be sent with ids of one's
own.
"""

import base64
import json
import secrets
import uuid
from importlib.resources import files

#: The region of the document's messages.
REGION = "cn-north-3"


def change_configure(
    server_id: str, image_id: str, *, order_id: str | None = None, token: str | None = None
) -> str:
    """The document's paid order: resize to S1.medium.2 (2 CPUs, 4 GiB), system disk of type SATA to
    60 GiB.

    Its quirks are the document's: a blank after the order's type, numbers in texts, an item of
    value 0.
    """
    text = (files(__package__) / "changeConfigure.json").read_text(encoding="utf-8")
    text = text.replace("@SERVER@", server_id).replace("@IMAGE@", image_id)
    return text.replace("@ORDER@", order_id or new_order_id()).replace(
        "@TOKEN@", token or new_token()
    )


def new_order_id() -> str:
    """An order's number, as the billing system's are."""
    return str(secrets.randbelow(9 * 10**17) + 10**17)


def new_token() -> str:
    """Return a text that looks like a JWT and opens nothing."""
    parts = [{"alg": "RS256", "typ": "JWT"}, {"sub": str(uuid.uuid4()), "jti": str(uuid.uuid4())}]
    encoded = [_base64(json.dumps(part).encode()) for part in parts]
    return ".".join([*encoded, _base64(secrets.token_bytes(256))])


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
