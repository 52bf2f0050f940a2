"""Keys and addresses of providers: found in the environment, in a file, or in a mounted secret; never logged or sent.

For a service called ``acme`` (or an endpoint of that name): the key is the variable ``ACME_API_KEY``; or stands in the
file that ``ACME_API_KEY_FILE`` names; or in the file ``ACME_API_KEY`` of the folder ``TRUNKLINE_SECRETS``. Its address
is ``ACME_BASE_URL``, else the adapter's own.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

SECRETS: Final = "TRUNKLINE_SECRETS"
_LONGEST_KEY: Final = 8_192


class MissingKey(LookupError):
    """There is no key; the text names the settings that would hold one."""

    def __init__(self, variable: str) -> None:
        super().__init__(f"{variable} is not set to a key (nor {variable}_FILE, nor a file {variable} in {SECRETS})")
        self.variable = variable


class BadAddress(ValueError):
    """An address setting is no URL that can be used; the text names the setting."""


def variable_of(service: str, what: str) -> str:
    """Return the name of the variable that holds `what` (``API_KEY``, ``BASE_URL``) of `service`."""
    return f"{re.sub(r'[^A-Z0-9]+', '_', service.upper())}_{what}"


def key_of(service: str, environ: Mapping[str, str]) -> str:
    """Return the key of `service`.

    Raises:
        MissingKey: there is none, or its file cannot be read or is empty.
    """
    variable = variable_of(service, "API_KEY")
    found = environ.get(variable, "").strip()
    folder = environ.get(SECRETS, "")
    for path in (environ.get(f"{variable}_FILE", ""), f"{folder}/{variable}" if folder else ""):
        found = found or _read(path)
    # What a header cannot hold is no key, but a file with more in it than one.
    if not (found and found.isascii() and found.isprintable()):
        raise MissingKey(variable)
    return found


def address_of(service: str, environ: Mapping[str, str], default: str) -> str:
    """Return the base URL of `service`, without a slash at its end.

    Raises:
        BadAddress: the setting is no http(s) URL.
    """
    variable = variable_of(service, "BASE_URL")
    url = environ.get(variable, "").strip() or default
    try:
        parts = urlsplit(url)
        fine = parts.scheme in {"http", "https"} and bool(parts.hostname) and not parts.query and not parts.fragment
    except ValueError:
        fine = False
    if not fine:
        raise BadAddress(f"{variable} is no http:// or https:// address without query")
    return url.rstrip("/")


def socket_address(url: str) -> str:
    """Return the WebSocket address of an http(s) base URL."""
    return "ws" + url.removeprefix("http")


def without_key(text: str, key: str) -> str:
    """Return `text` with `key` blotted out: providers quote keys in their refusals."""
    return text.replace(key, "***") if key else text


def _read(path: str) -> str:
    if not path:
        return ""
    try:
        with Path(path).open(encoding="utf-8") as file:
            return file.read(_LONGEST_KEY).strip()
    except (OSError, UnicodeDecodeError):
        return ""
