"""Somebody's server that facts are posted to, which can be away; and what became of the facts meanwhile."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from trunkline.proto.events import Event
from trunkline.runtime.clock import SYSTEM
from trunkline.runtime.http import HttpServer, app_of, listen

Emitted = Callable[[], set[str]]
"""Returns the ids of all facts so far."""

_CAUGHT_UP_S: Final = 90.0


class Arrival(NamedTuple):
    """A post."""

    t: float
    id: str
    call: str


class Away(msgspec.Struct, frozen=True):
    """A time in which nothing was taken, and how much had gathered when it was over."""

    from_t: float
    to_t: float
    waiting: frozenset[str]


class Posted(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the facts that were to be posted."""

    facts: int
    lost: int
    """Never arrived."""
    repeated: int
    """Arrived more than once, with the same id."""
    out_of_order: int
    """Came, for the first time, behind a later one of their call."""
    away_s: list[float]
    waiting: list[int]
    """How many had gathered when the receiver was back."""
    caught_up_s: list[float]
    """How long after that the last of these had arrived."""


class Receiver:
    """Takes posts. `start` it, and `stop` it in the end."""

    def __init__(self) -> None:
        self.arrivals: Final[list[Arrival]] = []
        self.away: Final[list[Away]] = []
        self._port = 0
        self._server: HttpServer | None = None

    @property
    def url(self) -> str:
        """Where to post to."""
        return f"http://127.0.0.1:{self._port}/"

    async def start(self) -> None:
        """Listen; at the port of before, if there was one."""
        self._server = HttpServer(
            app_of([Route("/", self._on_post, methods=["POST"])]), listen("127.0.0.1", self._port)
        )
        self._port = self._server.port
        await self._server.start()

    async def stop(self) -> None:
        """Be away."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop()

    async def be_away(self, for_s: float, emitted: Emitted) -> None:
        """Take nothing `for_s`. Cancelled, come back at once."""
        from_t = SYSTEM.monotonic()
        try:
            await self.stop()
            await asyncio.sleep(for_s)
        finally:
            here = {arrival.id for arrival in self.arrivals}
            waiting = frozenset(emitted() - here)
            to_t = SYSTEM.monotonic()
            await self.start()
            self.away.append(Away(from_t, to_t, waiting))

    async def caught_up(self, emitted: Emitted) -> None:
        """Wait until all has arrived, for as long as that may take."""
        try:
            async with asyncio.timeout(_CAUGHT_UP_S):
                while emitted() - {arrival.id for arrival in self.arrivals}:
                    await asyncio.sleep(0.5)
        except TimeoutError:
            return

    async def _on_post(self, request: Request) -> Response:
        event = msgspec.json.decode(await request.body(), type=_Named)
        self.arrivals.append(Arrival(SYSTEM.monotonic(), event.id, event.call))
        return Response(status_code=204)


class _Named(msgspec.Struct):
    id: str
    call: str


def ids_in(path: Path) -> set[str]:
    """Return the ids of the facts in a file of one per line, but for a line that is not whole yet."""
    whole = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return {msgspec.json.decode(line, type=_Named).id for line in whole}


def posted(events: Iterable[Event], arrivals: Iterable[Arrival], away: Iterable[Away]) -> Posted:
    """Return what became of `events`, which are in the order in which they were stored."""
    place: dict[str, int] = {}
    for event in events:
        place.setdefault(event.id, len(place))
    first: dict[str, float] = {}
    latest: dict[str, int] = {}
    repeated = out_of_order = 0
    for arrival in sorted(arrivals, key=lambda arrival: arrival.t):
        if arrival.id in first:
            repeated += 1
            continue
        first[arrival.id] = arrival.t
        at = place.get(arrival.id, -1)
        out_of_order += at < latest.get(arrival.call, -1)
        latest[arrival.call] = max(at, latest.get(arrival.call, -1))
    times = list(away)
    return Posted(
        facts=len(place),
        lost=sum(identity not in first for identity in place),
        repeated=repeated,
        out_of_order=out_of_order,
        away_s=[round(one.to_t - one.from_t, 1) for one in times],
        waiting=[len(one.waiting) for one in times],
        caught_up_s=[
            round(max((first[identity] - one.to_t for identity in one.waiting if identity in first), default=0.0), 1)
            for one in times
        ],
    )
