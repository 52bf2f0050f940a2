"""A bad line: passes TCP between somebody and a server, until it is told to break in one of the ways networks do.

It runs on a thread of its own, so that a synchronous test and an event loop can both stand next to it, and every method
of `TcpProxy` may be called from any thread. It does not look at what it passes on.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from trunkline.testing.ports import free_ports

HOST: Final = "127.0.0.1"
_OBEY_S: Final = 5.0
_FULL_BYTES: Final = 256 * 1024
"""As much waits inside at most in each direction, before whoever sends is made to wait."""
_SLICE_S: Final = 0.02
"""A slow line lets through what fits into this much time, time and again."""
_RESET: Final = struct.pack("ii", 1, 0)

_T = TypeVar("_T")


class TcpProxy:
    """A running proxy. Made by `run_proxy`; it begins as a good line.

    What `delay` and `slow` do adds up and is about each direction of each connection for itself.
    """

    def __init__(self, target: tuple[str, int], port: int) -> None:
        self.port: Final = port
        """Where to connect instead of the target's port."""
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tcp-proxy", daemon=True)
        self._line = _Line()
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> str:
        """Host and port to connect to."""
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        """Where a NATS client connects to reach the target through here; for other schemes, see `address`."""
        return f"nats://{self.address}"

    @property
    def connections(self) -> int:
        """How many connections there are now."""
        return self._obey(lambda: len(self._line.pairs))

    def cut(self) -> None:
        """Reset every connection and refuse new ones: what is left of a process that was killed."""

        def cut() -> None:
            self._stop_listening()
            self._line.reset()

        self._obey(cut)

    def drop(self) -> None:
        """Swallow everything, both ways, closings too, and accept new connections that lead nowhere: a partition.

        What is sent now is gone. As TCP has no holes, `heal` resets the connections that there are by then.
        """
        self._obey(self._line.drop)

    def stall(self) -> None:
        """Pass nothing on until `resume`; nothing is lost. New connections are accepted and wait as well."""
        self._obey(lambda: self._line.stall(stalled=True))

    def resume(self) -> None:
        """End a `stall`: everything that waited goes on, in order."""
        self._obey(lambda: self._line.stall(stalled=False))

    def slow(self, bytes_per_s: float) -> None:
        """Pass on at most so many bytes in a second, each way on each connection, from what comes next on.

        Raises:
            ValueError: nothing would ever pass; that is `stall`.
        """
        if bytes_per_s <= 0:
            raise ValueError(f"a rate above 0 is needed, not {bytes_per_s:g} bytes per second")
        self._obey(lambda: setattr(self._line, "bytes_per_s", bytes_per_s))

    def delay(self, ms: float) -> None:
        """Pass everything on so much later, each way, from what comes next on."""
        self._obey(lambda: setattr(self._line, "delay_s", ms / 1_000))

    def heal(self) -> None:
        """Become a good line again, whatever was done to it.

        Raises:
            OSError: after a `cut`, somebody else has taken the port.
        """
        self._obey(self._line.heal)
        self._listen()

    def start(self) -> None:
        """Begin to listen.

        Raises:
            OSError: the port is taken.
        """
        self._thread.start()
        self._listen()

    def close(self) -> None:
        """Reset every connection and stop for good."""
        self.cut()

        async def settle() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for connecting in others:
                connecting.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(settle(), self._loop).result(_OBEY_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_OBEY_S)
        self._loop.close()

    def _listen(self) -> None:
        async def listen() -> None:
            if self._server is None:
                self._server = await self._loop.create_server(self._accept, HOST, self.port, reuse_address=True)

        asyncio.run_coroutine_threadsafe(listen(), self._loop).result(_OBEY_S)

    def _stop_listening(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()

    def _accept(self) -> "_End":
        return _Pair(self._line, self._target).near

    def _obey(self, order: Callable[[], _T]) -> _T:
        """Run `order` on the proxy's own thread."""

        async def run() -> _T:
            return order()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(_OBEY_S)


@contextlib.contextmanager
def run_proxy(target_host: str, target_port: int) -> Iterator[TcpProxy]:
    """Run a proxy to one server for the length of the block. The server need not be there yet.

    Yields:
        The proxy, listening on loopback.
    """
    (port,) = free_ports(1)
    proxy = TcpProxy((target_host, target_port), port)
    try:
        proxy.start()
        yield proxy
    finally:
        proxy.close()


class _Line:
    """What is wrong with the line, and everything that is on it."""

    def __init__(self) -> None:
        self.pairs: Final[set[_Pair]] = set()
        self.bytes_per_s: float | None = None
        self.delay_s = 0.0
        self.dropping = False
        self.stalled = False

    def drop(self) -> None:
        self.dropping = True
        for pair in self.pairs:
            pair.lossy = True

    def stall(self, *, stalled: bool) -> None:
        self.stalled = stalled
        for pair in list(self.pairs):
            pair.go_on()

    def reset(self) -> None:
        for pair in list(self.pairs):
            pair.reset()

    def heal(self) -> None:
        self.bytes_per_s = None
        self.delay_s = 0.0
        self.dropping = False
        for pair in [pair for pair in self.pairs if pair.lossy]:
            pair.reset()
        self.stall(stalled=False)


class _Pair:
    """One connection from somebody (near) on to the target (far)."""

    def __init__(self, line: _Line, target: tuple[str, int]) -> None:
        self.line: Final = line
        self.near: Final = _End(self)
        self.far: Final = _End(self)
        self.near.other, self.far.other = self.far, self.near
        self.lossy = line.dropping
        """Whether something that was sent on it is gone, or would be."""
        self.dead = False
        self._target = target
        self._connecting: asyncio.Task[None] | None = None

    def go_on(self) -> None:
        """Take up what the line held back."""
        if self._connecting is None and not (self.line.stalled or self.lossy):
            self._connecting = asyncio.create_task(self._connect())
        for end in (self.near, self.far):
            end.go_on()

    def reset(self) -> None:
        """End it without a word of farewell."""
        self.line.pairs.discard(self)
        self.dead = True
        for end in (self.near, self.far):
            end.reset()

    def close_if_over(self) -> None:
        """Close both ends once each has been told that the other has nothing more to say."""
        if self.near.ended and self.far.ended:
            self.line.pairs.discard(self)
            for end in (self.near, self.far):
                if end.transport is not None:
                    end.transport.close()

    async def _connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.far, *self._target)
        except OSError:
            self.reset()


