"""Deepgram's Flux: hears all of a call and judges by itself when the caller's turn is over.

When the voice detector ends the utterance first, the turn is ended by order (``ForceEndTurn``); when Flux does, the
utterance is told to be over, and its words wait for the `finish` that follows.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
from deepgram.listen.v2.socket_client import AsyncV2SocketClient

from trunkline.proto.agent import Stt
from trunkline.proto.ids import UtteranceId
from trunkline.providers.errors import Misconfigured, Rejected, Transient
from trunkline.providers.keys import without_key
from trunkline.providers.sockets import tls
from trunkline.stt.provider import Lost, OnHeard, SttCapabilities, SttStream, TurnOver
from trunkline.stt.providers.deepgram_client import (
    Line,
    Query,
    access,
    is_flag,
    is_text,
    options_of,
    url_of,
    within,
)
from trunkline.stt.providers.deepgram_words import Piece, Span, Timed, Words

MODEL: Final = "flux-general-en"
MULTILINGUAL: Final = "flux-general-multi"
_SLACK_S: Final = 0.3
_OPTIONS: Final = {
    "eot_threshold": within(0.5, 1.0),
    "eager_eot_threshold": within(0.3, 0.9),
    "eot_timeout_ms": within(500, 60_000),
    "numerals": is_flag,
    "profanity_filter": is_flag,
    "mip_opt_out": is_flag,
    "redact": is_text,
    "tag": is_text,
}


class _Word(msgspec.Struct):
    word: str
    confidence: float | None = None
    start: float | None = None
    end: float | None = None


class _Turn(msgspec.Struct):
    event: str
    audio_window_start: float
    audio_window_end: float
    transcript: str
    words: list[_Word] = []
    trigger: str | None = None


class FluxStream:
    """One call's ear."""

    def __init__(self, url: str, key: str, connect_s: float, on_heard: OnHeard) -> None:
        self._key = key
        self._on_heard = on_heard
        self._words = Words()
        # Ends of the last turn that is over, and of what Flux has heard since without finding words.
        self._over_s = self._silent_s = float("-inf")
        self._line = Line(
            url,
            key,
            connect_s,
            lambda connection: AsyncV2SocketClient(websocket=connection),
            self._on_message,
            lambda error: on_heard(Lost(error)),
        )

    def begin(self, utterance: UtteranceId) -> None:
        """Note where it lies."""
        self._words.begin(utterance, self._line.at_s)

    def push(self, pcm: bytes, *, voiced: bool) -> None:
        """Send audio."""
        dropped = self._line.push(pcm)
        if dropped is not None:
            self._words.cut(*dropped)
        if voiced:
            self._words.voiced(self._line.at_s)

    def finish(self) -> None:
        """End the turn, unless Flux has."""
        self._words.finish(self._line.at_s)
        self._settle()
        if self._words.awaited is not None:
            self._line.order(lambda socket: socket.send_force_end_turn())

    def give_up(self, utterance: UtteranceId) -> None:
        """Let its words pass."""
        self._words.give_up(utterance)

    async def aclose(self) -> None:
        """Hang up."""
        await self._line.aclose()

    def _on_message(self, message: object) -> None:
        match getattr(message, "type", None):
            case "TurnInfo":
                self._on_turn(msgspec.convert(message, _Turn, from_attributes=True))
            case "Error":
                code = str(getattr(message, "code", None))
                text = without_key(f"{code}: {getattr(message, 'description', None)}", self._key)
                raise Rejected(text) if "CLIENT" in code else Transient(text)

    def _on_turn(self, turn: _Turn) -> None:
        over = turn.event == "EndOfTurn"
        words = tuple(
            Timed(word.word, word.start, word.end)
            for word in turn.words
            if word.start is not None and word.end is not None
        )
        sure = [word.confidence for word in turn.words if word.confidence is not None]
        # Without times, a turn lies where it ends: its window begins where the one before ended, silence and all.
        start_s = turn.audio_window_end - 2 * _SLACK_S
        piece = Piece(
            turn.transcript.strip(),
            start_s,
            turn.audio_window_end,
            sum(sure) / len(sure) if sure else None,
            words if len(words) == len(turn.words) else (),
        )
        partial = self._words.heard(piece, final=over)
        if partial is not None:
            self._on_heard(partial)
        if over:
            self._over_s = max(self._over_s, turn.audio_window_end)
            if partial is not None and partial.utterance == self._words.unfinished:
                self._on_heard(TurnOver(partial.utterance))
        elif not piece.text:
            self._silent_s = max(self._silent_s, turn.audio_window_end)
        self._settle()

    def _settle(self) -> None:
        for final in self._words.settle(self._sure):
            self._on_heard(final)

    def _sure(self, span: Span) -> bool:
        end_s = span.finished_s or 0.0
        return (
            self._over_s >= end_s - _SLACK_S or self._over_s >= span.voiced_s > span.began_s or self._silent_s >= end_s
        )


class FluxProvider:
    """Deepgram's conversational transcription. Settings as for `DeepgramProvider`."""

    capabilities: Final = SttCapabilities(
        model=MODEL,
        interim_results=True,
        needs_vad_segments=False,
        word_times=True,
        turn_events=True,
        honours=frozenset({"language", "keyterms", "model"}),
    )

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        tls()

    def check(self, stt: Stt) -> None:
        """Check the key, the model's name, the language and the options."""
        access(self._environ)
        _query(stt)

    async def warm_up(self) -> None:
        """Need nothing more."""

    async def warm(self, stt: Stt) -> None:
        """Keep nothing: a stream connects while the agent greets, and audio waits for it."""

    async def open(self, stt: Stt, on_heard: OnHeard) -> SttStream:
        """Return an ear that connects by itself."""
        address, key = access(self._environ)
        return FluxStream(url_of(address, "/v2/listen", _query(stt)), key, stt.timeouts.connect_ms / 1_000, on_heard)

    async def aclose(self) -> None:
        """Hold nothing."""


def _query(stt: Stt) -> Query:
    english = stt.language.split("-")[0].lower() in {"", "en"}
    model = stt.model or (MODEL if english else MULTILINGUAL)
    if not model.startswith("flux"):
        raise Misconfigured("stt.model", f"{model} is served by the provider deepgram")
    if not english and model.endswith("-en"):
        raise Misconfigured("stt.language", f"{model} hears English only; {MULTILINGUAL} hears more")
    return [
        ("model", model),
        ("encoding", "mulaw"),
        ("sample_rate", "8000"),
        *options_of(stt.options, _OPTIONS),
        *(("keyterm", term) for term in stt.keyterms),
        *((("language_hint", stt.language),) if not english else ()),
    ]
