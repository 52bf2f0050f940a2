"""A connection's way back: which server is tried next and when, what is worth saying meanwhile, and when to give up.

It knows servers by their addresses only, and no socket.
"""

import random
from collections import Counter
from typing import Any, Final

FIRST_WAIT_S: Final = (0.01, 0.06)
NEXT_WAIT_S: Final = (0.03, 0.08)
REFUSED_S: Final = 5.0
"""Servers that have refused us for so long do not mean it as a passing thing."""


class WayBack:
    """Picks where and when to reconnect: another server first, and soon; then the least tried.

    The first attempt after a disconnect comes after 10 to 60 ms, later ones after 30 to 80 ms each: quick, because
    callers wait, and spread, because a thousand clients come back at once.
    """

    def __init__(self) -> None:
        self._stood_on = ""
        self._tried: Counter[str] = Counter()
        self._said = ""
        self._refused_at: float | None = None

    def found(self, address: str) -> None:
        """Note that the connection stands, on the server at `address` (host and port)."""
        self._stood_on = address
        self._said = ""
        self._refused_at = None

    def lost(self) -> None:
        """Note that it broke."""
        self._tried = Counter({self._stood_on: 1})

    def is_news(self, complaint: str) -> bool:
        """Return whether `complaint` is another than the one before: attempts fail alike, ten a second."""
        said, self._said = self._said, complaint
        return complaint != said

    def is_hopeless(self, complaint: str, at: float) -> bool:
        """Return whether servers refuse us at `at` (seconds), and began to `REFUSED_S` ago without ever relenting."""
        if "authorization" not in complaint.lower():
            return False
        if self._refused_at is None:
            self._refused_at = at
        return at - self._refused_at >= REFUSED_S

    def __call__(self, servers: list[Any], _info: dict[str, Any]) -> tuple[Any, float]:
        """Return the server to try next, and after how many seconds. For nats-py, which has shuffled `servers`."""
        first = self._tried.total() <= 1
        server = min(servers, key=lambda one: self._tried[one.uri.netloc])
        self._tried[server.uri.netloc] += 1
        return server, random.uniform(*(FIRST_WAIT_S if first else NEXT_WAIT_S))  # noqa: S311 - spreads load
