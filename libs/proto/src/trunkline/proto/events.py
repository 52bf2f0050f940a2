"""Lifecycle facts on JetStream: what happened in a call, for records and webhooks."""

from typing import Literal

import msgspec

from trunkline.proto.ids import CallId, Epoch, Generation, Stage, ToolCallId, TurnId, UtteranceId, WorkerId
from trunkline.proto.messages import Used


class CallStarted(msgspec.Struct, frozen=True, kw_only=True, tag="call.started"):
    """The carrier's stream is open and the agent is known. Exactly one per call."""

    agent: str
    carrier: str
    carrier_call: str
    edge: WorkerId
    direction: Literal["inbound", "outbound"] = "inbound"


class StageAssigned(msgspec.Struct, frozen=True, kw_only=True, tag="stage.assigned"):
    """A worker took the call for its stage."""

    stage: Stage
    worker: WorkerId
    epoch: Epoch
    claim_ms: float


class StageLost(msgspec.Struct, frozen=True, kw_only=True, tag="stage.lost"):
    """The worker of a stage is gone."""

    stage: Stage
    worker: WorkerId
    epoch: Epoch
    reason: str


class CallResumed(msgspec.Struct, frozen=True, kw_only=True, tag="call.resumed"):
    """The caller came back on a new line, to whichever edge: the same call, the same conversation."""

    edge: WorkerId
    before: WorkerId
    """The edge that had the call until then."""
    away_ms: int
    """From the last that is known of the old line to the first of the new one."""
    planned: bool
    """Whether the old edge gave the call away, rather than lose it."""


class StageSettled(msgspec.Struct, frozen=True, kw_only=True, tag="stage.settled"):
    """A worker that lost its edge let the call go, and this is what it used: so that whoever ends the call can bill."""

    stage: Stage
    epoch: Epoch
    used: tuple[Used, ...]


class CallerSpoke(msgspec.Struct, frozen=True, kw_only=True, tag="caller.spoke"):
    """The caller's turn, as transcribed. Empty when there was sound but no words."""

    turn: TurnId
    utterances: tuple[UtteranceId, ...]
    text: str
    onset_at: float
    offset_at: float


class AgentSpoke(msgspec.Struct, frozen=True, kw_only=True, tag="agent.spoke"):
    """The agent's turn is over: all it meant to say, and what of it the caller heard."""

    turn: TurnId
    generation: Generation
    said: str
    heard: str
    interrupted: bool
    started_at: float
    ended_at: float


class CallerBargedIn(msgspec.Struct, frozen=True, kw_only=True, tag="caller.barged-in"):
    """The caller spoke while the agent did; generations below `generation` are void."""

    turn: TurnId
    generation: Generation
    onset_at: float
    at: float


class ToolCalled(msgspec.Struct, frozen=True, kw_only=True, tag="tool.called"):
    """A tool is about to run. `arguments` is JSON text."""

    turn: TurnId
    tool_call: ToolCallId
    name: str
    arguments: str


class ToolReturned(msgspec.Struct, frozen=True, kw_only=True, tag="tool.returned"):
    """A tool has answered (`result`, JSON text) or failed (`error`)."""

    turn: TurnId
    tool_call: ToolCallId
    name: str
    took_ms: float
    result: str = ""
    error: str = ""


class TurnMeasured(msgspec.Struct, frozen=True, kw_only=True, tag="turn.measured"):
    """Where a turn's time went, from the caller's last sound to the agent's first; the parts sum to the whole."""

    turn: TurnId
    generation: Generation
    endpoint_delay_ms: float
    stt_final_ms: float
    llm_ttft_ms: float
    first_sentence_ms: float
    tts_ttfb_ms: float
    edge_ms: float
    turn_latency_ms: float


class ProviderFailed(msgspec.Struct, frozen=True, kw_only=True, tag="provider.failed"):
    """An attempt at a provider failed. `text` is the provider's own, shortened and without keys."""

    stage: Stage
    provider: str
    """Its name, and the endpoint after a slash where it has several."""
    model: str
    kind: str
    """``connect``, ``first-byte``, ``stall``, ``dropped``, ``server``, ``throttled``, ``unauthorised``, ``rejected``,
    ``malformed``, ``silent``, ``breaker-open`` or ``internal``."""
    text: str
    attempt: int
    """Counted from 1 over all providers tried for this request."""
    then: Literal["retry", "fallback", "apology", "nothing"]
    """What the caller got: another attempt, another provider, our apology, or nothing yet."""
    to: str = ""
    """The provider tried next."""


class CostItem(msgspec.Struct, frozen=True, kw_only=True):
    """What one provider of one stage has cost in a call."""

    stage: Stage
    provider: str
    model: str = ""
    audio_s: float = 0.0
    characters: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0
    priced: bool = True
    estimated: bool = False


class CallBilled(msgspec.Struct, frozen=True, kw_only=True, tag="call.billed"):
    """What the call's providers have cost, by the price table. Just before `CallEnded`."""

    items: tuple[CostItem, ...]
    usd: float
    complete: bool = True
    """Whether every item is priced and every worker has told its last."""


class KeyPressed(msgspec.Struct, frozen=True, kw_only=True, tag="key.pressed"):
    """The caller pressed a key."""

    digit: str
    at: float


class CallEnded(msgspec.Struct, frozen=True, kw_only=True, tag="call.ended"):
    """The call is over. Exactly one per call, and the last fact of it."""

    reason: str
    duration_s: float
    frames_in: int = 0
    audio_ms_out: int = 0


Fact = (
    CallStarted
    | StageAssigned
    | StageLost
    | CallResumed
    | StageSettled
    | CallerSpoke
    | AgentSpoke
    | CallerBargedIn
    | ToolCalled
    | ToolReturned
    | TurnMeasured
    | ProviderFailed
    | KeyPressed
    | CallBilled
    | CallEnded
)


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A fact with its envelope. `id` is the same on every delivery: drop what you have seen."""

    id: str
    call: CallId
    wall_at: float
    fact: Fact
    tenant: str = "default"


def kind_of(fact: Fact) -> str:
    """Return the tag of `fact`, for example ``call.started``."""
    return str(type(fact).__struct_config__.tag)
