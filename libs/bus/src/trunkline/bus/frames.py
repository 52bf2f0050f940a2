"""nats-py's client with a short way for audio: connection, TLS, authorisation, reconnects and the rest stay its own.

What nats-py does for a message (a coroutine each, validation, a `Msg`, a queue, a task that wakes up) costs more than
everything else on a frame's way. Here the lines ``PUB`` and ``MSG`` of the protocol are written and read in place, many
frames in one write and one read: https://docs.nats.io/reference/reference-protocols/nats-protocol. Whatever is no
``MSG`` of a subscription of this kind goes nats-py's way, as do messages it has begun to read.

It reaches into nats-py's parser and its buffer of what is to be sent, so its version is held below 2.17; tests hold it
against nats-py's own way.
"""

import logging
import re
from collections.abc import Callable
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

log = logging.getLogger("trunkline.bus.frames")

OnFrame = Callable[[str, bytes], None]
_MSG: Final = re.compile(rb"MSG ([^ \r]+) ([^ \r]+) (?:[^ \r]+ )?(\d+)\r\n")
"""Subject, number of the subscription, maybe a reply address, size. Half a line is left to nats-py."""
_LINE_END: Final = b"\r\n"


class Address:
    """Where the frames of a call go.

    Args:
        subject: of them all.
        reply: how the reply address of each begins; its number follows. Empty, they have none.
    """

    def __init__(self, subject: str, reply: str = "") -> None:
        self._begin = f"PUB {subject} {reply}".encode()
        self._replies = bool(reply)

    def message(self, number: int, data: bytes) -> bytes:
        """Return the whole message that publishes `data`, frame `number`."""
        if self._replies:
            return b"%b%d %d\r\n%b\r\n" % (self._begin, number, len(data), data)
        return b"%b%d\r\n%b\r\n" % (self._begin, len(data), data)


class FrameClient(Client):
    """A client whose audio goes the short way."""

    def __init__(self) -> None:
        super().__init__()
        self.takers: dict[bytes, OnFrame] = {}
        """By the number of their subscription, as it stands in a ``MSG`` line."""
        self._ps = _FrameParser(self)

    async def subscribe_frames(self, subject: str, take: OnFrame) -> None:
        """Call `take` with subject and data of every message on `subject`, for as long as this client lives."""
        subscription = await self.subscribe(subject, cb=_never)
        self.takers[b"%d" % subscription._id] = take  # noqa: SLF001 - there is no other name for it

    async def publish_frames(self, messages: list[bytes]) -> None:
        """Send many messages, made by `Address.message`, at once."""
        await self._send_command(b"".join(messages))
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        take = self.takers.get(b"%d" % sid)
        if take is None:
            await super()._process_msg(sid, subject, reply, data, headers)
        else:
            _hand_over(take, subject, data)


class _FrameParser(Parser):
    """Takes whole frames out of what was read, and leaves nats-py the rest."""

    def __init__(self, client: FrameClient) -> None:
        super().__init__(client)
        self._takers = client.takers

    async def parse(self, data: bytes = b"") -> None:
        """Take what was read from the socket."""
        if self.state == AWAITING_CONTROL_LINE:
            read = bytes(self.buf) + data if self.buf else data
            done, more = self._take_frames(read)
            if more:
                self.buf = bytearray(read[done:])
                return
            if done:
                self.buf = bytearray()
                data = read[done:]
        await super().parse(data)

    def _take_frames(self, read: bytes) -> tuple[int, bool]:
        """Return how much of `read` was frames, and whether what follows is nothing or the beginning of one."""
        at, length, takers = 0, len(read), self._takers
        while message := _MSG.match(read, at):
            subject, number, size = message.groups()
            take = takers.get(number)
            if take is None:
                return at, False
            begin = message.end()
            end = begin + int(size)
            if end + len(_LINE_END) > length:
                return at, True
            _hand_over(take, subject, read[begin:end])
            at = end + len(_LINE_END)
        return at, at == len(read)


def _hand_over(take: OnFrame, subject: bytes, data: bytes) -> None:
    """Call `take`; what it raises harms no later frame."""
    try:
        take(subject.decode(), data)
    except Exception:
        log.exception("frame dropped", extra={"subject": subject.decode(errors="replace")})


async def _never(msg: Msg) -> None:
    raise AssertionError(f"a message on {msg.subject} went the long way")
