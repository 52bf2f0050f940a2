"""How long a test waits before it says that a thing did not happen: one place, since no test is to time a machine."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Final

PATIENCE_S: Final = 30.0
"""Longer than a busy machine stands still. A test that passes never waits so long."""


async def until(done: Callable[[], object | Awaitable[object]], within_s: float = PATIENCE_S) -> None:
    """Return as soon as `done()`, or what it returns to be awaited, is true.

    Raises:
        TimeoutError: it was not within `within_s` seconds.

    """
    async with asyncio.timeout(within_s):
        while not await _found(done):  # noqa: ASYNC110 - nobody tells of what is waited for
            await asyncio.sleep(0.005)


async def _found(done: Callable[[], object | Awaitable[object]]) -> object:
    found = done()
    return await found if inspect.isawaitable(found) else found
