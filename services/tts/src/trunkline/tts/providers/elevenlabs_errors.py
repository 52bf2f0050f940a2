"""What ElevenLabs says when it refuses, as one of our errors. Pure.

Over HTTP, the refusal of a WebSocket included, it is ``{"detail": {"status": word, "message": text}}``; in a WebSocket
``{"message": text, "error": word, "code": number}``, and the number is then the close code. Nothing of a request that
was found wrong is quoted (``detail`` as a list): it holds what the caller's agent said.
"""

import json
from typing import Final

from trunkline.providers.errors import ProviderError, Rejected, Throttled, Transient, Unauthorised, of_status
from trunkline.providers.keys import without_key

_UNAUTHORISED: Final = frozenset(
    {
        "invalid_api_key",
        "auth_error",
        "authentication_error",
        "authorization_error",
        "missing_permissions",
        "needs_authorization",
        "payment_required",
        "subscription_required",
        "detected_unusual_activity",
        "unaccepted_terms",
    }
)
_THROTTLED: Final = frozenset(
    {
        "quota_exceeded",
        "rate_limited",
        "rate_limit_exceeded",
        "too_many_concurrent_requests",
        "concurrent_limit_exceeded",
        "resource_exhausted",
    }
)
_AGAIN: Final = frozenset(
    {"input_timeout_exceeded", "internal_error", "internal_server_error", "server_error", "system_busy"}
)
POLICY: Final = 1008
INTERNAL: Final = 1011


def of_answer(status: int, body: object, retry_after: str | None, key: str) -> ProviderError:
    """Return what an HTTP answer that is no success stands for.

    Args:
        status: HTTP status code.
        body: decoded, or as it came.
        retry_after: the header of that name.
        key: to be blotted out.
    """
    word, message = _detail(body)
    text = without_key(": ".join(part for part in (f"HTTP {status}", word, message) if part), key)
    if word == "quota_exceeded":  # comes with 401
        return Throttled(text)
    return of_status(status, text, retry_after)


def of_message(word: str, message: str, code: object, key: str) -> ProviderError:
    """Return what an error told in a WebSocket stands for."""
    text = without_key(f"{word}: {message}", key)
    if word in _UNAUTHORISED:
        return Unauthorised(text)
    if word in _THROTTLED:
        return Throttled(text)
    return Rejected(text) if code == POLICY and word not in _AGAIN else Transient(text)


def of_close(code: int, reason: str, key: str) -> ProviderError:
    """Return what a close frame stands for; 1006: there was none."""
    word = reason.strip()
    if word in _UNAUTHORISED | _THROTTLED:
        return of_message(word, f"closed ({code})", code, key)
    text = without_key(f"closed ({code}): {reason or 'without a word'}", key)
    return Rejected(text) if code == POLICY else Transient(text, "server" if code == INTERNAL else "dropped")


def _detail(body: object) -> tuple[str, str]:
    if isinstance(body, bytes | bytearray | str):
        try:
            body = json.loads(body)
        except (ValueError, RecursionError):
            return "", ""
    match body:
        case {"detail": {"status": str(word), "message": str(message)}}:
            return word, message
        case {"detail": {"code": str(word), "message": str(message)}}:
            return word, message
        case {"detail": str(message)}:
            return "", message
        case _:
            return "", ""