class _End(asyncio.Protocol):
    """One end of a connection: what it receives leaves at the other end when it is due."""

    other: "_End"

    def __init__(self, pair: _Pair) -> None:
        self.transport: asyncio.Transport | None = None
        self.full = False
        """Whether what leaves here must wait until it has been taken."""
        self.ended = False
        """Whether it has been told that nothing more will leave here."""
        self._pair = pair
        self._waiting: deque[tuple[float, bytes]] = deque()
        """When each piece is due at the other end; an empty one is the end of the stream."""
        self._waiting_bytes = 0
        self._free_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to pass on."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - TCP has no other kind
        self.transport = transport
        if self._pair.dead:
            self.reset()
            return
        self._pair.line.pairs.add(self._pair)
        self._pair.go_on()

    def data_received(self, data: bytes) -> None:
        """Note when what came is due."""
        line = self._pair.line
        if self._pair.lossy:
            return
        due = asyncio.get_running_loop().time() + line.delay_s
        if line.bytes_per_s is None:
            self._wait(due, data)
        else:
            size = max(1, int(line.bytes_per_s * _SLICE_S))
            for at in range(0, len(data), size):
                piece = data[at : at + size]
                self._free_at = max(self._free_at, due) + len(piece) / line.bytes_per_s
                self._wait(self._free_at, piece)
        self.go_on()

    def eof_received(self) -> bool:
        """Pass on that there is no more, and stay: the other direction may have something to say yet."""
        if not self._pair.lossy:
            self._wait(asyncio.get_running_loop().time() + self._pair.line.delay_s, b"")
            self.go_on()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the other end feel it, unless the line is too bad for that."""
        self.transport = None
        if exc is not None and not self._pair.lossy:
            self._pair.reset()

    def pause_writing(self) -> None:
        """Let whoever sends to this end wait."""
        self.full = True

    def resume_writing(self) -> None:
        """Let whoever sends to this end go on."""
        self.full = False
        self.other.go_on()

    def go_on(self) -> None:
        """Let out what is due, set a timer for what is not, and read on if there is room."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._may_leave():
            if self._waiting[0][0] > loop.time():
                self._timer = loop.call_at(self._waiting[0][0], self.go_on)
                break
            self._let_out(self._waiting.popleft()[1])
        if self.transport is not None:
            if self._pair.line.stalled or self._waiting_bytes >= _FULL_BYTES:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def reset(self) -> None:
        """Close with RST."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self.transport is not None:
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()

    def _may_leave(self) -> bool:
        held = self._pair.line.stalled or self._pair.lossy or self.other.full
        return bool(self._waiting) and self.other.transport is not None and not held

    def _let_out(self, piece: bytes) -> None:
        out = self.other.transport
        if out is None or out.is_closing():
            return
        self._waiting_bytes -= len(piece)
        if piece:
            out.write(piece)
            return
        out.write_eof()
        self.other.ended = True
        self._pair.close_if_over()

    def _wait(self, due: float, piece: bytes) -> None:
        # Nothing overtakes what came before it when a delay or a rate has been taken back.
        self._waiting.append((max(due, self._waiting[-1][0]) if self._waiting else due, piece))
        self._waiting_bytes += len(piece)
