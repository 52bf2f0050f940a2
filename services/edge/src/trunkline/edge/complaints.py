"""What is wrong with one call's messages, logged once for each kind: the counters have the rest."""

import logging
from collections import Counter

from trunkline.proto.ids import CallId

log = logging.getLogger("trunkline.edge.call")


class Complaints:
    """Those of one call."""

    def __init__(self, call: CallId) -> None:
        self._call = call
        self._counts: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """How many there were."""
        return self._counts.total()

    def __call__(self, what: str, **fields: str) -> None:
        """Say `what` is wrong; only its first time with the same `reason` is logged."""
        kind = f"{what} {fields.get('reason', '')}"
        self._counts[kind] += 1
        if self._counts[kind] == 1:
            log.warning(what, extra={"call": self._call, **fields})
