"""What the report of a call says: the shape of ``report.json``.

Positions (``*_ms`` of a moment) count milliseconds from the first sample of the recording; what was *measured* was
measured on the recording, that is, on what the caller said and heard, not on what a service claims about itself.
"""

import msgspec

from trunkline.call import Verdict
from trunkline.proto.events import CostItem, Event


class Partial(msgspec.Struct, frozen=True, kw_only=True):
    """Words so far, when they came."""

    at_ms: int
    text: str


class CallerPart(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller said in a turn."""

    said_by_scenario: str
    """What the simulated caller was told to say: the truth that the transcript is held against."""
    transcript: str
    wer: float
    """Word error rate: words wrong, missing or too many, as a share of those said."""
    partials: tuple[Partial, ...]
    final_ms: int | None
    """When the last final transcript of the turn came."""
    onset_ms: int
    offset_ms: int
    """First and last sound of the caller, on the left channel."""


class Sentence(msgspec.Struct, frozen=True, kw_only=True):
    """One utterance of the agent."""

    utterance: int
    generation: int
    text: str
    starts_ms: int
    ends_ms: int
    """Where its last audible sample is, measured; `starts_ms` if none of it was heard."""
    unheard_ms: int = 0
    """How much of it an interrupt took away; an estimate for what had not been synthesised."""


class AgentPart(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent said in a turn."""

    said: str
    """All it meant to say."""
    heard: str
    """What of it the caller heard."""
    interrupted: bool
    starts_ms: int
    ends_ms: int
    sentences: tuple[Sentence, ...]


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time between the caller's last sound and the agent's first went."""

    endpoint_delay_ms: float
    stt_final_ms: float
    llm_ttft_ms: float
    first_sentence_ms: float
    tts_ttfb_ms: float
    edge_ms: float
    turn_latency_ms: float
    """Sum of the parts, as the services measured it."""
    measured_ms: int | None
    """The same between the two sounds on the recording; None if the agent was not heard after the caller."""


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """The caller's words and the agent's answer. Turn 0 is the greeting: nobody has spoken before it."""

    turn: int
    caller: CallerPart | None
    agent: AgentPart | None
    latency: Latency | None


class BargeIn(msgspec.Struct, frozen=True, kw_only=True):
    """The caller spoke over the agent."""

    turn: int
    at_ms: int
    """The caller's first sound."""
    cleared_ms: int
    """When the carrier was told to drop what it had not played."""
    stopped_after_ms: int
    """From the caller's first sound to the agent's last."""
    generation: int
    """Generations below it are void."""
    old_generation_audio_after_clear_ms: int
    """Voiced agent audio the caller heard after the clear and before the next answer began: must be 0."""


class ToolUse(msgspec.Struct, frozen=True, kw_only=True):
    """A tool the agent called. `arguments` and `result` are what went in and came out."""

    turn: int
    name: str
    called_ms: int
    took_ms: float
    arguments: object
    result: object
    error: str


class SeenEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A fact as it was published, and when on the recording it happened."""

    at_ms: int
    event: Event


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """How loud a channel is, over the stretches where it carries voice."""

    rms_dbfs: float
    peak_dbfs: float
    voiced_ms: int


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """The recording beside the report."""

    file: str
    sample_rate_hz: int
    duration_ms: int
    caller: Level
    """Left channel."""
    agent: Level
    """Right channel: what the caller heard, not what was sent."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What the call's providers cost, by the price table; see `trunkline.proto.events.CallBilled`."""

    usd: float
    complete: bool
    items: tuple[CostItem, ...]


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A provider that failed, when, and what the caller got."""

    at_ms: int
    stage: str
    provider: str
    kind: str
    then: str
    to: str


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """The call in a few numbers."""

    caller_turns: int
    barge_ins: int
    tool_calls: int
    mean_wer: float
    worst_wer: float
    p50_turn_latency_ms: float | None
    worst_turn_latency_ms: float | None
    p50_measured_latency_ms: float | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one call. A verdict has ``passed`` null when it could not be judged."""

    call: str
    agent: str
    scenario: str
    started_at: str
    """UTC, ISO 8601."""
    ended_at: str
    duration_s: float
    ended_reason: str
    recording: Recording
    turns: tuple[Turn, ...]
    interrupts: tuple[BargeIn, ...]
    tools: tuple[ToolUse, ...]
    verdicts: tuple[Verdict, ...]
    totals: Totals
    cost: Cost | None
    """None when no provider was used that could cost anything."""
    failures: tuple[Failure, ...]
    events: tuple[SeenEvent, ...]

    @property
    def passed(self) -> bool:
        """Whether every expectation held."""
        return all(verdict.passed is not False for verdict in self.verdicts)
