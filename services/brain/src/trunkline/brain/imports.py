"""Installed parts, imported before the first call: an import inside a call would hold up every other.

A part that cannot be imported is logged and kept with its error, which whoever asks for that part gets.
"""

import asyncio
import logging
from collections.abc import Iterable
from importlib.metadata import EntryPoint
from typing import Final

from trunkline.brain.threads import Threads

log = logging.getLogger("trunkline.brain.imports")

IMPORT_S: Final = 30.0
"""How long one import may take. Models are loaded by some; one that hangs must not keep the brain from its calls."""


class Imported:
    """An entry point whose import is over."""

    def __init__(self, point: EntryPoint, found: object, problem: str = "") -> None:
        self.name = point.name
        self.value = point.value
        self._found = found
        self._problem = problem

    def load(self) -> object:
        """Return what was imported.

        Raises:
            ImportError: it could not be.
        """
        if self._problem:
            raise ImportError(self._problem)
        return self._found


async def import_all(points: Iterable[EntryPoint], within_s: float = IMPORT_S) -> list[Imported]:
    """Import `points` one after the other, off the loop, each `within_s`."""
    found = list(points)
    threads = Threads(max(1, len(found)))
    return [await _imported(point, threads, within_s) for point in found]


async def _imported(point: EntryPoint, threads: Threads, within_s: float) -> Imported:
    limit = asyncio.timeout(within_s)
    try:
        async with limit:
            return Imported(point, await threads.run(point.load))
    except Exception as error:
        problem = f"it took longer than {within_s:g} s" if limit.expired() else str(error) or type(error).__name__
        extra = {"group": point.group, "part": point.name, "at": point.value, "problem": problem}
        log.exception("cannot import", extra=extra)
        return Imported(point, None, problem)
