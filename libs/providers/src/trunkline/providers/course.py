"""One request's way through the providers that may answer it: who is tried, when again, and when it is given up. Pure.

The rules:

* Candidates are tried in the agent's order; one that has failed in this call lately, or whose breaker is open, comes
  after the others, or not at all.
* What failed quickly (no connection, 5xx, broken off) is tried once more at the same place, after a back-off with full
  jitter (Brooker, "Exponential Backoff And Jitter", 2015); what was slow is not, while there is anybody else.
* Who refuses is not asked again; who throttles, not before the time it names.
* When all have been tried, and time is left, it begins anew with longer back-offs.
* Nothing begins after `give_up_s`. The last resort may take all the time that is left: to give up early on the only
  one who could answer would help nobody.
"""

from collections.abc import Callable
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta

from trunkline.providers.errors import Kind, ProviderError, Refusal, Throttled

SLOW: Final[frozenset[Kind]] = frozenset({"first-byte", "stall", "silent"})
_AFTER_OTHERS_S: Final = 30.0


class RetryRules(msgspec.Struct, frozen=True, kw_only=True):
    """How often, and for how long."""

    tries: Annotated[int, Meta(ge=1, le=10)] = 2
    """At one provider in a row, when it fails quickly."""
    backoff_s: Annotated[float, Meta(gt=0, le=10)] = 0.1
    """Longest wait before the first repetition; doubled for each further one."""
    longest_backoff_s: Annotated[float, Meta(gt=0, le=60)] = 2.0
    give_up_s: Annotated[float, Meta(gt=0, le=120)] = 8.0
    """From the request's beginning."""


class Memory:
    """What one call remembers of providers: which failed it lately."""

    def __init__(self) -> None:
        self._failed_at: dict[int, float] = {}

    def failed(self, candidate: int, at: float) -> None:
        """Note that `candidate` failed."""
        self._failed_at[candidate] = at

    def suspect(self, candidate: int, at: float) -> bool:
        """Tell whether `candidate` had better come after the others."""
        failed_at = self._failed_at.get(candidate)
        return failed_at is not None and at < failed_at + _AFTER_OTHERS_S


class Try(NamedTuple):
    """Ask `candidate`, `wait_s` from now; it may take until `first_s` after that for the first of its answer."""

    candidate: int
    wait_s: float
    first_s: float


class Course:
    """One request's.

    Args:
        first_s: for each candidate, how long it may take for the first of its answer while there is somebody else.
        rules: see there.
        memory: of the call; is written to.
        began_at: seconds.
        spread: returns a random number in [0, 1).
    """

    def __init__(
        self,
        first_s: tuple[float, ...],
        rules: RetryRules,
        memory: Memory,
        began_at: float,
        spread: Callable[[], float],
    ) -> None:
        self._first_s = first_s
        self._rules = rules
        self._memory = memory
        self._deadline = began_at + rules.give_up_s
        self._spread = spread
        self._tries = [0] * len(first_s)
        self._not_before = [0.0] * len(first_s)
        self._refused: set[int] = set()
        self._round = 0
        self._again: int | None = None
        self.attempts = 0
        """How many there have been."""

    def next(self, at: float, admits: Callable[[int], bool]) -> Try | None:
        """Return what to try next, or None: it is to be given up. `admits` asks a candidate's breaker."""
        able = [n for n in range(len(self._first_s)) if n not in self._refused and admits(n)]
        if not able:
            return None
        if self._again not in able:
            self._again = None
        choice = self._again if self._again is not None else self._first_untried(able, at)
        wait_s = max(0.0, self._not_before[choice] - at)
        if self._tries[choice] or self._round:
            wait_s = max(wait_s, self._backoff_s())
        if at + wait_s >= self._deadline:
            return None
        others = [n for n in able if n != choice and not self._tries[n]]
        left_s = self._deadline - at - wait_s
        self._tries[choice] += 1
        self.attempts += 1
        self._again = None
        return Try(choice, wait_s, min(self._first_s[choice], left_s) if others else left_s)

    def began(self, candidate: int) -> None:
        """Note that `candidate` was at work already when the course began."""
        self._tries[candidate] += 1
        self.attempts += 1

    def expired(self, at: float) -> bool:
        """Tell whether the time to give up has come."""
        return at >= self._deadline

    def failed(self, candidate: int, error: ProviderError, at: float) -> None:
        """Note that the attempt at `candidate` failed before anything of it was used."""
        self._memory.failed(candidate, at)
        if isinstance(error, Refusal):
            self._refused.add(candidate)
        elif isinstance(error, Throttled):
            self._not_before[candidate] = at + (error.retry_after_s or 0.0)
        elif error.kind not in SLOW and self._tries[candidate] < self._rules.tries:
            self._again = candidate

    def _first_untried(self, able: list[int], at: float) -> int:
        untried = [n for n in able if not self._tries[n]]
        if not untried:
            self._round += 1
            self._tries = [0] * len(self._tries)
            untried = able
        return min(untried, key=lambda n: (self._not_before[n] > at, self._memory.suspect(n, at), n))

    def _backoff_s(self) -> float:
        longest = min(self._rules.longest_backoff_s, self._rules.backoff_s * 2.0 ** min(self.attempts - 1, 10))
        return longest * self._spread()
