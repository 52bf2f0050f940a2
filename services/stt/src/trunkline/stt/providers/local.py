"""The `local` provider: pocketsphinx with the agent's grammar, without account or network.

It hears what the grammar foresees, over a telephone line, and little else. Free dictation is not among its abilities,
so an agent without `stt.grammar` is refused. What a caller says that is not in the grammar is still bent into it where
it can be: a floor on the acoustic score turns one in three such utterances into no words (19 of 60), at the price of
none of 173 good ones (synthetic voices, three grammars); the others come out as something nobody said. A stricter floor
would turn away callers whose vowels are not American.

Partials are decoded anew from the beginning of the utterance, every 400 ms of it, while a decoder has nothing better to
do; finals go first. When the caller has been silent for 160 ms the utterance is decoded as if it were over, so that its
words are there when the endpointing says so. The same audio has the same words. English only: that is the model that
pocketsphinx ships.
"""

import asyncio
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
from trunkline.providers.errors import Misconfigured, Rejected, Transient
from trunkline.runtime.settings import load
from trunkline.stt.provider import BYTES_PER_S, Failed, OnHeard, Partial, SttCapabilities, SttStream
from trunkline.stt.provider import Final as FinalWords
from trunkline.stt.providers.decoder import Question, Want
from trunkline.stt.providers.pool import Answering, DecoderPool, Rank

log = logging.getLogger("trunkline.stt.local")

_PARTIAL_EVERY_BYTES: Final = BYTES_PER_S * 400 // 1_000
_EARLY_BYTES: Final = BYTES_PER_S * 160 // 1_000
"""Silence after which what was said so far is decoded as if it were all: it mostly is."""
_REMEMBERED_GRAMMARS: Final = 256
_CHECK_S: Final = 0.3
"""A claim waits no longer for the verdict on its grammar."""


class LocalSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The variables ``TRUNKLINE_POCKETSPHINX_*``."""

    decoders: Annotated[int, Meta(ge=0, le=64)] = 0
    """Decoder processes, about 110 MiB each; 0 takes one per processor, from 2 to 4."""


class _Grammar:
    """A grammar of some agents, and its automaton once that is made."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.automaton = b""

    def words_in(self, pcm: bytearray) -> Question:
        """Return the question what was said."""
        return Question(Want.WORDS, self.text, bytes(pcm), self.automaton)

    def compiled(self, answering: Answering) -> None:
        """Take the automaton; without it words are found all the same."""
        if not answering.cancelled() and answering.exception() is None:
            self.automaton = answering.result().automaton


class LocalStream:
    """One call's ear."""

    def __init__(self, grammar: "_Grammar", pool: DecoderPool, on_heard: OnHeard) -> None:
        self._grammar = grammar
        self._pool = pool
        self._on_heard = on_heard
        self._utterance: UtteranceId | None = None
        self._pcm = bytearray()
        self._voiced_bytes = 0
        """How much has been recorded up to the last voice in it."""
        self._asked_bytes = 0
        """How much the latest question was about."""
        self._so_far: Answering | None = None
        """The answer awaited, or the latest, to a question about what was recorded so far."""
        self._finals: dict[UtteranceId, Answering] = {}

    def begin(self, utterance: UtteranceId) -> None:
        """Start a new recording."""
        self._drop_so_far()
        self._utterance = utterance
        self._pcm = bytearray()
        self._voiced_bytes = self._asked_bytes = 0

    def push(self, pcm: bytes, *, voiced: bool) -> None:
        """Record, and have it decoded now and then."""
        if self._utterance is None:
            return
        self._pcm += pcm
        if voiced:
            self._voiced_bytes = len(self._pcm)
        if len(self._pcm) - self._voiced_bytes >= _EARLY_BYTES:
            if not self._all_asked:
                self._ask(self._utterance, Rank.EARLY)
        elif len(self._pcm) - self._asked_bytes >= _PARTIAL_EVERY_BYTES and not self._asking and self._pool.spare:
            self._ask(self._utterance, Rank.PARTIAL)

    def finish(self) -> None:
        """Have the whole recording decoded, unless that was asked for when the caller fell silent."""
        if self._utterance is None:
            return
        utterance, self._utterance = self._utterance, None
        if self._so_far is not None and self._all_asked:
            final, self._so_far = self._so_far, None
            self._pool.promote(final, Rank.FINAL)
        else:
            self._drop_so_far()
            final = self._pool.ask(Rank.FINAL, self._grammar.words_in(self._pcm))
        self._pcm = bytearray()
        self._finals[utterance] = final
        final.add_done_callback(partial(self._on_final, utterance))

    def give_up(self, utterance: UtteranceId) -> None:
        """Take the question back, so that the decoders come to those whose words are still wanted."""
        if (final := self._finals.get(utterance)) is not None:
            final.cancel()

    async def aclose(self) -> None:
        """Forget what is under way."""
        self._utterance = None
        self._drop_so_far()
        for final in self._finals.values():
            final.cancel()

    @property
    def _all_asked(self) -> bool:
        """Whether the latest question was about all the voice there is, and silence after it."""
        return self._asked_bytes - self._voiced_bytes >= _EARLY_BYTES

    @property
    def _asking(self) -> bool:
        return self._so_far is not None and not self._so_far.done()

    def _ask(self, utterance: UtteranceId, rank: Rank) -> None:
        self._drop_so_far()
        self._asked_bytes = len(self._pcm)
        self._so_far = self._pool.ask(rank, self._grammar.words_in(self._pcm))
        self._so_far.add_done_callback(partial(self._on_so_far, utterance))

    def _drop_so_far(self) -> None:
        if self._so_far is not None:
            self._so_far.cancel()
            self._so_far = None

    def _on_so_far(self, utterance: UtteranceId, answering: Answering) -> None:
        if answering.cancelled() or answering.exception() is not None or utterance != self._utterance:
            return
        if text := answering.result().text:
            self._on_heard(Partial(utterance, text))

    def _on_final(self, utterance: UtteranceId, answering: Answering) -> None:
        self._finals.pop(utterance, None)
        if answering.cancelled():
            return
        if (error := answering.exception()) is not None:
            self._on_heard(Failed(utterance, Transient(str(error))))
            return
        answer = answering.result()
        if answer.problem:
            self._on_heard(Failed(utterance, Rejected(f"stt.grammar {answer.problem}")))
        else:
            self._on_heard(FinalWords(utterance, answer.text))


