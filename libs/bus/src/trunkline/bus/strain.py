"""Whether a process has too much to do already, and for how long it must have been well before it takes more on."""

from collections.abc import Callable
from typing import Final

EASED_S: Final = 1.0


class Strain:
    """Asks `why` now and then; what it last complained of stands until it has been quiet for `EASED_S`."""

    def __init__(self, why: Callable[[], str | None]) -> None:
        self._why = why
        self._reason: str | None = None
        self._felt_at = 0.0

    def look(self, at: float) -> str | None:
        """Return why nothing more can be taken on at `at` (seconds), or None."""
        reason = self._why()
        if reason is not None:
            self._reason, self._felt_at = reason, at
        elif at - self._felt_at >= EASED_S:
            self._reason = None
        return self._reason
