"""Deepgram's nova: hears all of a call, tells words as they come, and the rest when asked to (``Finalize``).

An utterance is known when a result that will not change any more covers it: the answer to ``Finalize``, or, when that
has nothing to add and does not come, the result of a pause that began after the caller's last voice.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
from deepgram.listen.v1.socket_client import AsyncV1SocketClient

from trunkline.proto.agent import Option, Stt
from trunkline.proto.ids import UtteranceId
from trunkline.providers.errors import Misconfigured, Rejected, Transient
from trunkline.providers.keys import without_key
from trunkline.providers.sockets import tls
from trunkline.stt.provider import Lost, OnHeard, SttCapabilities, SttStream
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

MODEL: Final = "nova-3"
_PAUSE_MS: Final = 300
_FINALIZED_SLACK_S: Final = 0.3
_PAUSE_SLACK_S: Final = 0.1
_FIXED_SLACK_S: Final = 0.2
"""Voice detectors hear a voice a little longer than it lasts; Deepgram's frames and ours do not end together."""


def _is_pause(value: Option) -> bool:
    return value is False or within(10, 5_000)(value)


_OPTIONS: Final = {
    "endpointing": _is_pause,
    "smart_format": is_flag,
    "punctuate": is_flag,
    "numerals": is_flag,
    "profanity_filter": is_flag,
    "dictation": is_flag,
    "mip_opt_out": is_flag,
    "redact": is_text,
    "tag": is_text,
    "version": is_text,
}


class _Word(msgspec.Struct):
    word: str
    start: float
    end: float
    punctuated_word: str | None = None


class _Alternative(msgspec.Struct):
    transcript: str
    confidence: float | None = None
    words: list[_Word] = []


class _Channel(msgspec.Struct):
    alternatives: list[_Alternative] = []


class _Results(msgspec.Struct):
    start: float
    duration: float
    channel: _Channel
    is_final: bool | None = None
    speech_final: bool | None = None
    from_finalize: bool | None = None


class DeepgramStream:
    """One call's ear."""

    def __init__(self, url: str, key: str, connect_s: float, on_heard: OnHeard) -> None:
        self._key = key
        self._on_heard = on_heard
        self._words = Words()
        # Ends of the last result that will not change, of the last before a pause, and of the last answer to Finalize.
        self._fixed_s = self._pause_s = self._finalized_s = float("-inf")
        self._line = Line(
            url,
            key,
            connect_s,
            lambda connection: AsyncV1SocketClient(websocket=connection),
            self._on_message,
            lambda error: on_heard(Lost(error)),
            lambda socket: socket.send_keep_alive(),
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
        """Ask for the rest, unless it is known."""
        self._words.finish(self._line.at_s)
        self._settle()
        if self._words.awaited is not None:
            self._line.order(lambda socket: socket.send_finalize())

    def give_up(self, utterance: UtteranceId) -> None:
        """Let its words pass."""
        self._words.give_up(utterance)

    async def aclose(self) -> None:
        """Hang up."""
        await self._line.aclose()

    def _on_message(self, message: object) -> None:
        match getattr(message, "type", None):
            case "Results":
                self._on_results(msgspec.convert(message, _Results, from_attributes=True))
            case "Error":
                variant = str(getattr(message, "variant", None) or getattr(message, "code", None))
                text = without_key(f"{variant}: {getattr(message, 'description', None)}", self._key)
                raise Rejected(text) if variant == "SchemaError" else Transient(text)

    def _on_results(self, results: _Results) -> None:
        end_s = results.start + results.duration
        if results.channel.alternatives:
            best = results.channel.alternatives[0]
            words = tuple(Timed(word.punctuated_word or word.word, word.start, word.end) for word in best.words)
            piece = Piece(best.transcript.strip(), results.start, end_s, best.confidence, words)
            partial = self._words.heard(piece, final=bool(results.is_final))
            if partial is not None:
                self._on_heard(partial)
        if results.is_final:
            self._fixed_s = max(self._fixed_s, end_s)
            if results.from_finalize:
                self._finalized_s = max(self._finalized_s, end_s)
            if results.speech_final:
                self._pause_s = max(self._pause_s, end_s)
            self._settle()

    def _settle(self) -> None:
        for final in self._words.settle(self._sure):
            self._on_heard(final)

    def _sure(self, span: Span) -> bool:
        end_s = span.finished_s or 0.0
        return (
            self._finalized_s >= end_s - _FINALIZED_SLACK_S
            or self._fixed_s >= min(end_s, span.voiced_s + _FIXED_SLACK_S)
            or self._pause_s >= span.voiced_s - _PAUSE_SLACK_S
        )


class DeepgramProvider:
    """Deepgram's live transcription. `DEEPGRAM_API_KEY` and, for other than its public address, `DEEPGRAM_BASE_URL`."""

    capabilities: Final = SttCapabilities(
        model=MODEL,
        interim_results=True,
        needs_vad_segments=False,
        word_times=True,
        honours=frozenset({"language", "keyterms", "model"}),
    )

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        tls()

    def check(self, stt: Stt) -> None:
        """Check the key, the model's name and the options."""
        access(self._environ)
        _query(stt)

    async def warm_up(self) -> None:
        """Need nothing more."""

    async def warm(self, stt: Stt) -> None:
        """Keep nothing: a stream connects while the agent greets, and audio waits for it."""

    async def open(self, stt: Stt, on_heard: OnHeard) -> SttStream:
        """Return an ear that connects by itself."""
        address, key = access(self._environ)
        return DeepgramStream(
            url_of(address, "/v1/listen", _query(stt)), key, stt.timeouts.connect_ms / 1_000, on_heard
        )

    async def aclose(self) -> None:
        """Hold nothing."""


def _query(stt: Stt) -> Query:
    model = stt.model or MODEL
    if model.startswith("flux"):
        raise Misconfigured("stt.model", f"{model} is served by the provider deepgram-flux")
    if stt.keyterms and not model.startswith("nova-3"):
        raise Misconfigured("stt.keyterms", f"{model} takes none; nova-3 does")
    options = {"endpointing": _PAUSE_MS, "smart_format": True, **stt.options}
    return [
        ("model", model),
        ("encoding", "mulaw"),
        ("sample_rate", "8000"),
        ("language", stt.language),
        ("interim_results", "true"),
        *options_of(options, _OPTIONS),
        *(("keyterm", term) for term in stt.keyterms),
    ]
