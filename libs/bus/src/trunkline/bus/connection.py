"""Two connections to NATS for a process: control (text, requests, JetStream) and media (audio, nothing that may wait).

They are separate so that a slow consumer or a stalled socket on the media side takes no claim down with it. nats-py
closes a client for good on any error it does not know (maximum subscriptions, for one), without a reconnect; and what
the server's permissions do not allow it merely reports, though the subscription is dead or the message gone. Neither
gets better by waiting: `on_lost` ends the process, so that it is started again and somebody sees why.
"""

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Final, Self
from urllib.parse import urlsplit

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription

from trunkline.bus.direct import DirectClient, OnMessage
from trunkline.bus.errors import BusTimeout, BusUnavailable, NoWorker
from trunkline.bus.media import PONG_S, MediaLane
from trunkline.bus.outage import WayBack
from trunkline.bus.outbox import BACK_S, Outbox, Repeats
from trunkline.bus.storing import Storing
from trunkline.proto.codec import encode

log = logging.getLogger("trunkline.bus")

OnRequest = Callable[[bytes], Awaitable[msgspec.Struct | None]]
OnLost = Callable[[str], None]

MAX_UNSENT_BYTES: Final = 2**20
"""Above this much unsent text the socket is stalled, or the connection has been away for long."""
_PENDING_BYTES = 2 * MAX_UNSENT_BYTES
"""Above this nats-py has every publisher wait for the socket: we never get there."""
_AGAIN = "Again"
"""Header of a message that is said again; names the outage."""
_DENIED = re.compile(r"permissions violation for (\w+) to \"([^\"]*)\"", re.IGNORECASE)
_SETTINGS: dict[str, Any] = {
    "max_reconnect_attempts": -1,
    "connect_timeout": 1,
    "ping_interval": 1,
    "max_outstanding_pings": 2,
    "flush_timeout": 1,
    "drain_timeout": 2,
}


class Subscription:
    """Interest in a subject; ends with `unsubscribe`."""

    def __init__(self, client: DirectClient, inner: NatsSubscription) -> None:
        self._client = client
        self._inner = inner

    async def unsubscribe(self) -> None:
        """Stop; messages not handed over yet are dropped. Does nothing when the connection is gone."""
        self._client.leave(self._inner)
        with contextlib.suppress(nats.errors.Error):
            await self._inner.unsubscribe()

    async def drain(self) -> None:
        """Stop, but hand over what the server had sent already: what is in flight is answered, not lost."""
        inner = self._inner
        with contextlib.suppress(nats.errors.Error, TimeoutError):
            # nats-py 2.16 sends the PING of a drain ahead of its buffered UNSUB, and then drops what still comes. Said
            # twice, the second PING stands behind the first UNSUB. There is no public way to send one.
            await inner._conn._send_unsubscribe(inner._id)  # noqa: SLF001
            await inner._conn.flush(timeout=1)  # noqa: SLF001
            await inner.drain()
        self._client.leave(inner)


