"""What the conversation is told and what it orders. Pure data.

Besides these, the conversation is told the messages of the bus as they are: speech, playout and keys.
"""

from typing import Literal

import msgspec

from trunkline.brain.llm import Message, ToolCall
from trunkline.brain.snapshot import Snapshot
from trunkline.proto.events import Fact
from trunkline.proto.ids import Epoch, Generation, ToolCallId, TurnId, UtteranceId
from trunkline.proto.messages import (
    ControlMessage,
    DigitPressed,
    PlayoutCut,
    PlayoutFinished,
    PlayoutMessage,
    PlayoutStarted,
    Recap,
    SpeechMessage,
    SpokenMessage,
)

Timer = Literal["silence", "playout", "duration", "keys", "thought", "hang-up", "filler"]

# --- told ------------------------------------------------------------------------------------------------------------


class Opened(msgspec.Struct, frozen=True):
    """The call is ours. `generation` is the highest one anybody has seen; `voice` says which TTS worker speaks.

    With `greeting`, the edge is saying the agent's greeting already, as that utterance of `generation`.
    """

    generation: Generation
    greeting: UtteranceId = UtteranceId(0)
    voice: Epoch = Epoch(0)


class TookOver(msgspec.Struct, frozen=True, kw_only=True):
    """The call is ours, and somebody else had it before; `generation` is the highest one anybody has seen.

    `snapshot` is what they kept, `recap` what the edge saw go by; the rest is as of the claim.
    """

    generation: Generation
    snapshot: Snapshot | None = None
    recap: Recap | None = None
    line: Literal["", "moved", "lost"] = ""
    greeting: UtteranceId = UtteranceId(0)
    voice: Epoch = Epoch(0)


class ThoughtCame(msgspec.Struct, frozen=True):
    """The model streamed some text in answer to `Think` number `thought`."""

    thought: int
    text: str


class ToolWanted(msgspec.Struct, frozen=True):
    """The model asked for a tool in answer to `Think` number `thought`."""

    thought: int
    call: ToolCall


class ThoughtEnded(msgspec.Struct, frozen=True):
    """The answer to `Think` number `thought` is complete, or failed: nobody gave one, or it broke off in its midst."""

    thought: int
    failure: Literal["", "nobody", "broke-off"] = ""


class ToolDone(msgspec.Struct, frozen=True, kw_only=True):
    """A tool has answered, or failed (`error`)."""

    tool_call: ToolCallId
    name: str
    took_ms: float
    result: str = ""
    error: str = ""


class TimerFired(msgspec.Struct, frozen=True):
    """The time set by `ArmTimer` has come."""

    timer: Timer


Playout = PlayoutStarted | PlayoutFinished | PlayoutCut
"""What became of one utterance."""
Told = (
    Opened
    | TookOver
    | ThoughtCame
    | ToolWanted
    | ThoughtEnded
    | ToolDone
    | TimerFired
    | SpeechMessage
    | PlayoutMessage
    | SpokenMessage
    | ControlMessage
    | DigitPressed
)

# --- ordered ---------------------------------------------------------------------------------------------------------


class Speak(msgspec.Struct, frozen=True):
    """Have a sentence said, or the next piece of it; see `Say`."""

    generation: Generation
    utterance: UtteranceId
    text: str
    goes_on: bool = False
    filler_at: float = 0.0
    at: int = 0


class Void(msgspec.Struct, frozen=True):
    """Make speech of generations below `generation` void, everywhere."""

    generation: Generation
    reason: Literal["barge-in", "resumed-turn", "overdue"]
    onset_at: float = 0.0


class Think(msgspec.Struct, frozen=True, kw_only=True):
    """Ask the model; whatever it was asked before no longer matters."""

    thought: int
    turn: TurnId
    messages: tuple[Message, ...]
    tools: bool


class StopThinking(msgspec.Struct, frozen=True):
    """Let the model's answer go."""


class RunTool(msgspec.Struct, frozen=True, kw_only=True):
    """Run a tool. Nothing the caller says stops it."""

    turn: TurnId
    tool_call: ToolCallId
    name: str
    arguments: str


class EndCall(msgspec.Struct, frozen=True):
    """Hang up."""

    generation: Generation
    reason: str


class ArmTimer(msgspec.Struct, frozen=True):
    """Fire `timer` at `at`; one that is set already is moved."""

    timer: Timer
    at: float


class DisarmTimer(msgspec.Struct, frozen=True):
    """Forget `timer`."""

    timer: Timer


class Emit(msgspec.Struct, frozen=True):
    """Record a fact."""

    fact: Fact


class Ignore(msgspec.Struct, frozen=True):
    """Something came too late, or from a past assignment; counted under `reason`."""

    reason: str


Order = Speak | Void | Think | StopThinking | RunTool | EndCall | ArmTimer | DisarmTimer | Emit | Ignore
