"""What a carrier is to the edge: a wire language, and a line it is spoken on.

A further road (AudioSocket, WebRTC, another carrier) is one more `Carrier` and, where it is no WebSocket, one more
`Line`. Nothing behind these two knows which carrier a call came by. A `Carrier` does no I/O and knows no time.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec

from trunkline.proto.frame import Codec
from trunkline.proto.ids import MarkName

Message = str | bytes
"""One message on a line, as the carrier frames it."""


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """The carrier's stream is open. `agent` is the name the stream asks for, if it does."""

    carrier_call: str
    stream: str
    account: str
    agent: str | None
    parameters: dict[str, str]
    codec: Codec
    sample_rate_hz: int


class Digit(msgspec.Struct, frozen=True):
    """The caller pressed one of 0-9 * # A-D."""

    digit: str


class MarkReturned(msgspec.Struct, frozen=True):
    """The carrier has played what was sent before the mark, or has thrown it away: only the ledger can tell."""

    name: MarkName


class Stopped(msgspec.Struct, frozen=True):
    """The carrier has ended the stream."""


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """What came is not what the protocol allows.

    `reason` is one of a small fixed set (it labels a counter), `detail` is for people and holds nothing the caller
    said. With a `close_code` the socket must be closed; without one the message is ignored and counted.
    """

    reason: str
    detail: str
    close_code: int | None = None


CarrierEvent = bytes | Started | Digit | MarkReturned | Stopped | Rejected
"""Bytes are caller audio in the codec of `Started`, of any length."""


class Carrier(Protocol):
    """One stream of a carrier, as a pure machine."""

    @property
    def name(self) -> str:
        """Name of the carrier; part of the call's id."""
        ...

    @property
    def waiting_for(self) -> str | None:
        """What has to come before the stream is live; None once it has been."""
        ...

    def receive(self, message: Message) -> CarrierEvent | None:
        """Take a message from the line and return what it means; None when it has nothing to tell."""
        ...

    def media(self, audio: bytes) -> Message:
        """Return the message that queues `audio` (in the codec of `Started`) for playing."""
        ...

    def mark(self, name: MarkName) -> Message:
        """Return the message that asks for `name` back once everything queued before it has played."""
        ...

    def clear(self) -> Message:
        """Return the message that throws away everything queued."""
        ...


class Line(Protocol):
    """A connection to a carrier."""

    async def receive(self) -> Message:
        """Wait for the next message.

        Raises:
            LineClosed: there will be none.
        """
        ...

    async def listen(self, take: Callable[[Message], None]) -> None:
        """Hand every message to `take` from now on, as it comes: no task wakes up for it.

        Raises:
            LineClosed: there will be no more. It returns in no other way.
            Exception: whatever `take` raised, which is then given no more.
        """
        ...

    async def send(self, message: Message) -> None:
        """Send `message`, waiting while the other side does not read.

        Raises:
            LineClosed: nobody will read it.
        """
        ...

    async def close(self, code: int, reason: str) -> None:
        """Close with a WebSocket close code (or the nearest the line has); does nothing when it is closed."""
        ...
