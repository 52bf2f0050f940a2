"""Whoever may speak in a call: the agent's choice and its fallbacks, each opened when it is first needed.

What a voice yields is brought to the telephone's rate here, so that whatever is wrong with it is the provider's fault
and is repaired as such.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final, NamedTuple

from trunkline.proto.agent import Tts
from trunkline.providers.errors import Misconfigured, ProviderError, Refusal, Rejected, Transient, Unusable
from trunkline.providers.health import label_of
from trunkline.providers.prices import Quantities
from trunkline.providers.usage import Meter
from trunkline.tts.chunks import BYTES_PER_MS, LONGEST_MS, LineRate
from trunkline.tts.feed import Feed
from trunkline.tts.provider import Billed, Points, Spoken, TtsCapabilities, TtsVoice
from trunkline.tts.resume import Pace

log = logging.getLogger("trunkline.tts.voices")

OPEN_S: Final = 5.0
_FRAME_BYTES: Final = 20 * BYTES_PER_MS
_CLOSE_S: Final = 1.0


class Opened(NamedTuple):
    """A voice, and what its provider can do."""

    voice: TtsVoice
    capabilities: TtsCapabilities


Open = Callable[[Tts], Awaitable[Opened]]
"""Raises `Unusable`, or `ProviderError`."""


class CallVoice:
    """One provider's voice in one call."""

    def __init__(self, choice: Tts, open_voice: Open, meter: Meter) -> None:
        self.choice: Final = choice
        self.label: Final = label_of(choice)
        self.capabilities = TtsCapabilities()
        self.pace = Pace(choice.speed)
        self._open = open_voice
        self._meter = meter
        self._opening: asyncio.Task[Opened] | None = None

    def begin(self) -> None:
        """Open it in the background, unless that was done or failed for good."""
        if self._opening is None or _may_differ(self._opening):
            self._opening = asyncio.create_task(self._opened(), name=f"open {self.label}")
            self._opening.add_done_callback(_retrieve)

    async def opened(self) -> Opened:
        """Return it, opened if need be. Cancelling leaves it being opened.

        Raises:
            Unusable: it cannot be, in this process or at all.
            ProviderError: not now.
        """
        self.begin()
        if self._opening is None:
            raise Transient("not opened", "internal")
        return await asyncio.shield(self._opening)

    async def speak(self, feed: Feed) -> AsyncGenerator[Spoken, None]:
        """Yield what `feed` gives as PCM16 at the telephone's rate, and what the provider says about it.

        Raises:
            ProviderError: see `TtsVoice.speak`; or the voice cannot be had.
        """
        try:
            voice, capabilities = await self.opened()
        except Misconfigured as error:
            raise Rejected(str(error)) from error
        except Unusable as error:
            raise Refusal(str(error), "connect") from error
        sound_bytes = billed = 0
        held = b""
        failed = False
        try:
            rate = LineRate(voice.sample_rate_hz)
            text = feed.pieces() if capabilities.streams_text else feed.once()
            async with contextlib.aclosing(voice.speak(text)) as things:
                try:
                    async for thing in things:
                        match thing:
                            case bytes():
                                sound_bytes += len(thing)
                                _check(sound_bytes, voice.sample_rate_hz)
                                # Less than a frame is no sign that sound goes on: a line may trickle for ever.
                                held += rate.push(thing)
                                if len(held) >= _FRAME_BYTES:
                                    pcm, held = held, b""
                                    yield pcm
                            case Points():
                                yield thing
                            case Billed(characters=characters):
                                billed += max(0, characters)
                except Exception:
                    failed = True
                    if pcm := held + rate.end():  # it was heard of, so it is said
                        yield pcm
                    raise
            if pcm := held + rate.end():
                yield pcm
        finally:
            self._bill(billed, 0 if failed and not sound_bytes else feed.given)

    async def aclose(self) -> None:
        """Give it back, within a second."""
        opening = self._opening
        if opening is None:
            return
        opening.cancel()
        await asyncio.wait({opening})
        if opening.cancelled() or opening.exception() is not None:
            return
        try:
            async with asyncio.timeout(_CLOSE_S):
                await opening.result().voice.aclose()
        except Exception:
            log.exception("voice not closed", extra={"provider": self.label})

    def _bill(self, billed: int, given: int) -> None:
        if billed or given:
            used = Quantities(characters=billed or given)
            self._meter.add(self.choice, used, model=self.capabilities.model, estimated=not billed)

    async def _opened(self) -> Opened:
        try:
            async with asyncio.timeout(OPEN_S):
                opened = await self._open(self.choice)
        except TimeoutError as error:
            raise Transient(f"not opened within {OPEN_S:g} s", "connect") from error
        except (Unusable, ProviderError):
            raise
        except Exception as error:
            log.exception("voice not opened", extra={"provider": self.label})
            raise Transient(f"not opened: {type(error).__name__}", "internal") from error
        self.capabilities = opened.capabilities
        return opened


async def open_first(voices: list[CallVoice]) -> None:
    """Open the first of `voices` that can be; the others are left for later.

    Raises:
        Unusable: none can be, now; a `Misconfigured` if none can be anywhere.
    """
    errors: list[Exception] = []
    for voice in voices:
        try:
            await voice.opened()
        except (Unusable, ProviderError) as error:
            errors.append(error)
            log.warning("voice not opened", extra={"provider": voice.label, "problem": str(error)})
        else:
            return
    first = errors[0]
    if isinstance(first, Misconfigured) and all(isinstance(error, Misconfigured) for error in errors):
        raise first
    if all(isinstance(error, Unusable) for error in errors):
        raise Unusable(str(first))


def _check(sound_bytes: int, rate_hz: int) -> None:
    if sound_bytes > LONGEST_MS * 2 * rate_hz // 1_000:
        raise Transient("it does not stop speaking", "malformed")


def _may_differ(opening: asyncio.Task[Opened]) -> bool:
    """Whether `opening` failed in a way that says nothing about the next attempt."""
    if not opening.done():
        return False
    error = None if opening.cancelled() else opening.exception()
    return opening.cancelled() or (error is not None and not isinstance(error, Unusable))


def _retrieve(opening: asyncio.Task[Opened]) -> None:
    if not opening.cancelled():
        opening.exception()  # whoever asks for the voice has it; nobody may
