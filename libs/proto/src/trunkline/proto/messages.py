"""Messages of a call. One struct per message, one union per subject; JSON on the wire.

Facts are in the past tense, orders in the imperative. Times named ``*_at`` are wall-clock seconds since 1970 (so that
processes on different machines can be compared as well as their clocks agree); ``*_ms`` are durations or positions in
the caller's audio stream.
"""

from typing import Literal

import msgspec

from trunkline.proto.agent import Agent
from trunkline.proto.ids import CallId, Epoch, Generation, Seq, Stage, UtteranceId, WorkerId


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Edge → any free worker of a stage: take this call.

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


class Released(msgspec.Struct, frozen=True, kw_only=True):
    """The worker has let the call go and its events are stored; `known` is false when it did not hold it."""

    known: bool


class Holds(msgspec.Struct, frozen=True, kw_only=True):
    """Worker → edge: the calls of yours that I hold, with the epoch of each. Sent every few seconds."""

    worker: WorkerId
    stage: Stage
    calls: tuple[tuple[CallId, Epoch], ...]


class Disowned(msgspec.Struct, frozen=True, kw_only=True):
    """The calls of a `Holds` that are not that worker's: over, or somebody else's by now."""

    calls: tuple[CallId, ...]


class Alive(msgspec.Struct, frozen=True, kw_only=True):
    """Heartbeat of a process, five a second. `alive.<stage>.<worker>`."""

    worker: WorkerId
    stage: str
    calls: int
    capacity: int
    draining: bool = False


# --- call.<id>.speech: STT → brain -----------------------------------------------------------------------------------


class SpeechStarted(msgspec.Struct, frozen=True, kw_only=True, tag="speech-started"):
    """The caller began to speak. `onset_at` is the capture time of the first voiced frame."""

    epoch: Epoch
    utterance: UtteranceId
    onset_at: float


class PartialTranscript(msgspec.Struct, frozen=True, kw_only=True, tag="partial"):
    """Words so far, may be revised."""

    epoch: Epoch
    utterance: UtteranceId
    text: str


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


SpeechMessage = SpeechStarted | PartialTranscript | FinalTranscript | TurnEnded


# --- call.<id>.speak: brain → TTS ------------------------------------------------------------------------------------


class Say(msgspec.Struct, frozen=True, kw_only=True, tag="say"):
    """Say this sentence. Utterances are spoken in the order in which they come."""

    epoch: Epoch
    generation: Generation
    utterance: UtteranceId
    text: str


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


PlayoutMessage = PlayoutStarted | PlayoutFinished | PlayoutCut


# --- call.<id>.control, call.<id>.dtmf -------------------------------------------------------------------------------


class HangUp(msgspec.Struct, frozen=True, kw_only=True, tag="hang-up"):
    """End the call, for `reason` (an ended-reason of the events)."""

    epoch: Epoch
    generation: Generation
    reason: str


class DigitPressed(msgspec.Struct, frozen=True, kw_only=True, tag="digit"):
    """The caller pressed a key: one of 0-9 * # A-D."""

    digit: str
    at: float
