"""Settings of the events service, and what of them can be wrong beyond a type."""

import os
import stat
from pathlib import Path
from typing import Annotated
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

import msgspec
from msgspec import Meta

from trunkline.events import signature
from trunkline.runtime.settings import Secret, SettingsError


class EventsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The variables ``TRUNKLINE_EVENTS_*``."""

    file: str = ""
    """Where every fact is appended as a line of JSON. Unset: no file."""
    webhook_url: Secret = ""
    """Where every fact is posted. May hold ``user:password@``. Unset: no webhook."""
    webhook_secret: Secret = ""
    """Key for Standard Webhooks signatures: ``whsec_`` and base64 of 24 to 64 bytes. Unset: posts are not signed."""
    webhook_timeout_s: Annotated[float, Meta(gt=0, le=120)] = 15.0
    webhook_concurrency: Annotated[int, Meta(ge=1, le=256)] = 16
    """Posts under way at once, all of different calls."""
    drain_s: Annotated[float, Meta(ge=0, le=300)] = 5.0
    """How long a stopping process still delivers; what is left then waits in the stream for the next one."""


class Receiver(msgspec.Struct, frozen=True, kw_only=True):
    """Where the webhook goes. Only `shown` may be told."""

    url: str
    """Without user and password."""
    shown: str
    """Scheme, host and port: paths and queries often hold a token."""
    login: tuple[str, str] | None = None
    key: bytes | None = None


def receiver_of(settings: EventsSettings) -> Receiver | None:
    """Return the webhook's receiver, or None if none is set.

    Raises:
        SettingsError: the URL or the secret cannot be used.
    """
    if not settings.webhook_url:
        if settings.webhook_secret:
            raise SettingsError("TRUNKLINE_EVENTS_WEBHOOK_SECRET is set without TRUNKLINE_EVENTS_WEBHOOK_URL")
        return None
    parts = _split(settings.webhook_url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    place = host if parts.port is None else f"{host}:{parts.port}"
    login = (unquote(parts.username or ""), unquote(parts.password or "")) if "@" in parts.netloc else None
    return Receiver(
        url=urlunsplit((parts.scheme, place, parts.path, parts.query, "")),
        shown=f"{parts.scheme}://{place}",
        login=login,
        key=_key(settings.webhook_secret),
    )


def file_of(settings: EventsSettings) -> Path | None:
    """Return the file of the file sink, ready to be appended to, or None if none is set.

    Raises:
        SettingsError: it cannot be made or written.
    """
    if not settings.file:
        return None
    path = Path(settings.file).expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError as error:
        problem = error.strerror or str(error)
        raise SettingsError(
            f"TRUNKLINE_EVENTS_FILE={settings.file!r} cannot be written ({problem}); expected a file, not a folder,"
            " where this user may write"
        ) from error
    try:
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
    if not regular:
        raise SettingsError(f"TRUNKLINE_EVENTS_FILE={settings.file!r} is no regular file")
    return path


def _split(url: str) -> SplitResult:
    wanted = "expected http://host[:port]/path or https://…"
    if any(letter.isspace() or not letter.isprintable() for letter in url):
        raise SettingsError(f"TRUNKLINE_EVENTS_WEBHOOK_URL=(hidden) holds a space or a control character; {wanted}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise SettingsError(f"TRUNKLINE_EVENTS_WEBHOOK_URL=(hidden) is no URL; {wanted}") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        scheme = f"scheme {parts.scheme!r}" if parts.scheme else "no scheme"
        host = "a host" if parts.hostname else "no host"
        raise SettingsError(f"TRUNKLINE_EVENTS_WEBHOOK_URL=(hidden) has {scheme} and {host}; {wanted}")
    return parts


def _key(secret: str) -> bytes | None:
    if not secret:
        return None
    try:
        return signature.key_of(secret)
    except ValueError as error:
        raise SettingsError(
            f"TRUNKLINE_EVENTS_WEBHOOK_SECRET=(hidden) is {error}; expected whsec_ and base64 of 24 to 64 bytes,"
            ' for example "whsec_$(openssl rand -base64 32)"'
        ) from error
