"""What agents say word for word, as sound: found in memory, in the store of all processes, or made and kept there.

What stands for an agent's voice must be its first choice's. Where that cannot make a clip, the next choice does, to be
played only when nobody speaks anyway: an apology in another voice is better than silence. Clips are made one at a time,
when the call that wanted them is quiet, and given up at a failure until another call wants them. What they cost is the
house's, not a call's.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Final

from trunkline.bus import BusError, ClipStore, ended
from trunkline.proto.agent import Tts
from trunkline.proto.clips import LONGEST_S, key_of
from trunkline.proto.events import ProviderFailed
from trunkline.proto.ids import Epoch, Generation, UtteranceId
from trunkline.proto.messages import Say
from trunkline.providers.attempts import Attempts, Candidate
from trunkline.providers.course import RetryRules
from trunkline.providers.errors import ProviderError, Unusable
from trunkline.providers.health import Health
from trunkline.providers.prices import Prices
from trunkline.providers.usage import Meter
from trunkline.tts.chunks import BYTES_PER_MS
from trunkline.tts.feed import Bell, Draft, Feed
from trunkline.tts.metrics import TtsMetrics
from trunkline.tts.provider import Spoken
from trunkline.tts.sentence import Sentence
from trunkline.tts.shelf import Shelf
from trunkline.tts.text import MAX_CHARS
from trunkline.tts.voices import CallVoice, Open

log = logging.getLogger("trunkline.tts.clips")

SHELF_BYTES: Final = 64 * 2**20
ORDER_S: Final = 10.0
_MAKE_S: Final = 30.0
_QUIET_S: Final = 60.0
_ORDERS: Final = 2
_MOST_ORDERS: Final = 32
"""Under way or waiting; further ones are refused."""
_LONGEST_BYTES: Final = int(LONGEST_S * 1_000) * BYTES_PER_MS
_RULES: Final = RetryRules(give_up_s=8.0)


class ClipMaker:
    """Has texts spoken outside of any call."""

    def __init__(self, open_voice: Open, health: Health, prices: Prices, now: Callable[[], float]) -> None:
        self._open = open_voice
        self._health = health
        self._prices = prices
        self._now = now

    async def make(self, tts: Tts, text: str) -> bytes:
        """Return `text` as PCM16 at the telephone's rate; may be empty.

        Raises:
            Unusable: the provider cannot be asked.
            ProviderError: it did not do it.
        """
        meter = Meter("tts", Epoch(0), self._prices, self._health.spent)
        voice = CallVoice(tts, self._open, meter)
        said = Sentence(Say(epoch=Epoch(0), generation=Generation(0), utterance=UtteranceId(0), text=text))
        draft = Draft(said, Bell(), 0.0)

        def start() -> AsyncGenerator[Spoken, None]:
            return voice.speak(Feed(draft, 0, self._now))

        attempts: Attempts[Spoken] = Attempts("tts", self._health, _RULES, self._now, _failed)
        pcm = bytearray()
        try:
            await voice.opened()
            candidate = Candidate(tts, tts.timeouts, start)
            stream = attempts.stream([candidate], lambda thing: isinstance(thing, bytes))
            async with contextlib.aclosing(stream) as things:
                async for _, thing in things:
                    if isinstance(thing, bytes):
                        pcm += thing
        finally:
            await voice.aclose()
        return bytes(pcm)


class Clips:
    """The clips of a process.

    Args:
        store: where all processes find them.
        maker: makes what is not there.
        metrics: of the process.
        after_s: how long a call has to itself before clips are made for it.
    """

    def __init__(self, store: ClipStore, maker: ClipMaker, metrics: TtsMetrics, after_s: float) -> None:
        self.shelf = Shelf(SHELF_BYTES)
        self._store = store
        self._maker = maker
        self._metrics = metrics
        self._after_s = after_s
        self._wanted: set[str] = set()
        self._one_at_a_time = asyncio.Lock()
        self._orders = asyncio.Semaphore(_ORDERS)
        self._ordered = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def find(self, tts: Tts, text: str) -> bytes | None:
        """Return `text` as `tts` would say it, if that is in memory."""
        return self.shelf.find(key_of(tts, text)) if text else None

    def find_any(self, tts: Tts, text: str) -> bytes | None:
        """Return `text` as `tts` would say it, or else as one of its fallbacks would, if any of that is in memory."""
        found = (self.find(choice, text) for choice in (tts, *tts.fallbacks))
        return next((pcm for pcm in found if pcm is not None), None)

    def want(self, tts: Tts, texts: Iterable[str], quiet: asyncio.Event) -> None:
        """Have the clips of `texts` in memory, some time. They are made while `quiet` is set."""
        missing = {key_of(tts, text): text for text in texts if text}
        missing = {
            key: text for key, text in missing.items() if key not in self._wanted and self.shelf.find(key) is None
        }
        if missing:
            self._wanted |= missing.keys()
            task = asyncio.create_task(self._gather(tts, missing, quiet), name="clips")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def order(self, tts: Tts, text: str) -> str:
        """Have `text` in the store within `ORDER_S`; return why it is not, or nothing."""
        if self._ordered >= _MOST_ORDERS:
            return "too many orders at once"
        self._ordered += 1
        try:
            async with asyncio.timeout(ORDER_S), self._orders:
                key = key_of(tts, text)
                if await self._store.get(key) is None:
                    key, pcm = await self._have(tts, text)
                    await self._store.put(key, pcm)
        except TimeoutError:
            return f"not made within {ORDER_S:g} s"
        except (BusError, Unusable, ProviderError, ValueError) as error:
            return str(error) or type(error).__name__
        finally:
            self._ordered -= 1
        return ""

    async def close(self) -> None:
        """Make no more."""
        await ended(*self._tasks)

    async def _gather(self, tts: Tts, missing: dict[str, str], quiet: asyncio.Event) -> None:
        try:
            store = self._store if await self._fetch(missing) else None
            absent = {key: text for key, text in missing.items() if self.shelf.find(key) is None}
            if absent:
                await asyncio.sleep(self._after_s)
            for text in absent.values():
                while not await self._make_in_turn(tts, text, quiet, store):
                    pass
        except (BusError, Unusable, ProviderError, TimeoutError, ValueError) as error:
            self._metrics.clip("failed")
            log.warning("clip not made", extra={"provider": tts.provider, "problem": str(error) or "it took too long"})
        finally:
            self._wanted -= missing.keys()

    async def _make_in_turn(self, tts: Tts, text: str, quiet: asyncio.Event, store: ClipStore | None) -> bool:
        """Make a clip when it is its turn, and put it into `store`; return whether the call was still quiet then."""
        async with asyncio.timeout(_QUIET_S):
            await quiet.wait()
        async with self._one_at_a_time:
            if not quiet.is_set():
                return False
            async with asyncio.timeout(_MAKE_S):
                key, pcm = await self._have(tts, text)
            if store is not None:
                await store.put(key, pcm)
            return True

    async def _fetch(self, missing: dict[str, str]) -> bool:
        """Take from the store what is there; return whether the store itself is."""
        try:
            for key in missing:
                pcm = await self._store.get(key)
                if pcm is not None:
                    self.shelf.put(key, pcm)
                    self._metrics.clip("fetched")
        except BusError as error:
            log.warning("clips not fetched", extra={"problem": str(error)})
            return False
        return True

    async def _have(self, tts: Tts, text: str) -> tuple[str, bytes]:
        """Return the clip of `text` and its key, made by the first of the choices that can, and put it into memory.

        Raises:
            Unusable, ProviderError, ValueError: none can; says why of the first.
        """
        problem: Exception | None = None
        for choice in (tts, *tts.fallbacks):
            key = key_of(choice, text)
            try:
                pcm = self.shelf.find(key) or await self._make(choice, text)
            except (Unusable, ProviderError, ValueError) as error:
                problem = problem or error
                log.warning("clip not made", extra={"provider": choice.provider, "problem": str(error)})
            else:
                self.shelf.put(key, pcm)
                return key, pcm
        raise problem or ValueError("no voice")

    async def _make(self, tts: Tts, text: str) -> bytes:
        if len(text) > MAX_CHARS:
            raise ValueError(f"{len(text)} characters; a clip has {MAX_CHARS} at most")
        pcm = await self._maker.make(tts, text)
        if not 0 < len(pcm) <= _LONGEST_BYTES:
            raise ValueError(f"{len(pcm) / BYTES_PER_MS / 1_000:.1f} s of sound; a clip has up to {LONGEST_S:g} s")
        self._metrics.clip("made")
        return pcm


def _failed(fact: ProviderFailed) -> None:
    log.warning(
        "provider failed to make a clip", extra={"provider": fact.provider, "kind": fact.kind, "text": fact.text}
    )
