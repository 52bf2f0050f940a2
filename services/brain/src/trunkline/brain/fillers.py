"""What is said while an answer is late, so that nobody listens to a dead line. Pure.

A wait begins when the caller has fallen silent, and ends when the answer begins, or when the caller speaks again.
"""

from trunkline.proto.agent import TurnTaking


class Fillers:
    """When the next filler is due, and which."""

    def __init__(self, rules: TurnTaking) -> None:
        self._rules = rules
        self._said = 0
        self._due_at: float | None = None

    @property
    def waiting(self) -> bool:
        """Whether the caller waits for an answer."""
        return self._due_at is not None

    @property
    def due_at(self) -> float:
        """When the caller should hear something at the latest; 0 when nobody waits or there is nothing to say."""
        return self._due_at if self._due_at is not None and self._rules.fillers else 0.0

    def wait(self, since: float) -> None:
        """The caller waits since `since`; does nothing if they do already."""
        if self._due_at is None:
            self._said = 0
            self._due_at = since + self._rules.filler_after_ms / 1_000

    def silent(self, since: float) -> None:
        """What was said is over since `since`, and there is more to come."""
        self._due_at = since + self._rules.filler_again_ms / 1_000

    def take(self, at: float, expect_s: float) -> str:
        """Return the next filler, which may take `expect_s` to be said and heard."""
        text = self._rules.fillers[min(self._said, len(self._rules.fillers) - 1)]
        self._said += 1
        self._due_at = at + expect_s
        return text

    def stop(self) -> None:
        """Nobody waits any more."""
        self._due_at = None
