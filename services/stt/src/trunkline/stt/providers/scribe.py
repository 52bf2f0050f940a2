"""ElevenLabs' Scribe: hears all of a call, tells words as they come, and those of an utterance when asked (a commit).

Every commit is answered with one transcript of the audio since the last one, in order. Scribe commits by itself what
has waited for a minute and a half; so that no such transcript comes between ours, long silence is committed, and its
words forgotten.
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from elevenlabs.realtime.scribe import AudioFormat, CommitStrategy
from elevenlabs.types import CommittedTranscriptPayload, PartialTranscriptPayload
from elevenlabs.url_utils import build_ws_url

from trunkline.proto.agent import Option, Stt
from trunkline.proto.ids import UtteranceId
from trunkline.providers.errors import (
    Misconfigured,
    ProviderError,
    Rejected,
    Throttled,
    Transient,
    Unauthorised,
)
from trunkline.providers.keys import BadAddress, MissingKey, address_of, key_of, without_key
from trunkline.providers.sockets import tls
from trunkline.stt.provider import BYTES_PER_S, Failed, Lost, OnHeard, Partial, SttCapabilities, SttStream
from trunkline.stt.provider import Final as FinalWords
from trunkline.stt.providers.scribe_line import Line

MODEL: Final = "scribe_v2_realtime"
MOST_KEYTERMS: Final = 50
LONGEST_KEYTERM: Final = 20
_SILENCE_S: Final = 30.0
_QUIET_S: Final = 1.0


def _is_flag(value: Option) -> bool:
    return isinstance(value, bool)


_OPTIONS: Final[dict[str, Callable[[Option], bool]]] = {
    "no_verbatim": _is_flag,
    "filter_background_audio": _is_flag,
    "enable_logging": _is_flag,
}
_ERRORS: Final[dict[str, Callable[[str], ProviderError]]] = {
    "auth_error": Unauthorised,
    "unaccepted_terms": Unauthorised,
    "quota_exceeded": Throttled,
    "rate_limited": Throttled,
    "resource_exhausted": Throttled,
    "queue_overflow": Throttled,
    "input_error": Rejected,
    "invalid_request": Rejected,
    "chunk_size_exceeded": Rejected,
    "transcriber_error": Transient,
    "error": Transient,
    "session_time_limit_exceeded": lambda text: Transient(text, "dropped"),
    "insufficient_audio_activity": lambda text: Transient(text, "dropped"),
}


class _Commit(NamedTuple):
    """One that is not answered yet."""

    utterance: UtteranceId | None
    """None: nobody waits for its words."""
    before: str
    """Words of the utterance that Scribe committed by itself."""


class ScribeStream:
    """One call's ear."""

    def __init__(self, url: str, key: str, connect_s: float, on_heard: OnHeard) -> None:
        self._key = key
        self._on_heard = on_heard
        self._utterance: UtteranceId | None = None
        self._asked: deque[_Commit] = deque()
        self._before = ""
        self._since_commit_s = 0.0
        self._quiet_s = 0.0
        self._line = Line(url, key, connect_s, self._on_message, lambda error: on_heard(Lost(error)))

    def begin(self, utterance: UtteranceId) -> None:
        """Note it."""
        self._utterance = utterance
        self._before = ""

    def push(self, pcm: bytes, *, voiced: bool) -> None:
        """Send audio."""
        self._line.push(pcm)
        pcm_s = len(pcm) / BYTES_PER_S
        self._since_commit_s += pcm_s
        self._quiet_s = 0.0 if voiced else self._quiet_s + pcm_s
        if self._utterance is None and self._since_commit_s >= _SILENCE_S and self._quiet_s >= _QUIET_S:
            self._commit(None)

    def finish(self) -> None:
        """Commit."""
        if self._utterance is not None:
            utterance, self._utterance = self._utterance, None
            self._commit(utterance)

    def give_up(self, utterance: UtteranceId) -> None:
        """Let its words pass: the transcript comes all the same, and keeps its place."""
        kept = (asked._replace(utterance=None) if asked.utterance == utterance else asked for asked in self._asked)
        self._asked = deque(kept)

    async def aclose(self) -> None:
        """Hang up."""
        await self._line.aclose()

    def _commit(self, utterance: UtteranceId | None) -> None:
        self._asked.append(_Commit(utterance, self._before))
        self._before = ""
        self._since_commit_s = 0.0
        self._line.commit()

    def _on_message(self, message: dict[str, Any]) -> None:
        match message.get("message_type"):
            case "partial_transcript":
                self._on_partial(PartialTranscriptPayload.model_validate(message).text.strip())
            case "committed_transcript":
                self._on_committed(CommittedTranscriptPayload.model_validate(message).text.strip())
            case "commit_throttled":
                self._on_throttled(without_key(f"commit_throttled: {message.get('error')}", self._key))
            case str(kind) if kind in _ERRORS:
                raise _ERRORS[kind](without_key(f"{kind}: {message.get('error')}", self._key))

    def _on_partial(self, text: str) -> None:
        asked = self._asked[0] if self._asked else _Commit(self._utterance, self._before)
        if asked.utterance is not None and text:
            self._on_heard(Partial(asked.utterance, _joined(asked.before, text)))

    def _on_committed(self, text: str) -> None:
        if self._asked:
            asked = self._asked.popleft()
            if asked.utterance is not None:
                self._on_heard(FinalWords(asked.utterance, _joined(asked.before, text)))
        elif self._utterance is not None:
            self._before = _joined(self._before, text)

    def _on_throttled(self, text: str) -> None:
        """Too little audio since the last commit: there is nothing to add to what was committed, if anything was."""
        if self._asked and self._asked[0].before:
            self._on_committed("")
        elif self._asked and (utterance := self._asked.popleft().utterance) is not None:
            self._on_heard(Failed(utterance, Throttled(text)))


