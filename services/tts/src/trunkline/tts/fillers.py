"""When to fill a silence, and with which of the agent's fillers. Pure; times are seconds on any one clock."""


class Fillers:
    """The fillers before one sentence.

    Args:
        due_at: when the caller should hear something at the latest.
        again_s: silence after a filler before the next one.
        count: how many there are; after the last one it is said again.
    """

    def __init__(self, due_at: float, again_s: float, count: int) -> None:
        self._due_at: float | None = due_at if count else None
        self._again_s = again_s
        self._count = count
        self._said = 0

    def wait_s(self, at: float) -> float | None:
        """Return how long there is nothing to do; None: for ever."""
        return None if self._due_at is None else max(0.0, self._due_at - at)

    def due(self, at: float) -> int | None:
        """Return the number of the filler that is to be said now, if one is."""
        if self._due_at is None or at < self._due_at:
            return None
        return min(self._said, self._count - 1)

    def said(self, at: float, duration_s: float) -> None:
        """One has been begun; the next waits until it has been heard and it has been quiet for a while."""
        self._said += 1
        self._due_at = at + duration_s + self._again_s

    def stop(self) -> None:
        """Say no more of them."""
        self._due_at = None
