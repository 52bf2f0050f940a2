"""Whether a request comes from Twilio: its signature, checked with the official validator.

The signed URL is the one Twilio was given, so it is rebuilt from the configured public URL and never from a ``Host`` or
``X-Forwarded-*`` header, which the sender chooses. https://www.twilio.com/docs/usage/webhooks/webhooks-security
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.datastructures import FormData
from twilio.request_validator import (
    RequestValidator,
    get_signature_algorithm,
)

SIGNATURE_HEADER: Final = "x-twilio-signature"
SETTINGS_HEADER: Final = "x-twilio-webhooks-signature-settings"
_SOCKET_SCHEMES: Final = {"http": "ws", "https": "wss"}


class PublicUrl:
    """The origin by which carriers reach this edge, with an optional path before ours.

    Raises:
        ValueError: it is no http:// or https:// URL with a host, or has a query.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in _SOCKET_SCHEMES or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"{url!r} is no http:// or https:// URL of a host, without a query")
        self._base = url.rstrip("/")
        self._scheme = parts.scheme

    def __str__(self) -> str:
        return self._base

    def http(self, path: str, query: str = "") -> str:
        """Return the URL of `path` with the raw `query`."""
        return f"{self._base}{path}?{query}" if query else f"{self._base}{path}"

    def socket(self, path: str, query: str = "") -> str:
        """Return the WebSocket URL of `path`: wss:// where the public URL is https://."""
        return _SOCKET_SCHEMES[self._scheme] + self.http(path, query)[len(self._scheme) :]


class Signatures:
    """Checks signatures made with one secret."""

    def __init__(self, token: str, public: PublicUrl) -> None:
        self._validator: Any = RequestValidator(token)
        self._public = public

    def webhook(self, path: str, query: str, form: FormData, headers: Mapping[str, str]) -> bool:
        """Whether the POST of `form` to `path` is signed. Repeated and empty fields count."""
        return self._valid(self._public.http(path, query), form, headers)

    def socket(self, path: str, query: str, headers: Mapping[str, str]) -> bool:
        """Whether the WebSocket upgrade is signed, over its URL or (Twilio advises to try) with a slash behind it."""
        url = self._public.socket(path, query)
        return self._valid(url, {}, headers) or self._valid(url + "/", {}, headers)

    def _valid(self, url: str, parameters: FormData | dict[str, str], headers: Mapping[str, str]) -> bool:
        signature = headers.get(SIGNATURE_HEADER)
        if not signature:
            return False
        algorithm = get_signature_algorithm(headers.get(SETTINGS_HEADER, ""))
        return bool(self._validator.validate(url, parameters, signature, algorithm))
