"""What there is to tell of a call while it happens. Pure: one thing seen in, lines to tell out.

`Scene` also knows what is happening at this moment: who speaks, and which words are known so far.
"""

from typing import Final, Literal

import msgspec

from trunkline.call import Seen
from trunkline.demo.watch import utterance_of
from trunkline.demo.words import brief, divided, parsed
from trunkline.proto.events import (
    CallEnded,
    CallerSpoke,
    CallStarted,
    Event,
    StageAssigned,
    StageLost,
    ToolCalled,
    ToolReturned,
    TurnMeasured,
)
from trunkline.proto.messages import (
    FinalTranscript,
    HangUp,
    Interrupt,
    PartialTranscript,
    PlayoutCut,
    PlayoutStarted,
    Say,
)

Who = Literal["caller", "agent", "tool", "barge-in", "latency", "line"]

_CHARACTERS_PER_S: Final = 15.0


class Line(msgspec.Struct, frozen=True):
    """Something to tell. `unheard` is what of the agent's words the caller did not hear."""

    at_s: float
    who: Who
    text: str
    unheard: str = ""


class Scene:
    """A call as it goes on."""

    def __init__(self) -> None:
        self.caller_speaks = False
        self.agent_speaks = False
        self.words: str = ""
        """What of the caller's words is known so far."""
        self.turns = 0
        self.over = False
        self._said: dict[int, str] = {}
        self._waiting: list[int] = []
        self._began_s = 0.0
        self._calls: dict[str, ToolCalled] = {}

    def agent_words(self, now_s: float) -> str:
        """Return what the agent is saying, about as far as it has got by now."""
        if not self._waiting or not self.agent_speaks:
            return ""
        text = self._said.get(self._waiting[0], "")
        return text[: max(1, round((now_s - self._began_s) * _CHARACTERS_PER_S))]

    def take(self, seen: Seen) -> list[Line]:
        """Take notice of `seen`; return what to tell about it."""
        match seen.message:
            case Event(fact=fact):
                return self._fact(seen.at_s, fact)
            case None:
                return self._sound(seen)
            case _:
                return self._story(seen)

    def _sound(self, seen: Seen) -> list[Line]:
        match seen.who, seen.what:
            case "caller", "speech-started" | "speech-ended":
                self.caller_speaks = seen.what == "speech-started"
                self.words = "" if self.caller_speaks else self.words
            case "agent", "speech-started" | "speech-ended":
                self.agent_speaks = seen.what == "speech-started"
                self._began_s = seen.at_s if self.agent_speaks else self._began_s
            case "line", "clear":
                self._waiting.clear()  # the marks that now come back tell nothing
            case "line", "mark-returned":
                return self._heard(seen.at_s, utterance_of(seen.text))
            case "line", "warning":
                return [Line(seen.at_s, "line", f"Twilio would warn: {seen.text}")]
            case _:
                pass
        return []

    def _heard(self, at_s: float, utterance: int) -> list[Line]:
        """Tell of an utterance whose mark is back: it was played, unless a clear has taken it off the list."""
        if utterance not in self._waiting:
            return []
        self._waiting.remove(utterance)
        began_s, self._began_s = self._began_s, at_s
        return [Line(began_s, "agent", self._said[utterance])]

    def _story(self, seen: Seen) -> list[Line]:
        match seen.message:
            case Say(utterance=utterance, text=text):
                self._said[utterance] = self._said.get(utterance, "") + text
            case PlayoutStarted(utterance=utterance) if utterance in self._said:
                if not self._waiting:
                    self._began_s = seen.at_s
                self._waiting.append(utterance)
            case PartialTranscript(text=text) | FinalTranscript(text=text):
                self.words = text
            case Interrupt(reason="barge-in"):
                return [Line(seen.at_s, "barge-in", "the caller speaks over the agent, who falls silent")]
            case PlayoutCut(utterance=utterance) as cut if utterance in self._said:
                heard, unheard = divided(self._said[utterance], cut.heard_ms, cut.total_ms)
                return [Line(self._began_s, "agent", heard, unheard)]
            case HangUp(reason=reason):
                return [Line(seen.at_s, "line", f"the agent hangs up ({reason})")]
            case _:
                pass
        return []

    def _fact(self, at_s: float, fact: object) -> list[Line]:
        match fact:
            case CallStarted(agent=agent):
                return [Line(at_s, "line", f"the call is up; agent {agent} answers")]
            case StageLost(stage=stage, reason=reason):
                return [Line(at_s, "line", f"{stage} was lost: {reason}")]
            case StageAssigned(epoch=epoch, stage=stage, worker=worker) if epoch > 1:
                return [Line(at_s, "line", f"{stage} goes on at {worker}")]
            case CallerSpoke(text=text):
                self.words = ""
                self.turns += 1
                return [Line(at_s, "caller", text or "(nothing understood)")]
            case ToolCalled():
                self._calls[fact.tool_call] = fact
            case ToolReturned():
                return [self._tool(at_s, fact)]
            case TurnMeasured():
                return [Line(at_s, "latency", breakdown(fact))]
            case CallEnded(reason=reason, duration_s=duration_s):
                self.over = True
                return [Line(at_s, "line", f"the call is over after {duration_s:.1f} s ({reason})")]
            case _:
                pass
        return []

    def _tool(self, at_s: float, returned: ToolReturned) -> Line:
        called = self._calls.pop(returned.tool_call, None)
        arguments = brief(parsed(called.arguments)) if called is not None else ""
        outcome = f"failed: {returned.error}" if returned.error else brief(parsed(returned.result))
        return Line(at_s, "tool", f"{returned.name}({arguments}) → {outcome}  ({returned.took_ms:.0f} ms)")


def breakdown(fact: TurnMeasured) -> str:
    """Return where the time of a turn went, in one line."""
    parts = (
        ("endpointing", fact.endpoint_delay_ms),
        ("STT", fact.stt_final_ms),
        ("LLM", fact.llm_ttft_ms),
        ("sentence", fact.first_sentence_ms),
        ("TTS", fact.tts_ttfb_ms),
        ("edge", fact.edge_ms),
    )
    return f"{fact.turn_latency_ms:.0f} ms = " + " + ".join(f"{name} {value:.0f}" for name, value in parts)
