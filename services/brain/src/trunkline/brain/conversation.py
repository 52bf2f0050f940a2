"""The conversation of one call: `Floor`, and what it takes for another process to go on with it. Pure.

What a successor has to know is in a `Snapshot`, worth storing whenever `boundary` has risen. A successor is told
`TookOver` in place of `Opened`.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from trunkline.brain import hearsay, takeover
from trunkline.brain.floor import Floor
from trunkline.brain.moves import (
    ArmTimer,
    EndCall,
    Opened,
    Order,
    RunTool,
    Speak,
    Think,
    ThoughtEnded,
    Told,
    TookOver,
    ToolDone,
    Void,
)
from trunkline.brain.snapshot import Snapshot
from trunkline.proto.agent import Agent
from trunkline.proto.messages import (
    DigitPressed,
    FinalTranscript,
    PlayoutCut,
    PlayoutFinished,
    SpeakingFailed,
    TurnEnded,
    VoiceChanged,
    WindUp,
)

_NEWS: Final = (
    FinalTranscript,
    TurnEnded,
    PlayoutFinished,
    PlayoutCut,
    VoiceChanged,
    SpeakingFailed,
    ThoughtEnded,
    ToolDone,
    DigitPressed,
    WindUp,
)
_DEEDS: Final = (Think, Void, RunTool, EndCall)


class Conversation(Floor):
    """A call's turns, which somebody else may have begun and somebody else may end.

    Args:
        agent: who answers.
        started_at: when the call began.
        in_pieces: whether sentences are handed on while the model still writes them.
    """

    def __init__(self, agent: Agent, started_at: float, *, in_pieces: bool = True) -> None:
        super().__init__(agent, started_at, in_pieces=in_pieces)
        self.boundary = 0
        """Rises whenever something has changed that a successor has to know."""

    def handle(self, event: Told, at: float) -> list[Order]:
        """Take in `event`, which happened at `at`; return what is to be done, in order."""
        if isinstance(event, TookOver):
            self._take_over(event, at)
            self.boundary += 1
            return self._agenda.take()
        orders = super().handle(event, at)
        if isinstance(event, _NEWS) or _tells(orders):
            self.boundary += 1
        return orders

    @property
    def at_rest(self) -> bool:
        """Whether nothing is half heard, thought or said: the moment to have somebody else go on."""
        idle = not (self.running or self._caller.utterances or self._keypad.pressed or self._reply.mouth.filling)
        return self.state == "listening" and idle

    def snapshot(self) -> Snapshot:
        """Return all that whoever goes on with the call has to know."""
        reply = self._reply
        failures, worked = reply.failures.kept()
        return Snapshot(
            state=reply.state,
            turn=reply.turn,
            history=reply.history.kept(),
            mouth=reply.mouth.kept(),
            heard=self._caller.kept(),
            heard_upto=self._heard_upto,
            stt_epoch=self._stt_epoch,
            keys=self._keypad.pressed,
            key_at=self._key_at,
            reprompts=self._reprompts,
            failures=failures,
            worked=worked,
            running=reply.errands.kept(),
            tools_this_turn=reply.errands.this_turn,
            winding_up=self._winding_up,
            ending=self._ending,
        )

    def _restore(self, known: Snapshot, at: float) -> None:
        takeover.restore(self._reply, known)
        self._caller.restore(known.heard)
        self._keypad.restore(known.keys, at)
        self._stt_epoch, self._heard_upto, self._key_at = known.stt_epoch, known.heard_upto, known.key_at
        self._reprompts, self._winding_up, self._ending = known.reprompts, known.winding_up, known.ending

    def _take_over(self, event: TookOver, at: float) -> None:
        """Go on with a call that somebody else had."""
        recap = event.recap
        if event.snapshot is None and recap is not None and (recap.said or recap.speech):
            guess = hearsay.snapshot(recap, self._agent, event.generation, event.greeting)
            event = msgspec.structs.replace(event, snapshot=guess)
        if event.snapshot is None and not event.line:
            self._open(Opened(event.generation, event.greeting, event.voice), at)  # nobody has said a word
        else:
            self._catch_up(event, at)
            self._go_on(event, at)

    def _catch_up(self, event: TookOver, at: float) -> None:
        """Be where the one before us was, and would be by now."""
        self.voice = event.voice
        self._do(ArmTimer("duration", self._started_at + self._agent.limits.max_duration_s))
        if event.snapshot is not None:
            self._restore(event.snapshot, at)
        left = takeover.Inheritance(event, self._agent, self._reply, lambda missed: self._missed(missed, at))
        left.catch_up(lambda: self._keys_entered(at) if self._keypad.pressed else None, at)
        self._do(*left.owed(self._agenda.take()))
        if self._ending is None and not event.line:
            left.say_what_was_lost(at)
        left.take_up_tools()

    def _missed(self, event: Told, at: float) -> None:
        if self._ending is None:
            self._step(event, at)

    def _go_on(self, event: TookOver, at: float) -> None:
        """Do what is next."""
        if self._ending is not None:
            self._hang_up(at)
            return
        if event.line:
            self._caller.fell_silent()  # whoever hears them on the new line has not heard them begin
            takeover.resume_on_new_line(self._reply, self._agent.resumed if event.line == "lost" else "", at)
        else:
            takeover.resume(self._reply, at)
        told = event.recap.winding_up if event.recap is not None else ""
        if told and self._winding_up is None:
            self._wind_up(told, at)
        elif self._winding_up is not None and self.state == "listening" and not self._caller.speaks:
            self._say_last(at)
        if self.state == "listening" and event.line and self._caller.text:
            self._take_turn(at)
        elif self.state == "listening":
            self._listen(at)


def _tells(orders: Iterable[Order]) -> bool:
    """Tell whether anything of this must not be done again, or not be forgotten."""
    return any(isinstance(order, _DEEDS) or (isinstance(order, Speak) and not order.goes_on) for order in orders)
