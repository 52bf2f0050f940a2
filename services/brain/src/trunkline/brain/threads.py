"""Runs foreign functions off the loop: tools that may block, imports that may take seconds.

The threads are daemons: one that never returns must not keep the process from ending. So the loop's own executor, which
is waited for, is not used.
"""

import asyncio
import logging
import threading
from collections.abc import Callable

log = logging.getLogger("trunkline.brain.threads")


class NoRoom(Exception):
    """As many functions are running as may run at once."""


class Threads:
    """At most `limit` functions at once, each in a thread of its own."""

    def __init__(self, limit: int) -> None:
        self._room = threading.BoundedSemaphore(limit)

    async def run(self, function: Callable[[], object]) -> object:
        """Return what `function` returns. Cancelling leaves it running, unheard, in its place.

        Raises:
            NoRoom: too many are running; `function` was not called.
            RuntimeError: `function` raised what is not an `Exception` (`SystemExit`, `CancelledError`), which would
                end the loop or look like a cancellation.
            Exception: whatever else `function` raised.
        """
        if not self._room.acquire(blocking=False):
            raise NoRoom
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[object] = loop.create_future()

        def settle(result: object, error: Exception | None) -> None:
            if outcome.done():
                return
            if error is None:
                outcome.set_result(result)
            else:
                outcome.set_exception(error)

        def work() -> None:
            result: object = None
            failure: Exception | None = None
            try:
                result = function()
            except StopIteration as error:  # a future cannot carry it
                failure = tame(error)
            except Exception as error:  # noqa: BLE001  whatever ended the function is its caller's to judge
                failure = error
            except BaseException as error:  # noqa: BLE001
                failure = tame(error)
            finally:
                self._room.release()
            try:
                loop.call_soon_threadsafe(settle, result, failure)
            except RuntimeError:
                log.warning("function returned after its loop had ended")

        threading.Thread(target=work, name="trunkline-foreign", daemon=True).start()
        return await outcome


def tame(error: BaseException) -> RuntimeError:
    """Return an error that harms no loop, with `error` as its cause."""
    tamed = RuntimeError(f"{type(error).__name__} was raised")
    tamed.__cause__ = error
    return tamed