class LocalProvider:
    """Ears that know a grammar."""

    capabilities: Final = SttCapabilities(
        interim_results=True, languages=frozenset({"en"}), honours=frozenset({"grammar"})
    )

    def __init__(self, environ: Mapping[str, str]) -> None:
        settings = load(LocalSettings, "TRUNKLINE_POCKETSPHINX_", environ)
        self._pool = DecoderPool(settings.decoders or min(max(os.cpu_count() or 1, 2), 4))
        self._grammars: OrderedDict[str, _Grammar] = OrderedDict()
        self._unjudged: dict[str, tuple[_Grammar, Answering]] = {}

    async def warm_up(self) -> None:
        """Start the decoders.

        Raises:
            Unavailable: they do not start.
        """
        await self._pool.start()

    def check(self, stt: Stt) -> None:
        """Refuse an agent without a grammar, or not in English.

        Raises:
            Misconfigured: so it is.
        """
        if not stt.grammar.strip():
            raise Misconfigured("stt.grammar", "is empty; the local provider hears only what a JSGF grammar foresees")
        if not stt.language.lower().startswith("en"):
            raise Misconfigured("stt.language", f"{stt.language!r} cannot be heard; the local provider knows en only")

    async def warm(self, stt: Stt) -> None:
        """Need nothing: the decoders are started before the first call."""

    async def open(self, stt: Stt, on_heard: OnHeard) -> SttStream:
        """Return an ear for the phrases of ``stt.grammar``.

        A new grammar is looked at first, for at most 300 ms. When the decoders are too busy for that, the call is
        accepted with the grammar unseen: a wrong one then fails at the words of each utterance.

        Raises:
            Misconfigured: there is no grammar, or it was found wrong in time.
            Unavailable: the decoders do not start.
        """
        self.check(stt)
        await self._pool.start()
        grammar = self._grammars.get(stt.grammar) or await self._learn(stt.grammar)
        return LocalStream(grammar, self._pool, on_heard)

    async def aclose(self) -> None:
        """End the decoders."""
        await self._pool.aclose()

    async def _learn(self, text: str) -> _Grammar:
        """Return a grammar not known yet, unless it is found wrong within `_CHECK_S`."""
        # Calls of one agent come together: its grammar is looked at once.
        if text not in self._unjudged:
            verdict = self._pool.ask(Rank.CHECK, Question(Want.VERDICT, text))
            self._unjudged[text] = _Grammar(text), verdict
            verdict.add_done_callback(partial(self._on_verdict, text))
        grammar, verdict = self._unjudged[text]
        try:
            async with asyncio.timeout(_CHECK_S):
                answer = await asyncio.shield(verdict)
        except TimeoutError:
            log.warning("no verdict on the grammar in time; call accepted with it unseen")
            return grammar
        if answer.problem:
            raise Misconfigured("stt.grammar", answer.problem)
        return grammar

    def _on_verdict(self, text: str, verdict: Answering) -> None:
        """Remember a grammar found right; its automaton, which takes longer than a claim may, follows later."""
        grammar, _ = self._unjudged.pop(text)
        if verdict.cancelled() or verdict.exception() is not None or verdict.result().problem:
            return
        self._grammars[text] = grammar
        self._pool.ask(Rank.EARLY, Question(Want.AUTOMATON, text)).add_done_callback(grammar.compiled)
        if len(self._grammars) > _REMEMBERED_GRAMMARS:
            self._grammars.popitem(last=False)
