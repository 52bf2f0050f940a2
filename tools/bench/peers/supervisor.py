"""Whoever looks after bot processes: starts them, and starts them again when they have died.

Two shapes. `Supervised` is one process for all calls under something like systemd or Kubernetes: 1 s after its death it
is started anew. `WarmPool` is a dispatcher that gives every call a process of its own from a few that wait, and lives
on when one of them dies: https://docs.pipecat.ai/pipecat/deployment/patterns/warm-pool-subprocess.
"""

import asyncio
import contextlib
import socket
import time
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp import web

from tools.bench.peers.hook import twiml
from tools.bench.peers.pipecat_env import ROOT

RESTART_S: Final = 1.0
_UP_S: Final = 60.0
_POLL_S: Final = 0.02
MODULE: Final = "tools.bench.peers.pipecat_bot"


def free_port() -> int:
    """Return a port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Bot:
    """One bot process."""

    def __init__(self, python: Path, log: Path) -> None:
        self.port: Final = free_port()
        self.started_s = 0.0
        """How long its last start took."""
        self._python = python
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Process id; the process must have been started."""
        if self._process is None:
            raise RuntimeError("the bot has not been started")
        return self._process.pid

    async def start(self) -> None:
        """Start it and return when it answers.

        Raises:
            RuntimeError: it ends, or does not answer within a minute.
        """
        began = time.monotonic()
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                str(self._python), "-m", MODULE, "--port", str(self.port), cwd=ROOT, stdout=log, stderr=log
            )
        url = f"http://127.0.0.1:{self.port}/up"
        async with aiohttp.ClientSession() as http:
            while time.monotonic() - began < _UP_S:
                with contextlib.suppress(aiohttp.ClientError):
                    async with http.get(url) as answer:
                        if answer.ok:
                            self.started_s = time.monotonic() - began
                            return
                if self._process.returncode is not None:
                    break
                await asyncio.sleep(_POLL_S)
        raise RuntimeError(f"the bot does not come up; see {self._log}")

    async def ended(self) -> None:
        """Return when the process is gone."""
        if self._process is not None:
            await self._process.wait()

    async def stall(self, turn: int, seconds: float) -> None:
        """Have its mind hang at `turn` of every call; turn 0 is never."""
        url = f"http://127.0.0.1:{self.port}/stall?turn={turn}&s={seconds}"
        async with aiohttp.ClientSession() as http, http.post(url) as answer:
            answer.raise_for_status()

    async def kill(self) -> None:
        """End it for good."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


class Supervised:
    """One bot for all calls, started again whenever it ends."""

    def __init__(self, python: Path, log: Path) -> None:
        self.bot: Final = Bot(python, log)
        self.restarts_s: Final[list[float]] = []
        """From each death until the bot answered again."""
        self._back = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None

    def voice_url(self, then: str) -> str:
        """Return where the carrier asks."""
        return f"http://127.0.0.1:{self.bot.port}/voice" + (f"?then={then}" if then else "")

    def pid_of(self, call_sid: str) -> int:  # noqa: ARG002 - every call has the same one
        """Return the process a call is in."""
        return self.bot.pid

    async def start(self) -> None:
        """Start the bot and look after it."""
        await self.bot.start()
        self._watch = asyncio.create_task(self._look_after(), name="supervisor")

    async def ready(self, *, deaths: int) -> None:
        """Return when the bot answers after it has died and come back so many times in all."""
        while len(self.restarts_s) < deaths:
            self._back.clear()
            await self._back.wait()

    async def aclose(self) -> None:
        """End the bot for good."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self.bot.kill()

    async def _look_after(self) -> None:
        while True:
            await self.bot.ended()
            died_at = time.monotonic()
            await asyncio.sleep(RESTART_S)
            await self.bot.start()
            self.restarts_s.append(time.monotonic() - died_at)
            self._back.set()


class WarmPool:
    """A dispatcher with a voice hook of its own and bots that wait; each serves one call."""

    def __init__(self, python: Path, log: Path, size: int) -> None:
        self._python = python
        self._log = log
        self._size = size
        self._port = free_port()
        self._idle: list[Bot] = []
        self._bots: list[Bot] = []
        self._serving: dict[str, Bot] = {}
        self._runner: web.AppRunner | None = None

    def voice_url(self, then: str) -> str:
        """Return where the carrier asks."""
        return f"http://127.0.0.1:{self._port}/voice" + (f"?then={then}" if then else "")

    def pid_of(self, call_sid: str) -> int:
        """Return the process a call is in."""
        return self._serving[call_sid].pid

    async def start(self) -> None:
        """Start the hook and the bots."""
        app = web.Application()
        app.router.add_post("/voice", self._voice)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        await self.ready()

    async def ready(self, *, deaths: int = 0) -> None:  # noqa: ARG002 - the dead are replaced by others here
        """Let go of the bots that served and return when as many as wanted wait."""
        used = list(self._serving.values())
        self._serving.clear()
        for bot in used:
            self._bots.remove(bot)
            await bot.kill()
        new = [Bot(self._python, self._log) for _ in range(self._size - len(self._idle))]
        self._bots += new
        await asyncio.gather(*(bot.start() for bot in new))
        self._idle += new

    async def aclose(self) -> None:
        """End everything."""
        for bot in self._bots:
            await bot.kill()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _voice(self, request: web.Request) -> web.Response:
        form = await request.post()
        if not self._idle:
            return web.Response(status=503, text="no bot waits")
        before = self._serving.get(str(form["CallSid"]))
        bot = self._serving[str(form["CallSid"])] = self._idle.pop(0)
        if before is not None:
            self._bots.remove(before)
            await before.kill()
        answer = twiml(f"ws://127.0.0.1:{bot.port}/ws", request.query.get("then", ""))
        return web.Response(text=answer, content_type="application/xml")
