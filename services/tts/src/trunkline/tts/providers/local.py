"""The `local` provider: espeak-ng, without account or network.

All calls of the process share one thread, because libespeak-ng is global state. A sentence is one piece of work there,
so calls take turns sentence by sentence; at some 2 ms of CPU per second of speech nobody waits for long. Blocks of
audio reach the loop as they are made; a sentence that is closed early is aborted at its next block.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Final

from trunkline.proto.agent import Tts
from trunkline.providers.errors import Transient
from trunkline.tts.provider import TtsCapabilities, TtsVoice
from trunkline.tts.providers.espeak import Setting, espeak

DEFAULT_VOICE: Final = "en-gb"


@cache
def _thread() -> ThreadPoolExecutor:
    """Return the one thread on which calls use the library."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="espeak")


class LocalVoice:
    """A voice of espeak-ng for one call."""

    def __init__(self, setting: Setting, sample_rate_hz: int) -> None:
        self.sample_rate_hz: Final = sample_rate_hz
        self._setting = setting

    async def speak(self, text: AsyncIterable[str]) -> AsyncGenerator[bytes, None]:
        """Yield the sentence in blocks of 160 ms; see `TtsVoice.speak`."""
        sentence = "".join([piece async for piece in text])
        loop = asyncio.get_running_loop()
        blocks: asyncio.Queue[bytes | None] = asyncio.Queue()
        closed = threading.Event()
        failures: list[Exception] = []

        def emit(block: bytes) -> bool:
            if closed.is_set():
                return False
            loop.call_soon_threadsafe(blocks.put_nowait, block)
            return True

        def work() -> None:
            try:
                if not closed.is_set():
                    espeak().synthesise(sentence, self._setting, emit)
            except Exception as error:  # noqa: BLE001 - raised again in the loop
                failures.append(error)
            if not closed.is_set():
                loop.call_soon_threadsafe(blocks.put_nowait, None)

        job = _thread().submit(work)
        try:
            while (block := await blocks.get()) is not None:
                yield block
        finally:
            closed.set()
            job.cancel()
        if failures:
            raise Transient(str(failures[0])) from failures[0]

    async def aclose(self) -> None:
        """Hold nothing: the library belongs to the process."""


class LocalProvider:
    """Voices of espeak-ng by language or name, ``en-gb`` or ``en-us+f3``."""

    capabilities: Final = TtsCapabilities(
        adjusts=frozenset({"speed", "pitch"}),
        # espeak-ng ends a sentence 7 ms after its last sound; between two sentences of one text it puts 300 ms.
        sentence_gap_ms=250,
    )

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Needs nothing of `environ`."""

    def check(self, tts: Tts) -> None:
        """Leave the voice to `open`: to know the voices, the library must be loaded."""

    async def warm(self, tts: Tts) -> None:  # noqa: ARG002 - all voices come with the library
        """Load the library."""
        await asyncio.get_running_loop().run_in_executor(_thread(), espeak)

    async def open(self, tts: Tts) -> TtsVoice:
        """Return the voice; loads the library when it is the first.

        Raises:
            Misconfigured: espeak-ng has no such voice.
            Unavailable: the library cannot be loaded.
        """

        def find() -> LocalVoice:
            library = espeak()
            return LocalVoice(library.resolve(tts.voice or DEFAULT_VOICE, tts.speed, tts.pitch), library.sample_rate_hz)

        return await asyncio.get_running_loop().run_in_executor(_thread(), find)

    async def aclose(self) -> None:
        """Leave the thread to the end of the process; it holds no call."""
