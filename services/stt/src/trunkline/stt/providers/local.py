"""The `local` provider: pocketsphinx with the agent's grammar, without account or network.

It hears what the grammar foresees, over a telephone line, and little else. Free dictation is not among its abilities,
so an agent without `stt.grammar` is refused. What a caller says that is not in the grammar is still bent into it where
it can be: a floor on the acoustic score turns about half of such utterances into no words, at the price of about one in
thirty good ones; the others come out as something nobody said. Noise that the voice detector lets pass fares alike.

Partials are decoded anew from the beginning of the utterance, every 400 ms of it, while a decoder has nothing better to
do; finals go first. The same audio has the same words. English only: that is the model pocketsphinx ships.
"""

import logging
import os
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from trunkline.proto.agent import Stt
from trunkline.proto.ids import UtteranceId
from trunkline.runtime.settings import load
from trunkline.stt.endpointing import samples_of_ms
from trunkline.stt.errors import Misconfigured
from trunkline.stt.provider import Failed, OnHeard, Partial, SttCapabilities, SttStream
from trunkline.stt.provider import Final as FinalWords
from trunkline.stt.providers.decoder import Question
from trunkline.stt.providers.pool import Answering, DecoderPool, Rank

log = logging.getLogger("trunkline.stt.local")

_PARTIAL_EVERY_BYTES: Final = 2 * samples_of_ms(400)
_REMEMBERED_GRAMMARS: Final = 256


class LocalSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The variables ``TRUNKLINE_POCKETSPHINX_*``."""

    decoders: Annotated[int, Meta(ge=0, le=64)] = 0
    """Decoder processes, about 110 MiB each; 0 takes one per processor, from 2 to 4."""


class LocalStream:
    """One call's ear."""

    def __init__(self, grammar: str, pool: DecoderPool, on_heard: OnHeard) -> None:
        self._grammar = grammar
        self._pool = pool
        self._on_heard = on_heard
        self._utterance: UtteranceId | None = None
        self._pcm = bytearray()
        self._decoded_bytes = 0
        self._partial: Answering | None = None
        self._finals: set[Answering] = set()

    def begin(self, utterance: UtteranceId) -> None:
        """Start a new recording."""
        self._utterance = utterance
        self._pcm = bytearray()
        self._decoded_bytes = 0

    def push(self, pcm: bytes) -> None:
        """Record, and have it decoded now and then."""
        if self._utterance is None:
            return
        self._pcm += pcm
        due = len(self._pcm) - self._decoded_bytes >= _PARTIAL_EVERY_BYTES
        if due and self._partial is None and self._pool.spare:
            self._decoded_bytes = len(self._pcm)
            self._partial = self._pool.ask(Rank.PARTIAL, Question(self._grammar, bytes(self._pcm)))
            self._partial.add_done_callback(partial(self._on_partial, self._utterance))

    def finish(self) -> None:
        """Have the whole recording decoded."""
        if self._utterance is None:
            return
        utterance, self._utterance = self._utterance, None
        if self._partial is not None:
            self._partial.cancel()
        final = self._pool.ask(Rank.FINAL, Question(self._grammar, bytes(self._pcm)))
        self._finals.add(final)
        final.add_done_callback(partial(self._on_final, utterance))
        self._pcm = bytearray()

    async def aclose(self) -> None:
        """Forget what is under way."""
        self._utterance = None
        for answering in (*self._finals, *([self._partial] if self._partial is not None else ())):
            answering.cancel()

    def _on_partial(self, utterance: UtteranceId, answering: Answering) -> None:
        self._partial = None
        if answering.cancelled() or answering.exception() is not None:
            return
        if text := answering.result().text:
            self._on_heard(Partial(utterance, text))

    def _on_final(self, utterance: UtteranceId, answering: Answering) -> None:
        self._finals.discard(answering)
        if answering.cancelled():
            return
        if (error := answering.exception()) is not None:
            self._on_heard(Failed(utterance, str(error)))
            return
        answer = answering.result()
        if answer.problem:
            self._on_heard(Failed(utterance, f"stt.grammar {answer.problem}"))
        else:
            self._on_heard(FinalWords(utterance, answer.text))


class LocalProvider:
    """Ears that know a grammar."""

    capabilities: Final = SttCapabilities(interim_results=True, honours=frozenset({"grammar"}))

    def __init__(self, environ: Mapping[str, str]) -> None:
        settings = load(LocalSettings, "TRUNKLINE_POCKETSPHINX_", environ)
        self._pool = DecoderPool(settings.decoders or min(max(os.cpu_count() or 1, 2), 4))
        self._verdicts: OrderedDict[str, str] = OrderedDict()

    async def warm_up(self) -> None:
        """Start the decoders.

        Raises:
            Unavailable: they do not start.
        """
        await self._pool.start()

    async def open(self, stt: Stt, on_heard: OnHeard) -> SttStream:
        """Return an ear for the phrases of ``stt.grammar``.

        Raises:
            Misconfigured: there is no grammar, or it cannot be used.
            Unavailable: the decoders do not start.
        """
        if not stt.grammar.strip():
            raise Misconfigured("stt.grammar", "is empty; the local provider hears only what a JSGF grammar foresees")
        if not stt.language.lower().startswith("en"):
            raise Misconfigured("stt.language", f"{stt.language!r} cannot be heard; the local provider knows en only")
        await self._pool.start()
        if problem := await self._problem_of(stt.grammar):
            raise Misconfigured("stt.grammar", problem)
        return LocalStream(stt.grammar, self._pool, on_heard)

    async def aclose(self) -> None:
        """End the decoders."""
        await self._pool.aclose()

    async def _problem_of(self, grammar: str) -> str:
        if grammar not in self._verdicts:
            answer = await self._pool.ask(Rank.CHECK, Question(grammar))
            self._verdicts[grammar] = answer.problem
            if len(self._verdicts) > _REMEMBERED_GRAMMARS:
                self._verdicts.popitem(last=False)
        return self._verdicts[grammar]
