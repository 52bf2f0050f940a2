"""One WebSocket of one media stream: moves messages between it and a `Line`."""

import asyncio
import contextlib
from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from trunkline.testing.errors import CallFailed
from trunkline.testing.twilio.line import SLOW_READER, Line
from trunkline.testing.twilio.webhook import is_local, signature, told
from trunkline.testing.twilio.wire import FRAME_MS

NO_HANDSHAKE: Final = "31920"
NO_SOCKET: Final = "31901"
ABNORMAL: Final = 1006
"""Close code of a socket that broke without a closing handshake."""
_OPEN_S: Final = 10.0
_CLOSE_S: Final = 2.0
_OUTBOX_MESSAGES: Final = 250
_FLUSH_S: Final = 1.0


async def open_socket(url: str, token: str | None) -> ClientConnection:
    """Connect as Twilio does.

    Raises:
        CallFailed: nobody answers, or not with a WebSocket.
    """
    headers = {"X-Twilio-Signature": signature(token, url, {})} if token else {}
    try:
        return await connect(
            url,
            additional_headers=headers,
            user_agent_header="Twilio.TmeWs/1.0",
            compression=None,
            ping_interval=None,
            open_timeout=_OPEN_S,
            close_timeout=_CLOSE_S,
            proxy=None if is_local(url) else True,
        )
    except (OSError, InvalidHandshake, TimeoutError) as error:
        status = error.response.status_code if isinstance(error, InvalidStatus) else None
        raise CallFailed(f"the WebSocket {url} of the TwiML did not open: {told(error)}", status) from error


class MediaStream:
    """A line on a socket. It moves messages from its making until `close`; time is its owner's to pass."""

    def __init__(self, socket: ClientConnection, line: Line) -> None:
        self.line: Final = line
        self._socket = socket
        self._outbox: asyncio.Queue[str] = asyncio.Queue(_OUTBOX_MESSAGES)
        self._reader = asyncio.create_task(self._read(), name="twilio-reader")
        self._writer = asyncio.create_task(self._write(), name="twilio-writer")

    @property
    def close_code(self) -> int:
        """Close code of the socket, once it is closed."""
        return self._socket.close_code or ABNORMAL

    @property
    def close_reason(self) -> str:
        """Why the socket was closed, if anybody said."""
        return self._socket.close_reason or ""

    def send(self, messages: list[str]) -> None:
        """Put messages behind those that wait for the application to read."""
        for message in messages:
            try:
                self._outbox.put_nowait(message)
            except asyncio.QueueFull:
                late_s = _OUTBOX_MESSAGES * FRAME_MS / 1_000
                self.line.warn(SLOW_READER, f"the application has not read for {late_s:g} s; a message is lost")

    async def ended(self) -> None:
        """Return when the application has closed the socket or lost it."""
        await asyncio.shield(self._reader)

    async def stop(self) -> None:
        """Tell the application that the caller is gone, and close."""
        self.send([self.line.stop()])
        try:
            await asyncio.wait_for(self._outbox.join(), _FLUSH_S)
        except TimeoutError:
            self.line.warn(SLOW_READER, "the application did not read the end of the call")
        await self._socket.close()
        await self._reader
        await self.close()

    async def close(self) -> None:
        """Close the socket and let go of everything. Safe to call twice."""
        self._reader.cancel()
        self._writer.cancel()
        await asyncio.gather(self._reader, self._writer, return_exceptions=True)
        await self._socket.close()

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in self._socket:
                self.send(self.line.receive(message))

    async def _write(self) -> None:
        while True:
            message = await self._outbox.get()
            # Once the socket is closed there is nobody to tell, and `stop` must not wait for it.
            with contextlib.suppress(ConnectionClosed):
                await self._socket.send(message)
            self._outbox.task_done()
