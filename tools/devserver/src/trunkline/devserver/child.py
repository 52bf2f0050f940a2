"""One process of a service: its start, its log lines, its readiness, its end.

It lives in a session of its own, so that a Ctrl-C on the terminal reaches only us, and dies with us, even when we are
killed. It knows nothing of what the process serves.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

from trunkline.devserver.errors import StartFailed
from trunkline.devserver.probe import why_not_ready

READY_POLL_S: Final = 0.05
_LONGEST_LINE_BYTES: Final = 65_536
_REMEMBERED_LINES: Final = 12

# PR_SET_PDEATHSIG (1) with SIGKILL, then become the module. A process of its own instead of `preexec_fn`, which may
# deadlock in a program with threads. The parent may have died before the prctl: its pid is compared afterwards.
_DIE_WITH_PARENT: Final = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent is gone")
os.execv(sys.executable, [sys.executable, "-m", sys.argv[2]])
"""


class Child:
    """A running process. Made by `Child.start`."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, port: int) -> None:
        self.name: Final = name
        self.port: Final = port
        self.last_lines: deque[str] = deque(maxlen=_REMEMBERED_LINES)
        self.ready = False
        self._process = process
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls, name: str, module: str, env: Mapping[str, str], port: int, on_line: Callable[[str, str], None]
    ) -> "Child":
        """Start ``python -m <module>`` with `env`; `on_line` gets its name and every line it writes."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), module),
            env={**env, "PYTHONUNBUFFERED": "1"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        child = cls(name, process, port)
        child._reading = asyncio.create_task(child._read(on_line), name=f"log of {name}")
        return child

    @property
    def pid(self) -> int:
        """Its process id, also the id of its process group."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.returncode

    async def until_ready(self, timeout_s: float) -> None:
        """Return once ``/health/ready`` says so.

        Raises:
            StartFailed: it ended, or was not ready in time.
        """
        why = "it does not answer"
        try:
            async with asyncio.timeout(timeout_s):
                while (problem := await why_not_ready(self.port)) is not None:
                    why = problem
                    if self.exit_code is not None:
                        await self.wait()
                        raise StartFailed(self.name, f"it ended ({ending(self.exit_code)})", self.last_lines)
                    await asyncio.sleep(READY_POLL_S)
        except TimeoutError:
            reason = f"not ready after {timeout_s:g} s: {why}"
            raise StartFailed(self.name, reason, self.last_lines) from None
        self.ready = True

    async def wait(self) -> int:
        """Return its exit code once it has ended and its last line is read."""
        code = await self._process.wait()
        if self._reading is not None:
            # A grandchild may hold the pipe open; its words are not worth waiting for.
            await asyncio.wait({self._reading}, timeout=1.0)
            self._reading.cancel()
        return code

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it and everything it started, at once."""
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    async def stop(self, drain_s: float, at_once_s: float = 5.0) -> int:
        """Ask it to end; ask again, more firmly, after `drain_s`; kill it after `at_once_s` more. Return its code."""
        for patience_s in (drain_s, at_once_s):
            self.signal(signal.SIGCONT)  # a stopped process would not see the request
            self.signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    return await self.wait()
        self.kill()
        return await self.wait()

    async def _read(self, on_line: Callable[[str, str], None]) -> None:
        stream = self._process.stdout
        if stream is None:
            return
        async for line in _lines(stream):
            self.last_lines.append(line)
            on_line(self.name, line)


def ending(code: int) -> str:
    """Say in words what `code` means, for example ``exit code 1`` or ``SIGKILL``."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Yield lines without their ends; a very long one comes in pieces instead of filling the memory."""
    rest = b""
    while data := await stream.read(_LONGEST_LINE_BYTES):
        *whole, rest = (rest + data).split(b"\n")
        if len(rest) > _LONGEST_LINE_BYTES:
            whole.append(rest)
            rest = b""
        for line in whole:
            yield line.decode(errors="replace").rstrip("\r")
    if rest:
        yield rest.decode(errors="replace")
