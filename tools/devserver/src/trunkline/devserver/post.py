"""A post: one place in the set-up that is always to be manned.

Whoever dies is replaced, later and later if the next one dies too. Whoever is relieved (its code has changed) stays
until its calls are over, beside the one that has taken over.
"""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable
from typing import Final

from trunkline.devserver.child import Child, ending
from trunkline.devserver.errors import StartFailed
from trunkline.runtime.clock import SYSTEM, Clock

READY_TIMEOUT_S: Final = 60.0
"""One that ends is noticed at once: this is for one that hangs. Eight processes that each import three vendors' SDKs
take 17 s of two processors, and longer where Python may not keep what it compiled."""
SLOW_START_S: Final = 10.0
FIRST_DELAY_S: Final = 0.25
LONGEST_DELAY_S: Final = 8.0
SETTLED_S: Final = 10.0
"""A process that lived this long was no false start: its successor comes without delay."""


def delay_before(failures: int) -> float:
    """Return how long to wait before the next start after `failures` short lives in a row, s."""
    return 0.0 if failures == 0 else min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** (failures - 1))


class Post:
    """Keeps one process running. `launch` starts a process and returns at once; `say` tells the person watching."""

    def __init__(
        self, name: str, launch: Callable[[str], Awaitable[Child]], say: Callable[[str], None], clock: Clock = SYSTEM
    ) -> None:
        self.name: Final = name
        self.current: Child | None = None
        self.relieved: set[Child] = set()
        self.restarts = 0
        self._launch = launch
        self._say = say
        self._clock = clock
        self._failures = 0
        self._stopping = False
        self._nudged = asyncio.Event()
        self._changing = asyncio.Lock()
        self._attending: set[asyncio.Task[None]] = set()

    async def man(self, timeout_s: float = READY_TIMEOUT_S) -> Child:
        """Start a process and return it once it is ready.

        Raises:
            StartFailed: it ended or was not ready in time; it is gone.
        """
        child = await self._launch(self.name)
        patience = f"{self.name} is still starting; it is given {timeout_s:g} s"
        slow = asyncio.get_running_loop().call_later(SLOW_START_S, self._say, patience)
        try:
            await child.until_ready(timeout_s)
        except BaseException:
            child.kill()
            await child.wait()
            raise
        finally:
            slow.cancel()
        self.current = child
        task = asyncio.create_task(self._attend(child), name=f"attend {self.name} {child.pid}")
        self._attending.add(task)
        task.add_done_callback(self._attending.discard)
        return child

    async def relieve(self) -> bool:
        """Start a new process; once it is ready, ask the old one to go. Return whether there is a new one now.

        If the new one does not start, the old one stays. If there is none at the moment, the next start is due now.
        """
        if self._changing.locked():
            self._nudged.set()
            return False
        async with self._changing:
            old = self.current
            try:
                new = await self.man()
            except StartFailed as error:
                self._say(f"{error}; the one with the old code goes on")
                return False
            if old is not None:
                self.relieved.add(old)
                old.signal(signal.SIGTERM)
                self._say(f"{self.name} has new code (pid {new.pid}); pid {old.pid} goes when its calls are over")
            return True

    async def stop(self, drain_s: float) -> None:
        """Drain and stop everyone here; return when all are gone."""
        self._stopping = True
        # First whoever might bring in somebody new, then those who are here.
        for task in tuple(self._attending):
            task.cancel()
        await asyncio.gather(*self._attending, return_exceptions=True)
        children = [child for child in (self.current, *self.relieved) if child is not None]
        await asyncio.gather(*(child.stop(drain_s) for child in children))

    def kill(self) -> None:
        """End everyone here at once."""
        self._stopping = True
        for child in (self.current, *self.relieved):
            if child is not None:
                child.kill()

    async def _attend(self, child: Child) -> None:
        began_at = self._clock.monotonic()
        code = await child.wait()
        lived_s = self._clock.monotonic() - began_at
        if child in self.relieved:
            self.relieved.discard(child)
            if not self._stopping:
                self._say(f"{self.name} with the old code has left (pid {child.pid})")
        elif not self._stopping and child is self.current:
            self._failures = 0 if lived_s >= SETTLED_S else self._failures + 1
            self._say(f"{self.name} died ({ending(code)}, pid {child.pid}, after {lived_s:.1f} s)")
            async with self._changing:
                self.current = None
                await self._replace()

    async def _replace(self) -> None:
        while not self._stopping:
            delay_s = delay_before(self._failures)
            if delay_s:
                self._say(f"{self.name} starts again in {delay_s:g} s")
                self._nudged.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay_s):
                        await self._nudged.wait()
            if self._stopping:
                return
            try:
                child = await self.man()
            except StartFailed as error:
                self._failures += 1
                self._say(str(error))
            else:
                self.restarts += 1
                self._say(f"{self.name} is back (pid {child.pid})")
                return
