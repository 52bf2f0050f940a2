"""Who is let in: what Twilio has signed or, while there is no secret to check with, clients of this machine."""

from collections.abc import Mapping
from typing import NamedTuple

from starlette.datastructures import FormData

from trunkline.edge.settings import is_loopback
from trunkline.edge.signature import Signatures


class Visitor(NamedTuple):
    """Who asks, and for what. `headers` is keyed in lower case."""

    host: str
    path: str
    query: str
    headers: Mapping[str, str]


class Gate:
    """With `signatures`, checks them; without, lets in loopback only."""

    def __init__(self, signatures: Signatures | None) -> None:
        self._signatures = signatures

    @property
    def loopback_only(self) -> bool:
        """Whether there is no secret, so that only this machine is served."""
        return self._signatures is None

    def webhook(self, visitor: Visitor, form: FormData) -> str | None:
        """Return why the webhook is refused, or None."""
        if self._signatures is None:
            return self.local(visitor)
        return _unsigned(self._signatures.webhook(visitor.path, visitor.query, form, visitor.headers))

    def socket(self, visitor: Visitor) -> str | None:
        """Return why the WebSocket is refused, or None."""
        if self._signatures is None:
            return self.local(visitor)
        return _unsigned(self._signatures.socket(visitor.path, visitor.query, visitor.headers))

    def local(self, visitor: Visitor) -> str | None:
        """Return why the visitor is not of this machine, or None."""
        if is_near(visitor):
            return None
        return "TRUNKLINE_TWILIO_AUTH_TOKEN is not set, so only clients of this machine are served"


def is_near(visitor: Visitor) -> bool:
    """Whether the visitor is of this machine. What a proxy forwards is not, wherever it runs."""
    forwarded = "forwarded" in visitor.headers or "x-forwarded-for" in visitor.headers
    return is_loopback(visitor.host) and not forwarded


def _unsigned(signed: bool) -> str | None:  # noqa: FBT001 - private and called with the check itself
    if signed:
        return None
    return (
        "X-Twilio-Signature is missing or wrong: check TRUNKLINE_TWILIO_AUTH_TOKEN, and that TRUNKLINE_EDGE_PUBLIC_URL"
        " is the origin Twilio was given"
    )
