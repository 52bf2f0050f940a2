"""What is said while an answer is late, so that nobody listens to a dead line. Pure.

A wait begins when the caller has fallen silent, and ends when the answer begins, or when the caller speaks again. It
goes on when what was said of the answer is over and the rest is late.
"""

from collections.abc import Callable
from typing import Final

from trunkline.brain.moves import ArmTimer, DisarmTimer
from trunkline.proto.agent import TurnTaking

LONGEST_START_S: Final = 4.0
"""When a filler has not begun by then, another one is tried."""


class Fillers:
    """When the next filler is due, and which.

    Args:
        rules: with the fillers; there may be none.
        do: takes orders.
    """

    def __init__(self, rules: TurnTaking, do: Callable[..., None]) -> None:
        self._rules = rules
        self._do: Callable[..., None] = do
        self._said = 0
        self._due_at: float | None = None
        self._quiet_since = 0.0

    @property
    def waiting(self) -> bool:
        """Whether the caller waits for an answer, or the rest of one."""
        return self._due_at is not None

    @property
    def first_at(self) -> float:
        """When the first filler of this wait is due; 0 when it was said, nobody waits or there is nothing to say."""
        return self._due_at if self._due_at is not None and not self._said and self._rules.fillers else 0.0

    def wait(self, since: float) -> None:
        """The caller waits since `since`, or since they last heard something; does nothing if they do already."""
        if self._due_at is None:
            self._said = 0
            self._due(max(since, self._quiet_since) + self._rules.filler_after_ms / 1_000)

    def quiet(self, since: float, *, more: bool) -> None:
        """What was said is over since `since`; with `more`, more of it is to come."""
        self._quiet_since = since
        if more:
            self._due(since + self._rules.filler_again_ms / 1_000)

    def next(self, at: float) -> str:
        """Return the filler to be said now that its time has come."""
        text = self._rules.fillers[min(self._said, len(self._rules.fillers) - 1)]
        self._said += 1
        self._due(at + LONGEST_START_S)
        return text

    def begun(self, at: float, lasts_s: float) -> None:
        """A filler is heard since `at`, and lasts about so long; its end is told by `quiet`, unless that is lost."""
        if self.waiting:
            self._due(at + 2 * lasts_s + self._rules.filler_again_ms / 1_000)

    def stop(self) -> None:
        """Nobody waits any more."""
        self._due_at = None
        self._do(DisarmTimer("filler"))

    def _due(self, at: float) -> None:
        self._due_at = at
        if self._rules.fillers:
            self._do(ArmTimer("filler", at))
