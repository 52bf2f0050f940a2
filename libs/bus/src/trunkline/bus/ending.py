"""How a task that asks NATS is brought to its end."""

import asyncio
from typing import Final

_AGAIN_S: Final = 0.2


async def ended(*tasks: asyncio.Task[None]) -> None:
    """Cancel `tasks` and return when they are over.

    Python 3.11 loses a cancellation that comes in the very moment in which an `asyncio.wait_for` is done
    (https://github.com/python/cpython/issues/86296), and nats-py waits for every answer with one. So it is said again
    until it is heard; what a task does at its end, it must do at once.
    """
    going = {task for task in tasks if not task.done()}
    while going:
        for task in going:
            task.cancel()
        _, going = await asyncio.wait(going, timeout=_AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)
