"""Standard Webhooks v1 signatures (https://github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md).

Pure: the time stamp is passed in.
"""

import base64
import binascii
import hashlib
import hmac
from typing import Final

_PREFIX: Final = "whsec_"
_SHORTEST_KEY_BYTES: Final = 24
_LONGEST_KEY_BYTES: Final = 64


def key_of(secret: str) -> bytes:
    """Return the key in `secret`: ``whsec_`` and base64 of 24 to 64 bytes. The text ``v1,`` before it is allowed.

    Raises:
        ValueError: it is something else; the text does not show it.
    """
    encoded = secret.strip().removeprefix("v1,").removeprefix(_PREFIX)
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("no base64") from None
    if not _SHORTEST_KEY_BYTES <= len(key) <= _LONGEST_KEY_BYTES:
        raise ValueError(f"{len(key)} bytes long")
    return key


def headers(event_id: str, timestamp_s: int, body: bytes, key: bytes | None) -> dict[str, str]:
    """Return the headers of a webhook: id and time stamp, and the signature if there is a key."""
    signed = {"webhook-id": event_id, "webhook-timestamp": str(timestamp_s)}
    if key is not None:
        digest = hmac.new(key, f"{event_id}.{timestamp_s}.".encode() + body, hashlib.sha256).digest()
        signed["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return signed
