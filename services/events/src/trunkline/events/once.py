"""Lets every fact through to a sink once, and a call's start and end once each. Pure, of bounded memory.

The stream delivers at least once, and a writer may store a fact twice when its retry comes later than the stream's
duplicate window. Whoever listens outside should not have to care.
"""

from collections import OrderedDict
from typing import Final

from trunkline.bus import Recorded

_ONCE_PER_CALL: Final = frozenset({"call.started", "call.ended"})


class Once:
    """Remembers the last `memory` facts that a sink was done with."""

    def __init__(self, memory: int = 20_000) -> None:
        self._memory = memory
        self._seen: OrderedDict[str, None] = OrderedDict()

    def is_new(self, fact: Recorded) -> bool:
        """Return whether the sink has not had `fact`, nor another start or end of the same call."""
        return not any(key in self._seen for key in _keys(fact))

    def done(self, fact: Recorded) -> None:
        """Remember that the sink has had `fact`."""
        for key in _keys(fact):
            self._seen[key] = None
            self._seen.move_to_end(key)
        while len(self._seen) > self._memory:
            self._seen.popitem(last=False)


def _keys(fact: Recorded) -> tuple[str, ...]:
    return (fact.id, f"{fact.kind} {fact.call}") if fact.kind in _ONCE_PER_CALL else (fact.id,)
