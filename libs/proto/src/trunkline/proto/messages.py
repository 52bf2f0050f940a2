"""Messages of a call. One struct per message, one union per subject; JSON on the wire.

Facts are in the past tense, orders in the imperative. Times named ``*_at`` are wall-clock seconds since 1970 (so that
processes on different machines can be compared as well as their clocks agree); ``*_ms`` are durations or positions in
the caller's audio stream.
"""

from typing import Literal

import msgspec

from trunkline.proto.agent import Agent, Tts
from trunkline.proto.ids import CallId, Epoch, Generation, Seq, Stage, UtteranceId, WorkerId


class Claimed(msgspec.Struct, frozen=True, kw_only=True, tag="claimed"):
    """The call is this worker's: it is subscribed to all it needs."""

    worker: WorkerId
    free: int


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """The worker cannot serve this call; `retry` says whether another might."""

    worker: WorkerId
    reason: str
    retry: bool = True


ClaimReply = Claimed | Refused


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """Edge → worker: the call is over for you."""

    call: CallId
    epoch: Epoch
    reason: str = "call-ended"
    goes_on: bool = False
    """Whether the call itself goes on, with somebody else in your place: what is left to say of it is theirs."""


class Released(msgspec.Struct, frozen=True, kw_only=True):
    """The worker has let the call go and its events are stored; `known` is false when it did not hold it."""

    known: bool


class Missed(msgspec.Struct, frozen=True, kw_only=True):
    """Edge → TTS: of the audio of this epoch, chunk `seq` has not come; send it again, and what you sent after it."""

    call: CallId
    epoch: Epoch
    seq: Seq


class Holds(msgspec.Struct, frozen=True, kw_only=True):
    """Worker → edge: the calls of yours that I hold, with the epoch of each. Sent every few seconds."""

    worker: WorkerId
    stage: Stage
    calls: tuple[tuple[CallId, Epoch], ...]


class Disowned(msgspec.Struct, frozen=True, kw_only=True):
    """The calls of a `Holds` that are not that worker's: over, or somebody else's by now."""

    calls: tuple[CallId, ...]


class HandOver(msgspec.Struct, frozen=True, kw_only=True):
    """Worker → edge: I am to stop; have this call served by somebody else. Nothing is half heard or half said."""

    call: CallId
    stage: Stage
    epoch: Epoch
    worker: WorkerId


