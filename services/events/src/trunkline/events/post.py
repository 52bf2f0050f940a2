"""One HTTP POST of one event, and nothing about when or how often."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import httpx

from trunkline.bus import Recorded
from trunkline.events import signature
from trunkline.events.retry import Answered, Outcome, Unanswered, retry_after_s
from trunkline.events.settings import Receiver

_ANSWER_BYTES: Final = 16 * 1024
"""So much of an answer is read, for the connection to be used again; what it says does not matter."""


class Post:
    """Posts to one receiver. Redirects are not followed."""

    def __init__(self, receiver: Receiver, wall: Callable[[], float], *, timeout_s: float, connections: int) -> None:
        self.shown = receiver.shown
        self._receiver = receiver
        self._wall = wall
        self._timeout_s = timeout_s
        self._client = httpx.AsyncClient(
            auth=receiver.login,
            follow_redirects=False,
            headers={"user-agent": "trunkline-events", "content-type": "application/json"},
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            timeout=timeout_s,
        )

    async def post(self, event: Recorded) -> Outcome:
        """Post `event` and say what came of it. Never raises."""
        wall_at = self._wall()
        headers = signature.headers(event.id, int(wall_at), event.data, self._receiver.key)
        outcome: Outcome = Unanswered(f"no answer within {self._timeout_s:g} s")
        # httpx counts its time-out anew for every piece; a receiver that drips must not hold us for ever.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_s):
                try:
                    request = self._client.stream("POST", self._receiver.url, content=event.data, headers=headers)
                    async with request as response:
                        asked = response.headers.get("retry-after", "")
                        outcome = Answered(response.status_code, retry_after_s(asked, wall_at))
                        await _read_a_little(response)
                except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
                    if isinstance(outcome, Unanswered):
                        outcome = Unanswered(f"{type(error).__name__}: {error}".removesuffix(": "))
        return outcome

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


async def _read_a_little(response: httpx.Response) -> None:
    size = 0
    async for part in response.aiter_raw():
        size += len(part)
        if size > _ANSWER_BYTES:
            return
