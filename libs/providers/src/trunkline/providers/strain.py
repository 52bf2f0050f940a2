"""Whether a process had better take no more calls: its loop is late, or nobody it could ask would serve them anyway."""

from collections.abc import Callable, Iterable
from typing import Final

from trunkline.runtime.loop import LoopLag


class Strained:
    """Says why, when it is called.

    Args:
        lag: of the process.
        states: returns the providers asked so far, each with the state of its breaker.
        nobody: what to say when all breakers are open.
    """

    def __init__(self, lag: LoopLag, states: Callable[[], Iterable[tuple[str, str]]], nobody: str) -> None:
        self._lag = lag
        self._states = states
        self._nobody: Final = nobody

    def __call__(self) -> str | None:
        """Return why nothing more should be taken on, or None."""
        states = [state for _, state in self._states()]
        if states and all(state == "open" for state in states):
            return self._nobody
        return self._lag.late()
