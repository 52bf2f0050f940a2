"""HTTP of a process: health, metrics, statistics, and whatever app a service brings."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, cast

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route


class PortTaken(OSError):
    """Somebody else listens there; the text names host and port."""


def routes(
    live: Callable[[], str | None],
    ready: Callable[[], dict[str, str]],
    stats: Callable[[], str],
    registry: CollectorRegistry,
    reports: Callable[[], dict[str, object]] = dict,
) -> list[Route]:
    """Return the routes every process serves.

    `live` and `ready` say what is wrong (nothing or an empty dict when all is well); `stats` is a page for people,
    and `reports` what else is shown on ``/health``.
    """

    async def on_live(_: Request) -> Response:
        problem = live()
        return JSONResponse({"live": problem is None, "problem": problem}, 200 if problem is None else 503)

    async def on_ready(_: Request) -> Response:
        problems = ready()
        return JSONResponse({"ready": not problems, "problems": problems}, 503 if problems else 200)

    async def on_health(_: Request) -> Response:
        problem, problems = live(), ready()
        status = 200 if problem is None and not problems else 503
        return JSONResponse({"live": problem is None, "ready": not problems, "problems": problems, **reports()}, status)

    async def on_metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    async def on_stats(_: Request) -> Response:
        return PlainTextResponse(stats())

    return [
        Route("/health", on_health),
        Route("/health/live", on_live),
        Route("/health/ready", on_ready),
        Route("/metrics", on_metrics),
        Route("/stats", on_stats),
    ]


def app_of(served: list[Route]) -> Starlette:
    """Return an app that serves just `served`."""
    return Starlette(routes=served)


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Bind and return a TCP socket.

    `shared` sets SO_REUSEPORT, so that a new process can take over the port while the old one still has its
    connections.

    Raises:
        PortTaken: the port is in use.
        OSError: the host is no address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise PortTaken(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
    sock.set_inheritable(False)
    return sock


class _Quiet(uvicorn.Server):
    """uvicorn without its signal handlers: the chassis owns signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """One listening socket and its app.

    Args:
        app: an ASGI app.
        sock: where it is served, from `listen`.
        upgrade: makes what takes over a connection that asks for a WebSocket (uvicorn's ``ws``); None: nobody does.
    """

    def __init__(self, app: Any, sock: socket.socket, *, upgrade: Callable[..., Any] | None = None) -> None:
        self._sock = sock
        self.host, self.port = sock.getsockname()[:2]
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            http="httptools",
            ws="none" if upgrade is None else cast("type[asyncio.Protocol]", upgrade),
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        self._server = _Quiet(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen; return once connections are accepted."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._sock]), name=f"http-{self.port}")
        while not self._server.started:
            if self._task.done():
                self._task.result()
                raise RuntimeError(f"the HTTP server of {self.host}:{self.port} ended while starting")
            await asyncio.sleep(0.005)

    def stop_listening(self) -> None:
        """Accept no more connections; the open ones go on."""
        for server in self._server.servers:
            server.close()

    async def stop(self) -> None:
        """Close everything, connections too."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task


@contextlib.asynccontextmanager
async def serving(app: Any, sock: socket.socket) -> AsyncIterator[HttpServer]:
    """Serve `app` on `sock` for the length of a block."""
    server = HttpServer(app, sock)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
