"""A circuit breaker: whether a provider may be asked, judged by how it did lately. Pure; `at` is seconds.

=========  ============================================  ============================================================
state      what it means                                 how it is left
=========  ============================================  ============================================================
closed     requests go through                           `failures` in a row, or a throttle with a time → open
open       nobody asks                                   its time is over → half-open
half-open  one request at a time finds out               `successes` in a row → closed; a failure → open
=========  ============================================  ============================================================

Every process has one per provider, shared by its calls (M. Nygard, Release It!, "Circuit Breaker").
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

State = Literal["closed", "half-open", "open"]


class BreakerRules(msgspec.Struct, frozen=True, kw_only=True):
    """When a breaker opens and closes."""

    failures: Annotated[int, Meta(ge=1, le=1_000)] = 3
    """In a row, before nobody is sent there any more."""
    open_s: Annotated[float, Meta(gt=0, le=3_600)] = 30.0
    """How long nobody is."""
    successes: Annotated[int, Meta(ge=1, le=100)] = 2
    """In a row, of requests sent to find out, before all are sent there again."""


class Breaker:
    """One provider's."""

    def __init__(self, rules: BreakerRules) -> None:
        self._rules = rules
        self._failed = 0
        self._open_until: float | None = None
        self._succeeded = 0
        self._trying = False

    def state(self, at: float) -> State:
        """Return the state."""
        if self._open_until is None:
            return "closed"
        return "open" if at < self._open_until else "half-open"

    def admits(self, at: float) -> bool:
        """Tell whether a request may be made."""
        state = self.state(at)
        return state == "closed" or (state == "half-open" and not self._trying)

    def began(self, at: float) -> None:
        """A request is made. It must end as `succeeded`, `failed` or `abandoned`."""
        if self.state(at) == "half-open":
            self._trying = True

    def succeeded(self, at: float) -> None:
        """A request was answered."""
        self._failed = 0
        if self.state(at) != "half-open":
            return  # closed; or open, and this is the answer to an older request
        self._trying = False
        self._succeeded += 1
        if self._succeeded >= self._rules.successes:
            self._open_until = None
            self._succeeded = 0

    def failed(self, at: float, retry_after_s: float | None = None) -> None:
        """A request was not answered; the provider may have said when to come again."""
        state = self.state(at)
        self._failed += 1
        self._succeeded = 0
        if state == "half-open" or self._failed >= self._rules.failures or retry_after_s:
            self._trying = False
            until = at + (retry_after_s or self._rules.open_s)
            self._open_until = max(until, self._open_until or until)

    def abandoned(self, at: float) -> None:
        """Nobody waits for a request's answer any more; it says nothing about the provider."""
        if self.state(at) == "half-open":
            self._trying = False
