"""nats-py's client with a direct way in for plain functions: connection, TLS, reconnects and the rest stay its own.

What nats-py does for a message (a coroutine each, validation, a `Msg`, a queue, a task that wakes up, and one such task
for every subscription) costs more than everything else on a frame's way, and as much as the work for a short text. Here
the lines ``PUB`` and ``MSG`` of the protocol are written and read in place, many messages in one write and one read:
https://docs.nats.io/reference/reference-protocols/nats-protocol. Whatever is no ``MSG`` of a subscription of this kind
goes nats-py's way, as do messages it has begun to read; both ways lead to the same function, in the order of the wire.

It reaches into nats-py's parser and its buffer of what is to be sent, so its version is held below 2.17; tests hold it
against nats-py's own way.
"""

import logging
import re
from collections.abc import Callable, Mapping
from typing import Final

from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

log = logging.getLogger("trunkline.bus.direct")

OnMessage = Callable[[str, bytes], None]
OnHeaded = Callable[[str, bytes, Mapping[str, str]], None]
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

    def message(self, number: int, header: bytes, audio: bytes) -> bytes:
        """Return the whole message that publishes frame `number`, which is `header` and `audio`."""
        size = len(header) + len(audio)
        if self._replies:
            return b"%b%d %d\r\n%b%b\r\n" % (self._begin, number, size, header, audio)
        return b"%b%d\r\n%b%b\r\n" % (self._begin, size, header, audio)


class DirectClient(Client):
    """A client whose messages may be taken by plain functions, as they are read."""

    def __init__(self) -> None:
        super().__init__()
        self.takers: dict[bytes, OnMessage] = {}
        """By the number of their subscription, as it stands in a ``MSG`` line."""
        self._headed: dict[int, OnHeaded] = {}
        self._ps = _DirectParser(self)

    async def take(self, subject: str, on_message: OnMessage, on_headed: OnHeaded | None = None) -> Subscription:
        """Call `on_message` with subject and data of every message on `subject`, until `leave`.

        Where `on_headed` is given, it is called for messages that have headers, and with these.
        """
        subscription = await self.subscribe(subject)
        # Nobody iterates, and the two would hold each other until the collector comes.
        subscription._message_iterator = None  # noqa: SLF001
        number = _number(subscription)
        self.takers[b"%d" % number] = on_message
        if on_headed is not None:
            self._headed[number] = on_headed
        return subscription

    def leave(self, subscription: Subscription) -> None:
        """Take no more of what still comes for `subscription`."""
        number = _number(subscription)
        self.takers.pop(b"%d" % number, None)
        self._headed.pop(number, None)

    async def publish_frames(self, messages: list[bytes]) -> None:
        """Send many messages, made by `Address.message`, at once."""
        await self._send_command(b"".join(messages))
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        on_message = self.takers.get(b"%d" % sid)
        if on_message is None:
            await super()._process_msg(sid, subject, reply, data, headers)
        elif headers and (on_headed := self._headed.get(sid)) is not None:
            found = await self._process_headers(headers) or {}
            _hand_over(lambda subject, data: on_headed(subject, data, found), subject, data)
        else:
            _hand_over(on_message, subject, data)


class _DirectParser(Parser):
    """Takes whole messages out of what was read, and leaves nats-py the rest."""

    def __init__(self, client: DirectClient) -> None:
        super().__init__(client)
        self._takers = client.takers

    async def parse(self, data: bytes = b"") -> None:
        """Take what was read from the socket."""
        if self.state == AWAITING_CONTROL_LINE:
            read = bytes(self.buf) + data if self.buf else data
            done, more = self._take_all(read)
            if more:
                self.buf = bytearray(read[done:])
                return
            if done:
                self.buf = bytearray()
                data = read[done:]
        await super().parse(data)

    def _take_all(self, read: bytes) -> tuple[int, bool]:
        """Return how much of `read` was taken, and whether what follows is nothing or the beginning of a message."""
        at, length, takers = 0, len(read), self._takers
        while message := _MSG.match(read, at):
            subject, number, size = message.groups()
            on_message = takers.get(number)
            if on_message is None:
                return at, False
            begin = message.end()
            end = begin + int(size)
            if end + len(_LINE_END) > length:
                return at, True
            _hand_over(on_message, subject, read[begin:end])
            at = end + len(_LINE_END)
        return at, at == len(read)


def _hand_over(on_message: OnMessage, subject: bytes, data: bytes) -> None:
    """Call `on_message`; what it raises harms no later message."""
    try:
        on_message(subject.decode(), data)
    except Exception:
        log.exception("message dropped", extra={"subject": subject.decode(errors="replace")})


def _number(subscription: Subscription) -> int:
    return int(subscription._id)  # noqa: SLF001 - there is no other name for it
