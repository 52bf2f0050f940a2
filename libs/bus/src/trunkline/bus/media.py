"""The media lane: audio in and out of a process, counted in microseconds.

Rules of the lane: no header, no task and no log line per frame; nothing is buffered for later, because late audio is no
audio; what cannot be sent is dropped and counted. One wildcard subscription per process, callback style.

A consumer that falls behind: callbacks are plain functions, so everything that was read is handed over before the next
is read. What waits in the client is therefore one gulp of the socket, 256 KiB (700 frames at 8 kHz); beyond
`MAX_WAITING_FRAMES` or `MAX_WAITING_BYTES`, which only a defect can reach, the newest frame is dropped and counted as
``slow_consumer``. The true backlog of a process that hangs stands in the kernel and in the server, in order: 40 calls
and 3 s of it (2 MB) are handed over whole within 0.1 s. When the server itself cannot get rid of it (some 10 MB, or 2 s
without progress), it breaks the connection and drops *all* that waits; senders that watch for it hear that nobody
listens, and frames newer than that come after the reconnect. How old a frame may be is for its consumer to judge.
"""

from collections import Counter
from collections.abc import Callable
from typing import Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription

from trunkline.bus.errors import BusUnavailable

OnFrame = Callable[[str, bytes], None]
OnUnheard = Callable[[str], None]

MAX_UNSENT_BYTES: Final = 4 * 2**20
"""Above this much unsent audio the socket is stalled, and more would only be later still."""

MAX_WAITING_FRAMES: Final = 4_096
MAX_WAITING_BYTES: Final = 2**23
"""Per subscription, in the client. nats-py's own bounds, 524288 messages and 128 MiB, are minutes of audio."""

_NO_RESPONDERS: Final = "503"


class MediaLane:
    """Audio over one NATS connection. Made by `Bus`."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.counts: Counter[str] = Counter()
        self.breaks = 0
        """How often the connection broke. What was sent last before that may have got no further than the socket."""
        self._inbox = ""
        self._on_back: list[Callable[[], None]] = []

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
        client = self.client
        if client.pending_data_size > MAX_UNSENT_BYTES:
            self.counts["dropped_stalled"] += 1
            return False
        try:
            await client.publish(subject, data, reply)
        except nats.errors.Error:
            self.counts["dropped_disconnected"] += 1
            return False
        self.counts["sent"] += 1
        return True

    async def subscribe(self, subject: str, on_frame: OnFrame) -> NatsSubscription:
        """Call `on_frame` with subject and data of every frame. It must be quick and must not raise."""

        async def deliver(msg: Msg) -> None:
            on_frame(msg.subject, msg.data)

        return await self.client.subscribe(
            subject, cb=deliver, pending_msgs_limit=MAX_WAITING_FRAMES, pending_bytes_limit=MAX_WAITING_BYTES
        )

    async def flush(self) -> None:
        """Wait until the server knows of every subscription made so far.

        Raises:
            BusUnavailable: it did not answer in time.
        """
        try:
            # nats-py sends the first PING ahead of what it has buffered; the second one stands behind it.
            await self.client.flush(timeout=1)
            await self.client.flush(timeout=1)
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