class Bus:
    """A process's access to the bus. Made by `connect`."""

    def __init__(self, control: DirectClient, media: DirectClient, on_lost: OnLost) -> None:
        self.control = control
        self.media = MediaLane(media)
        self.storing = Storing(control)
        self._outbox = Outbox(self._send_late, MAX_UNSENT_BYTES)
        self._repeats = Repeats()
        self._on_lost = on_lost
        self.up_since: float | None = None
        """Since when (loop time) both connections have stood without a break; None while one does not."""
        self.breaks = 0
        """How often the control connection broke."""
        self._closing = False
        self._requests: set[asyncio.Task[None]] = set()

    @classmethod
    async def connect(cls, url: str, *, name: str, on_lost: OnLost, within_s: float = 15.0) -> Self:
        """Connect both clients to `url` (one server, or several separated by commas).

        Raises:
            BusUnavailable: no server answered within `within_s`, or it refused us.
        """
        servers = [part.strip() for part in url.split(",")]
        control, media = DirectClient(), DirectClient()
        bus = cls(control, media, on_lost)
        try:
            async with asyncio.timeout(within_s):
                for client, lane, pending in (
                    (control, "control", _PENDING_BYTES),
                    (media, "media", -1),  # nothing is buffered while disconnected: late audio is no audio
                ):
                    way_back = WayBack()
                    await client.connect(
                        servers,
                        name=f"{name}/{lane}",
                        pending_size=pending,
                        error_cb=bus._errors(lane, way_back),
                        disconnected_cb=bus._disconnected(lane, way_back),
                        reconnected_cb=bus._reconnected(lane, client, way_back),
                        closed_cb=bus._closed(lane, client),
                        lame_duck_mode_cb=bus._move_on(client),
                        reconnect_to_server_handler=way_back,
                        **_SETTINGS,
                    )
                    way_back.found(_address(client))
        except (TimeoutError, OSError, nats.errors.Error) as error:
            bus._closing = True
            for client in (control, media):
                with contextlib.suppress(Exception):
                    await client.close()
            why = str(error) or f"no answer within {within_s:.0f} s"
            raise BusUnavailable(f"cannot reach NATS at {_shown(servers)} (TRUNKLINE_NATS_URL): {why}") from error
        bus.up_since = asyncio.get_running_loop().time()
        return bus

    @property
    def connected(self) -> bool:
        """Whether both connections stand right now."""
        return self.control.is_connected and self.media.connected

    def settled(self, for_s: float) -> bool:
        """Whether both connections have stood for so long: before, others may still be on their way back as well."""
        since = self.up_since
        return since is not None and self.connected and asyncio.get_running_loop().time() - since >= for_s

    def problem(self) -> str | None:
        """Return why the bus cannot be used right now, or None: a readiness check."""
        return None if self.connected else "not connected to NATS"

    async def publish(self, subject: str, message: msgspec.Struct) -> None:
        """Publish `message` as JSON on the control connection. Never waits for the socket.

        While disconnected, and until others must be back as well, it is kept; what may have been lost with the
        connection is sent again, and heard once (`Outbox`).

        Raises:
            BusUnavailable: more than 1 MiB waits already, or the connection is closed for good.
        """
        data = encode(message)
        if (self._outbox.shut or not self.control.is_connected) and not self.control.is_closed:
            if not self._outbox.hold(subject, data):
                raise BusUnavailable(f"cannot publish on {subject}: too much waits for NATS to come back")
            return
        self._refuse_when_stalled(subject, len(data))
        self._outbox.said(subject, data)
        try:
            await self.control.publish(subject, data)
        except nats.errors.Error as error:
            raise BusUnavailable(f"cannot publish on {subject}: {error}") from error

    async def subscribe(self, subject: str, on_message: OnMessage) -> Subscription:
        """Call `on_message` with subject and data of every message, as it is read.

        What `on_message` raises is logged and harms no later message.
        """
        time, repeats = asyncio.get_running_loop().time, self._repeats

        def deliver(subject: str, data: bytes) -> None:
            repeats.heard(subject, data, time())
            on_message(subject, data)

        def deliver_again(subject: str, data: bytes, headers: Mapping[str, str]) -> None:
            outage = headers.get(_AGAIN)
            if outage is None:
                deliver(subject, data)
            elif repeats.is_news(outage, subject, data, time()):
                on_message(subject, data)

        with self._refusals(subject):
            return Subscription(self.control, await self.control.take(subject, deliver, deliver_again))

    async def serve(self, subject: str, on_request: OnRequest, queue: str = "") -> Subscription:
        """Answer requests on `subject`; each is served in a task of its own. None means no answer."""

        async def answer(msg: Msg) -> None:
            try:
                reply = await on_request(msg.data)
                if reply is not None and msg.reply:
                    await self.control.publish(msg.reply, encode(reply))
            except Exception:
                log.exception("request dropped", extra={"subject": msg.subject})

        async def accept(msg: Msg) -> None:
            task = asyncio.create_task(answer(msg), name=f"serve {subject}")
            self._requests.add(task)
            task.add_done_callback(self._requests.discard)

        with self._refusals(subject):
            return Subscription(self.control, await self.control.subscribe(subject, queue=queue, cb=accept))

    async def request(self, subject: str, message: msgspec.Struct, timeout_s: float) -> bytes:
        """Send `message` and return the first answer.

        Raises:
            NoWorker: nobody subscribes to `subject`.
            BusTimeout: no answer within `timeout_s`.
            BusUnavailable: closed for good, or more than 1 MiB waits to be sent.
        """
        data = encode(message)
        self._refuse_when_stalled(subject, len(data))
        try:
            reply = await self.control.request(subject, data, timeout=timeout_s)
        except nats.errors.NoRespondersError as error:
            raise NoWorker(f"nobody listens on {subject}") from error
        except nats.errors.TimeoutError as error:
            raise BusTimeout(f"no answer on {subject} within {timeout_s} s") from error
        except nats.errors.Error as error:
            raise BusUnavailable(f"cannot ask on {subject}: {error}") from error
        return reply.data

    async def flush(self, timeout_s: float = PONG_S) -> None:
        """Wait until the server has seen everything published and subscribed so far.

        Raises:
            BusUnavailable: it did not answer in time.
        """
        try:
            # nats-py sends the first PING ahead of what it has buffered; the second one stands behind it.
            await self.control.flush(timeout=max(1, round(timeout_s)))
            await self.control.flush(timeout=max(1, round(timeout_s)))
        except (nats.errors.Error, TimeoutError) as error:
            raise BusUnavailable("NATS did not answer a ping") from error

    async def close(self) -> None:
        """Send what waits, then close both connections."""
        self._closing = True
        for task in list(self._requests):
            task.cancel()
        self._outbox.cancel()
        if self.control.is_connected:
            await self._outbox.empty()
        for client in (self.control, self.media.client):
            with contextlib.suppress(nats.errors.Error, TimeoutError):
                await client.flush(timeout=1)
            with contextlib.suppress(Exception):
                await client.close()

    async def _send_late(self, subject: str, data: bytes, outage: str) -> None:
        try:
            await self.control.publish(subject, data, headers={_AGAIN: outage} if outage else None)
        except nats.errors.Error as error:
            log.warning("message lost in an outage", extra={"subject": subject, "error": str(error)})

    def _refuse_when_stalled(self, subject: str, size: int) -> None:
        if self.control.pending_data_size + size > MAX_UNSENT_BYTES:
            raise BusUnavailable(f"cannot publish on {subject}: NATS does not take what was sent before")

    @staticmethod
    @contextlib.contextmanager
    def _refusals(subject: str) -> Iterator[None]:
        try:
            yield
        except nats.errors.Error as error:
            raise BusUnavailable(f"cannot subscribe to {subject}: {error}") from error

    def _errors(self, lane: str, way_back: WayBack) -> Callable[[Exception], Awaitable[None]]:
        async def on_error(error: Exception) -> None:
            # A slow consumer reports every message it drops: count them, do not log each.
            if isinstance(error, nats.errors.SlowConsumerError):
                self.media.counts["slow_consumer"] += 1
                if self.media.counts["slow_consumer"] % 1_000 != 1:
                    return
            text = str(error) or type(error).__name__
            if way_back.is_news(text):
                log.warning("bus error", extra={"lane": lane, "error": text})
            if self._closing:
                return
            denied = _DENIED.search(text)
            if denied is not None:
                what = "subscribe to" if denied[1].lower() == "subscription" else "publish on"
                self._on_lost(f"the NATS permissions of this process do not allow it to {what} {denied[2]}")
            elif way_back.is_hopeless(text, asyncio.get_running_loop().time()):
                self._on_lost(f"NATS refuses the {lane} connection: {text}")

        return on_error

    def _disconnected(self, lane: str, way_back: WayBack) -> Callable[[], Awaitable[None]]:
        async def on_disconnected() -> None:
            self.up_since = None
            way_back.lost()
            if lane == "media":
                self.media.breaks += 1
            else:
                self.breaks += 1
                self._outbox.close()
            if not self._closing:
                log.warning("bus disconnected", extra={"lane": lane})

        return on_disconnected

    def _reconnected(self, lane: str, client: Client, way_back: WayBack) -> Callable[[], Awaitable[None]]:
        async def on_reconnected() -> None:
            way_back.found(_address(client))
            if lane == "control":
                self._outbox.open_soon()
            else:
                asyncio.get_running_loop().call_later(BACK_S, self.media.back)
            if self.connected:
                self.up_since = asyncio.get_running_loop().time()
            log.info("bus reconnected", extra={"lane": lane})

        return on_reconnected

    def _closed(self, lane: str, client: Client) -> Callable[[], Awaitable[None]]:
        async def on_closed() -> None:
            self.up_since = None
            if not self._closing:
                why = f": {client.last_error}" if client.last_error else ""
                self._on_lost(f"the {lane} connection to NATS was closed for good{why}")

        return on_closed

    def _move_on(self, client: Client) -> Callable[[], Awaitable[None]]:
        async def on_lame_duck() -> None:
            # The server only announces that it will go; leaving before it does is the client's business.
            move = getattr(client, "force_reconnect", None)
            if move is not None:
                await move()

        return on_lame_duck


def _address(client: Client) -> str:
    url = client.connected_url
    return url.netloc if url is not None else ""


def _shown(servers: list[str]) -> str:
    """Return addresses without user and password."""
    parts = (urlsplit(server if "://" in server else f"nats://{server}") for server in servers)
    return ", ".join(f"{part.hostname}:{part.port or 4222}" for part in parts)
