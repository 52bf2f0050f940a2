"""The media lane: audio in and out of a process, counted in microseconds.

Rules of the lane: no header, no task and no log line per frame; nothing is buffered for later, because late audio is no
audio; what cannot be sent is dropped and counted. One wildcard subscription per process. Callers' frames come fifty
times a second and call: those of a few milliseconds go out together.

A consumer that falls behind: takers are plain functions, so everything that was read is handed over before the next is
read. What waits in the client is one gulp of the socket, 32 KiB (some hundred frames). The true backlog of a process
that hangs stands in the kernel and in the server, in order: 40 calls and 3 s of it (2 MB) are handed over whole within
0.1 s. When the server itself cannot get rid of it (some 10 MB, or 2 s without progress), it breaks the connection and
drops *all* that waits; senders that watch for it hear that nobody listens, and frames newer than that come after the
reconnect. How old a frame may be is for its consumer to judge.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final

import nats.errors
from nats.aio.msg import Msg

from trunkline.bus.direct import Address, DirectClient, OnMessage
from trunkline.bus.errors import BusUnavailable

OnUnheard = Callable[[str], None]

MAX_UNSENT_BYTES: Final = 4 * 2**20
"""Above this much unsent audio the socket is stalled, and more would only be later still."""
PONG_S: Final = 5
"""How long a server may take to answer a ping; it may be as busy as all who start with it."""

GATHER_S: Final = 0.005
"""A write costs more than the frames in it, for whoever writes, for the server and for whoever is woken to read."""
GATHER_FEW_S: Final = 0.0025
MANY: Final = 32
"""So many frames in a write are worth `GATHER_S`; fewer than that are worth `GATHER_FEW_S`."""

_NO_RESPONDERS: Final = "503"


class MediaLane:
    """Audio over one NATS connection. Made by `Bus`."""

    def __init__(self, client: DirectClient) -> None:
        self.client = client
        self.counts: Counter[str] = Counter()
        self.breaks = 0
        """How often the connection broke. What was sent last before that may have got no further than the socket."""
        self._inbox = ""
        self._on_back: list[Callable[[], None]] = []
        self._gathered: list[bytes] = []
        self._shipping: asyncio.Task[None] | None = None
        self._ships_at = 0.0

    @property
    def connected(self) -> bool:
        """Whether the connection stands right now."""
        return self.client.is_connected

    def on_back(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called whenever the connection is back, and others must be as well; return what ends that."""
        self._on_back.append(callback)
        return lambda: self._on_back.remove(callback)

    def back(self) -> None:
        """The connection stands again: tell whom it concerns."""
        for callback in tuple(self._on_back):
            callback()

    async def publish_frame(self, subject: str, data: bytes, reply: str = "") -> bool:
        """Publish one frame; return False when it was dropped (disconnected, or the socket does not take any more).

        `reply` is an address from `reply_to`, for senders who want to know that nobody listens.
        """
        if not self._takes_more():
            return False
        try:
            await self.client.publish(subject, data, reply)
        except nats.errors.Error:
            self.counts["dropped_disconnected"] += 1
            return False
        self.counts["sent"] += 1
        return True

    def gather(self, address: Address, number: int, header: bytes, audio: bytes) -> bool:
        """Publish frame `number` of a call in one write with those of others, some milliseconds after the one before.

        Return False when it was dropped.

        Frames go in the order in which they were gathered. One that the connection takes with it when it breaks is
        lost like one that was sent: `breaks` tells.
        """
        if self._shipping is None:
            if not self._takes_more():
                return False
            self._shipping = asyncio.create_task(self._ship(), name="media-lane")
        self._gathered.append(address.message(number, header, audio))
        return True

    def _takes_more(self) -> bool:
        if self.client.pending_data_size > MAX_UNSENT_BYTES:
            self.counts["dropped_stalled"] += 1
            return False
        if not self.client.is_connected:
            self.counts["dropped_disconnected"] += 1
            return False
        return True

    async def _ship(self) -> None:
        time = asyncio.get_running_loop().time
        await asyncio.sleep(max(0.0, self._ships_at - time()))
        gathered, self._gathered, self._shipping = self._gathered, [], None
        self._ships_at = time() + (GATHER_S if len(gathered) >= MANY else GATHER_FEW_S)
        if not self.client.is_connected:
            self.counts["dropped_disconnected"] += len(gathered)
            return
        await self.client.publish_frames(gathered)
        self.counts["sent"] += len(gathered)

    async def subscribe(self, subject: str, on_frame: OnMessage) -> None:
        """Call `on_frame` with subject and data of every frame, for good. It must be quick and must not raise."""
        await self.client.take(subject, on_frame)

    async def flush(self) -> None:
        """Wait until the server knows of every subscription made so far.

        Raises:
            BusUnavailable: it did not answer in time.
        """
        try:
            # nats-py sends the first PING ahead of what it has buffered; the second one stands behind it.
            await self.client.flush(timeout=PONG_S)
            await self.client.flush(timeout=PONG_S)
        except (nats.errors.Error, TimeoutError) as error:
            raise BusUnavailable("NATS did not answer a ping on the media connection") from error

    async def watch_unheard(self, on_unheard: OnUnheard) -> None:
        """Call `on_unheard(token)` when a frame published with ``reply_to(token)`` found no subscriber.

        The server answers such a frame with status 503, within one frame of the subscriber's death.
        """
        self._inbox = self.client.new_inbox()

        async def deliver(msg: Msg) -> None:
            if msg.headers and msg.headers.get("Status") == _NO_RESPONDERS:
                on_unheard(msg.subject[msg.subject.rfind(".") + 1 :])

        await self.client.subscribe(f"{self._inbox}.*", cb=deliver)

    def reply_to(self, token: str) -> str:
        """Return the reply address for frames about `token`; empty unless `watch_unheard` was called."""
        return f"{self._inbox}.{token}" if self._inbox else ""
