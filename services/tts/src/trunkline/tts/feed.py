"""A sentence's text on its way to a provider, as it is written."""

import asyncio
from collections.abc import AsyncGenerator, Callable

from trunkline.tts.sentence import Sentence


class Bell:
    """Rings for whoever waits for something to change."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def ring(self) -> None:
        """Wake all who wait."""
        rung, self._next = self._next, asyncio.Event()
        rung.set()

    async def wait(self) -> None:
        """Wait until it rings next."""
        await self._next.wait()


class Draft:
    """A sentence that may still grow, and how long that may take.

    Args:
        sentence: the one.
        bell: rings when it may have grown.
        stall_s: how long it may stay as it is before it counts as complete.
    """

    def __init__(self, sentence: Sentence, bell: Bell, stall_s: float) -> None:
        self.sentence = sentence
        self._bell = bell
        self._stall_s = stall_s

    async def beyond(self, characters: int) -> bool:
        """Wait for more than the first `characters`; return False if there is no more."""
        sentence = self.sentence
        while len(sentence.text) <= characters and not sentence.complete:
            await self._grow()
        return len(sentence.text) > characters

    async def whole(self) -> None:
        """Wait until it is complete."""
        while not self.sentence.complete:
            await self._grow()

    async def _grow(self) -> None:
        try:
            async with asyncio.timeout(self._stall_s):
                await self._bell.wait()
        except TimeoutError:
            self.sentence.end()


class Feed:
    """What one attempt at a provider is given: the draft from its character `start` on."""

    def __init__(self, draft: Draft, start: int, now: Callable[[], float]) -> None:
        self.given = 0
        """How many characters the provider has."""
        self._draft = draft
        self._start = start
        self._now = now
        self._given_at: float | None = now()

    @property
    def text(self) -> str:
        """What the provider has."""
        return self._draft.sentence.text[self._start : self._start + self.given]

    @property
    def owing_since(self) -> float | None:
        """When the provider was given the last of its text; None while it waits for more."""
        return self._given_at

    async def pieces(self) -> AsyncGenerator[str, None]:
        """Yield the text as it is written, cut between words."""
        while await self._more(whole=False):
            yield self._take()

    async def once(self) -> AsyncGenerator[str, None]:
        """Yield the text in one piece, when it is complete."""
        while await self._more(whole=True):
            yield self._take()

    async def _more(self, *, whole: bool) -> bool:
        """Wait, on our account and not on the provider's, until there is more to give."""
        sentence = self._draft.sentence
        if not sentence.complete:
            self._given_at = None
        try:
            if whole:
                await self._draft.whole()
            return await self._draft.beyond(self._start + self.given)
        finally:
            self._given_at = self._given_at if self._given_at is not None else self._now()

    def _take(self) -> str:
        begun = self._start + self.given
        piece = self._draft.sentence.text[begun:]
        self.given += len(piece)
        return piece