class HandedOver(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody else has the call, and a `Release` follows; or nobody is free (`problem`), and you keep it."""

    problem: str = ""


class Alive(msgspec.Struct, frozen=True, kw_only=True):
    """Heartbeat of a process, five a second. `alive.<stage>.<worker>`."""

    worker: WorkerId
    stage: str
    calls: int
    capacity: int
    draining: bool = False


# --- call.<id>.speech: STT → brain -----------------------------------------------------------------------------------


class SpeechStarted(msgspec.Struct, frozen=True, kw_only=True, tag="speech-started"):
    """The caller began to speak.

    `onset_at` is the capture time of the first voiced frame, `judged_at` when that was sure (0: the sender is older).
    """

    epoch: Epoch
    utterance: UtteranceId
    onset_at: float
    judged_at: float = 0.0


class PartialTranscript(msgspec.Struct, frozen=True, kw_only=True, tag="partial"):
    """Words so far, may be revised."""

    epoch: Epoch
    utterance: UtteranceId
    text: str


class SpeechStopped(msgspec.Struct, frozen=True, kw_only=True, tag="speech-stopped"):
    """The caller's silence has been judged long enough; the words are still being found. `TurnEnded` follows."""

    epoch: Epoch
    utterance: UtteranceId
    endpoint_at: float


class FinalTranscript(msgspec.Struct, frozen=True, kw_only=True, tag="final"):
    """Words that stand. `committed` is the seq up to which the audio is done with and need not be replayed."""

    epoch: Epoch
    utterance: UtteranceId
    text: str
    committed: Seq
    onset_at: float
    offset_at: float
    confidence: float | None = None


class TurnEnded(msgspec.Struct, frozen=True, kw_only=True, tag="turn-ended"):
    """The caller has finished; the floor is the agent's. Follows the utterance's final words, if it had any.

    `speech_ended_at` is the capture time of the last voiced frame, `endpoint_at` when the silence was judged long
    enough, `final_at` when the words stood.
    """

    epoch: Epoch
    utterance: UtteranceId
    speech_ended_at: float
    endpoint_at: float
    final_at: float
    failed: bool = False
    """No provider could find the words, if there were any."""
    committed: Seq = Seq(-1)
    """As of `FinalTranscript`, for an utterance that had no words either; -1: not told."""


SpeechMessage = SpeechStarted | PartialTranscript | SpeechStopped | FinalTranscript | TurnEnded


# --- call.<id>.speak: brain → TTS ------------------------------------------------------------------------------------


class Say(msgspec.Struct, frozen=True, kw_only=True, tag="say"):
    """Say this sentence, or the next piece of one. Utterances are spoken in the order in which they begin.

    A sentence the model is still writing comes in pieces, all but the last with `goes_on`; put together as they are
    (white space included) they make its text. The last piece may be empty.
    """

    epoch: Epoch
    generation: Generation
    utterance: UtteranceId
    text: str
    goes_on: bool = False
    filler_at: float = 0.0
    """When the caller should hear something at the latest, for the first sentence of an answer: if this one has no
    sound by then, a filler is to be played before it. 0: never."""
    voice: Epoch = Epoch(0)
    """Epoch of the TTS worker that is meant; another one lets it be, since it will be said again. 0: whoever hears."""
    at: int = 0
    """How many characters the pieces before this one have: who has not got as many does not know how it begins."""


# --- call.<id>.spoken: TTS → brain -----------------------------------------------------------------------------------


class WordsTimed(msgspec.Struct, frozen=True, kw_only=True, tag="words-timed"):
    """How far the utterance's text is spoken at which point of its audio: ``(characters, ms)``, both rising.

    Each message has the points known so far that no earlier one had.
    """

    epoch: Epoch
    generation: Generation
    utterance: UtteranceId
    points: tuple[tuple[int, int], ...]


class SpeakingFailed(msgspec.Struct, frozen=True, kw_only=True, tag="speaking-failed"):
    """No provider could speak the utterance, or only its beginning; `instead` is what the caller heard of ours."""

    epoch: Epoch
    generation: Generation
    utterance: UtteranceId
    instead: Literal["", "apology"] = ""


SpokenMessage = WordsTimed | SpeakingFailed


# --- call.<id>.usage: workers → edge ---------------------------------------------------------------------------------


class Used(msgspec.Struct, frozen=True, kw_only=True, tag="used"):
    """What a worker has used of a provider in this call so far, and what that costs by the price table.

    Cumulative for its (stage, epoch, provider, model): the newest of these replaces the one before.
    """

    stage: Stage
    epoch: Epoch
    provider: str
    model: str = ""
    audio_s: float = 0.0
    characters: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0
    priced: bool = True
    """False when the price table does not know the model: `usd` is 0 then, and not the truth."""
    estimated: bool = False
    """Whether a quantity was counted by us because the provider did not tell."""


# --- call.<id>.interrupt ---------------------------------------------------------------------------------------------


class Interrupt(msgspec.Struct, frozen=True, kw_only=True, tag="interrupt"):
    """Speech of generations below `generation` is void: stop making it, drop it, empty the carrier's buffer."""

    epoch: Epoch
    generation: Generation
    reason: Literal["barge-in", "resumed-turn", "overdue"]
    onset_at: float = 0.0


# --- call.<id>.playout: edge → brain ---------------------------------------------------------------------------------


class PlayoutStarted(msgspec.Struct, frozen=True, kw_only=True, tag="playout-started"):
    """The first audio of an utterance left for the carrier."""

    generation: Generation
    utterance: UtteranceId
    synthesised_at: float
    sent_at: float


class PlayoutFinished(msgspec.Struct, frozen=True, kw_only=True, tag="playout-finished"):
    """The caller has heard the whole utterance: its mark came back, with no clear in between."""

    generation: Generation
    utterance: UtteranceId
    heard_ms: int


class PlayoutCut(msgspec.Struct, frozen=True, kw_only=True, tag="playout-cut"):
    """An interrupt ended the utterance early. `total_ms` is what had come from TTS; `complete` when that was all."""

    generation: Generation
    utterance: UtteranceId
    heard_ms: int
    total_ms: int
    complete: bool


class Reached(msgspec.Struct, frozen=True, kw_only=True):
    """How much of an utterance's audio has reached the edge; `complete` when that was all of it."""

    generation: Generation
    utterance: UtteranceId
    queued_ms: int
    complete: bool


class VoiceChanged(msgspec.Struct, frozen=True, kw_only=True, tag="voice-changed"):
    """Another TTS worker speaks from now on, and knows nothing of what the last one was given.

    `reached` names every utterance of which the edge has audio that has not been reported finished or cut. Those not
    `complete` end where their audio ends, and are reported cut when that has played. What is not named has no audio.
    """

    voice: Epoch
    """The epoch of the one who speaks now."""
    reached: tuple[Reached, ...]


PlayoutMessage = PlayoutStarted | PlayoutFinished | PlayoutCut | VoiceChanged


# --- call.<id>.control, call.<id>.dtmf -------------------------------------------------------------------------------


class HangUp(msgspec.Struct, frozen=True, kw_only=True, tag="hang-up"):
    """End the call, for `reason` (an ended-reason of the events)."""

    epoch: Epoch
    generation: Generation
    reason: str


class WindUp(msgspec.Struct, frozen=True, kw_only=True, tag="wind-up"):
    """Edge → brain: bring the call to a polite end. The edge ends it itself if that takes long."""

    reason: str


ControlMessage = HangUp | WindUp


class DigitPressed(msgspec.Struct, frozen=True, kw_only=True, tag="digit"):
    """The caller pressed a key: one of 0-9 * # A-D."""

    digit: str
    at: float


# --- who serves a call -----------------------------------------------------------------------------------------------


class Assigned(msgspec.Struct, frozen=True, kw_only=True):
    """Edge → all: this worker speaks for a stage of the call from now on; whatever a lower epoch says is void."""

    stage: Stage
    epoch: Epoch
    worker: WorkerId


class Uttered(msgspec.Struct, frozen=True, kw_only=True):
    """A sentence of the agent's, as far as the edge knows: what was ordered of it, and how much the caller heard."""

    generation: Generation
    utterance: UtteranceId
    text: str
    """What was ordered of it so far; empty for what the edge says by itself."""
    open: bool = False
    """Whether more of its text was to come."""
    fate: Literal["waiting", "playing", "finished", "cut"] = "waiting"
    """No audio of it has come; some has, and it plays or will; it was heard whole; it ended early."""
    complete: bool = False
    """Whether all of its audio has come."""
    lost: bool = False
    """Whether what is missing of its audio will never come: whoever was to speak it is gone."""
    queued_ms: int = 0
    heard_ms: int = 0
    points: tuple[tuple[int, int], ...] = ()
    """As of `WordsTimed`."""


class Recap(msgspec.Struct, frozen=True, kw_only=True):
    """The newest of a call, as the edge has seen it go by: for a brain that takes over in its midst."""

    speech: tuple[SpeechMessage, ...] = ()
    """Of the newest utterances of the caller's, in the order in which it came; without partial words."""
    said: tuple[Uttered, ...] = ()
    """The newest sentences of the agent's, in the order in which they were begun."""
    digits: tuple[DigitPressed, ...] = ()
    winding_up: str = ""
    """Why the call is to be brought to an end, if it is."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Edge → a worker of a stage: take this call.

    The agent travels whole, so a call keeps the agent it began with, whatever happens to the file, and workers need
    no agent store.
    """

    call: CallId
    stage: Stage
    epoch: Epoch
    edge: WorkerId
    agent: Agent
    generation: Generation = Generation(0)
    """Highest generation the edge has seen; a worker that takes over begins above it."""
    tenant: str = "default"
    started_at: float = 0.0
    """When the call began, for durations that survive a take-over."""
    greeting: UtteranceId = UtteranceId(0)
    """The edge plays the agent's greeting already, as this utterance of `generation`; 0: it is still to be said."""
    asked_at: float = 0.0
    """When the edge asked: who reads a claim seconds later must not take it any more. 0: not told."""
    voice: Epoch = Epoch(0)
    """For a brain: the epoch of the TTS worker that speaks in this call."""
    recap: Recap | None = None
    """What a brain has to know that takes over from another; None for a call that begins."""
    line: Literal["", "moved", "lost"] = ""
    """Whether the caller came back on a new line: what the old one had not played is gone. ``moved`` was our doing and
    the caller need not be told; after ``lost`` they are."""


# --- before and beside a call ----------------------------------------------------------------------------------------


class Ringing(msgspec.Struct, frozen=True, kw_only=True):
    """Edge → all workers: a call for this agent is about to begin. Whoever can opens connections now."""

    agent: Agent


class MakeClip(msgspec.Struct, frozen=True, kw_only=True):
    """Edge → any TTS worker: have `text` in this voice among the clips, unless it is there."""

    tts: Tts
    text: str


class ClipMade(msgspec.Struct, frozen=True, kw_only=True):
    """It is there under its key (`clips.key_of`), or not: `problem` says why."""

    problem: str = ""