class ScribeProvider:
    """Scribe, live. `ELEVENLABS_API_KEY` and, for other than its public address, `ELEVENLABS_BASE_URL`."""

    capabilities: Final = SttCapabilities(
        model=MODEL,
        interim_results=True,
        needs_vad_segments=False,
        honours=frozenset({"language", "keyterms", "model"}),
    )

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        tls()

    def check(self, stt: Stt) -> None:
        """Check the key, the model's name, the key terms and the options."""
        self._asked(stt)

    async def warm_up(self) -> None:
        """Need nothing more."""

    async def warm(self, stt: Stt) -> None:
        """Keep nothing: a stream connects while the agent greets, and audio waits for it."""

    async def open(self, stt: Stt, on_heard: OnHeard) -> SttStream:
        """Return an ear that connects by itself."""
        url, key = self._asked(stt)
        return ScribeStream(url, key, stt.timeouts.connect_ms / 1_000, on_heard)

    async def aclose(self) -> None:
        """Hold nothing."""

    def _asked(self, stt: Stt) -> tuple[str, str]:
        try:
            address = address_of("elevenlabs", self._environ, "https://api.elevenlabs.io")
            key = key_of("elevenlabs", self._environ)
        except MissingKey as error:
            raise Misconfigured(error.variable, str(error)) from error
        except BadAddress as error:
            raise Misconfigured("ELEVENLABS_BASE_URL", str(error)) from error
        return build_ws_url(address, ["v1", "speech-to-text", "realtime"], _query(stt)), key


def _query(stt: Stt) -> list[tuple[str, str]]:
    model = stt.model or MODEL
    if not model.endswith("_realtime"):
        raise Misconfigured("stt.model", f"{model} does not listen live; {MODEL} does")
    if len(stt.keyterms) > MOST_KEYTERMS:
        raise Misconfigured("stt.keyterms", f"more than {MOST_KEYTERMS}")
    for term in stt.keyterms:
        if not 0 < len(term) <= LONGEST_KEYTERM:
            raise Misconfigured("stt.keyterms", f"{term!r} has not 1 to {LONGEST_KEYTERM} characters")
    language = stt.language.partition("-")[0].lower()
    if language and not (language.isascii() and language.isalpha() and len(language) in {2, 3}):
        raise Misconfigured("stt.language", f"{stt.language} is no ISO 639 code")
    query = [
        ("model_id", model),
        ("audio_format", AudioFormat.ULAW_8000.value),
        ("commit_strategy", CommitStrategy.MANUAL.value),
        *([("language_code", language)] if language else []),
        *(("keyterms", term) for term in stt.keyterms),
    ]
    for name, value in stt.options.items():
        if name not in _OPTIONS:
            raise Misconfigured(f"stt.options.{name}", f"unknown; expected one of {', '.join(sorted(_OPTIONS))}")
        if not _OPTIONS[name](value):
            raise Misconfigured(f"stt.options.{name}", f"cannot be {value!r}")
        query.append((name, str(value).lower()))
    return query


def _joined(first: str, second: str) -> str:
    return f"{first} {second}".strip()
