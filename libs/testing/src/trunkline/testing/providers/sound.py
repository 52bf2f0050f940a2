"""Sound as the body of an HTTP response, and what faults in its midst look like.

Raw PCM has no messages, so two faults take another shape in it: a malformed message is a body that breaks HTTP's
chunked coding (RFC 9112, 7.1), and a message of unknown type is left out. An emulator that serves more than sound
returns `UNKNOWN` and `MALFORMED` from its hooks, and translates them for each answer.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from trunkline.testing.providers.server import Answer

PIECE_BYTES: Final = 4_095
"""Of a spoken answer: odd, because nothing promises that HTTP is cut between samples."""
UNKNOWN: Final = "\x00 a message of a type that does not exist \x00"
MALFORMED: Final = "\x00 no message at all \x00"
_BROKEN_CHUNK: Final = b"\r\nthis is no chunk\r\n"


async def say(answer: Answer, sound: bytes, samples_per_s: float) -> None:
    """Send PCM16 piece by piece; 0 samples per second: all at once."""
    for at in range(0, len(sound), PIECE_BYTES):
        piece = sound[at : at + PIECE_BYTES]
        await answer.send(piece)
        if samples_per_s:
            await asyncio.sleep(len(piece) / 2 / samples_per_s)


def translated(
    request: web.Request, write: Callable[[bytes], Awaitable[None]], unknown: bytes, malformed: bytes | None
) -> Callable[[bytes], Awaitable[None]]:
    """Return a `write` for which `UNKNOWN` and `MALFORMED` become these bytes; None: what is no HTTP either."""

    async def send(data: bytes) -> None:
        if data == MALFORMED.encode() and malformed is None:
            if isinstance(request.transport, asyncio.WriteTransport):
                request.transport.write(_BROKEN_CHUNK)
            return
        if data == MALFORMED.encode():
            data = malformed or b""
        elif data == UNKNOWN.encode():
            data = unknown
        if data:
            await write(data)

    return send
