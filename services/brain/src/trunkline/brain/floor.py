"""Who has the floor in a call. A pure machine: `handle` takes what happened and when, and returns what to do.

===========  ==================================================  =====================================================
state        what it means                                       how it is left
===========  ==================================================  =====================================================
listening    the agent is silent, or says a filler while the     the caller's turn ends with words, or keys were
             caller's words are found; the caller speaks or may  entered → thinking; it ends with words that nobody
                                                                 could find → speaking (an apology); both silent too
                                                                 long → speaking (a reprompt)
thinking     the model was asked, or will be as soon as the      its first words → speaking; it fails → thinking once
             tools have answered; nothing but fillers is said    more, then speaking (an apology); the caller goes on
                                                                 → listening, and the two halves become one turn
speaking     sentences are on the way to the caller, or more     all heard → listening, or over if the turn ends the
             of them is to come                                  call; the caller barges in → listening; nobody can
                                                                 speak → as if all were heard, and the caller is told
over         the call is ending                                  never
===========  ==================================================  =====================================================

Invariants: every agent turn has a generation of its own; a `Void` always raises it; nothing of a lower generation is
said afterwards; the call is ended only by a turn that was heard to its end (or by a limit); a tool that was started is
never stopped, and no model is asked while a tool is still running; a model is asked again for an answer that broke off
only while nothing of it was given out to be said, and what was said is said again only if nobody heard it; whoever
waits for an answer hears a filler now and then; turns in a row that no provider could serve end the call, and an answer
that was heard begins their count anew; in every state but the last some timer is set, or a tool runs.

Here is decided whose floor it is. What the agent does with it is `Reply`'s; what the caller says, `CallerTurn`'s; how
somebody else goes on with it, `Conversation`'s. Times are seconds of one steady clock that agrees with the wall clock;
they come in with the events.
"""

from collections.abc import Mapping
from typing import Final, Literal

from trunkline.brain.agenda import Agenda
from trunkline.brain.caller import CallerTurn
from trunkline.brain.history import History
from trunkline.brain.keys import Keypad
from trunkline.brain.lines import SILENCE
from trunkline.brain.moves import (
    ArmTimer,
    Emit,
    EndCall,
    Ignore,
    Opened,
    Order,
    StopThinking,
    ThoughtCame,
    ThoughtEnded,
    Timer,
    TimerFired,
    Told,
    ToolDone,
    ToolWanted,
)
from trunkline.brain.reply import Reply
from trunkline.proto.agent import Agent
from trunkline.proto.ids import Epoch, Generation, ToolCallId, TurnId, UtteranceId
from trunkline.proto.messages import (
    DigitPressed,
    FinalTranscript,
    PartialTranscript,
    PlayoutCut,
    PlayoutFinished,
    PlayoutStarted,
    SpeakingFailed,
    SpeechMessage,
    SpeechStarted,
    SpeechStopped,
    TurnEnded,
    VoiceChanged,
    WindUp,
    WordsTimed,
)

State = Literal["listening", "thinking", "speaking", "over"]

LONGEST_SPEECH_S: Final = 40.0
"""STT ends every utterance sooner; when no end has come by then, none will."""
HANG_UP_AGAIN_S: Final = 2.0


class Floor:
    """One call's turns. See the module's table.

    Args:
        agent: who answers.
        started_at: when the call began.
        in_pieces: whether sentences are handed on while the model still writes them.
    """

    def __init__(self, agent: Agent, started_at: float, *, in_pieces: bool = True) -> None:
        self._agent = agent
        self._started_at = started_at
        self._agenda = Agenda()
        self._do = self._agenda.do
        self._reply = Reply(agent, self._do, in_pieces=in_pieces)
        self._caller = CallerTurn()
        self._stt_epoch = Epoch(0)
        self._heard_upto = UtteranceId(-1)
        self._key_at = 0.0
        self._keypad = Keypad(self._do)
        self.voice = Epoch(0)
        """Which TTS worker is meant by what is ordered to be said; 0 while that is not known."""
        self._reprompts = 0
        self._winding_up: str | None = None
        self._ending: str | None = None

    @property
    def state(self) -> State:
        """Who has the floor."""
        return self._reply.state if self._ending is None else "over"

    @property
    def turn(self) -> TurnId:
        """The caller's turn that is, or was last, answered."""
        return self._reply.turn

    @property
    def generation(self) -> Generation:
        """Which agent turn is current."""
        return self._reply.generation

    @property
    def history(self) -> History:
        """What was said and done."""
        return self._reply.history

    @property
    def thought(self) -> int:
        """The number of the `Think` that was ordered last."""
        return self._reply.thinking.number

    @property
    def running(self) -> tuple[ToolCallId, ...]:
        """The tools that have not answered."""
        return self._reply.errands.running

    @property
    def due(self) -> Mapping[Timer, float]:
        """The timers that are set, and when they fire."""
        return self._agenda.due

    def handle(self, event: Told, at: float) -> list[Order]:
        """Take in `event`, which happened at `at`; return what is to be done, in order."""
        if isinstance(event, TimerFired) and not self._agenda.came_due(event.timer, at):
            self._do(Ignore("stale-timer"))
        elif self._ending is not None:
            self._after_the_end(event, at)
        else:
            self._step(event, at)
        return self._agenda.take()

    def close(self, at: float) -> list[Order]:
        """Return what is left to record when the call has ended, for whatever reason."""
        self._ending = self._ending or ""
        self._reply.close(at)
        return self._agenda.take()

    def _step(self, event: Told, at: float) -> None:
        self._take(event, at)
        while self._ending is None and self._reply.heard:
            self._all_heard(at)

    def _take(self, event: Told, at: float) -> None:
        match event:
            case Opened():
                self._open(event, at)
            case SpeechStarted() | PartialTranscript() | SpeechStopped() | FinalTranscript() | TurnEnded():
                self._heard_speech(event, at)
            case PlayoutStarted() | PlayoutFinished() | PlayoutCut():
                self._reply.played(event, at)
            case VoiceChanged():
                self._change_voice(event, at)
            case WordsTimed():
                self._reply.timed(event)
            case SpeakingFailed():
                quiet = not self._caller.speaks and self._winding_up is None
                self._reply.unspoken(event, at, may_speak=quiet)
            case ThoughtCame() | ToolWanted() | ThoughtEnded():
                self._reply.thought(event, at)
            case ToolDone():
                self._reply.tool_done(event, at)
            case DigitPressed():
                self._key(event, at)
            case WindUp():
                self._wind_up(event.reason, at)
            case TimerFired():
                self._time_came(event.timer, at)

    # --- the call --------------------------------------------------------------------------------------------------

    def _open(self, event: Opened, at: float) -> None:
        self.voice = event.voice
        self._do(ArmTimer("duration", self._started_at + self._agent.limits.max_duration_s))
        self._reply.open(event.generation, event.greeting, self._started_at, at)
        if self.state == "listening":
            self._listen(at)

    def _wind_up(self, reason: str, at: float) -> None:
        """Bring the call to a polite end: once both are silent, a last sentence is said."""
        self._winding_up = self._winding_up or reason
        if self.state != "listening":
            self._reply.cut_short(at)
        if self.state == "listening" and not self._caller.speaks:
            self._say_last(at)

    def _say_last(self, at: float) -> None:
        self._reply.say_last(self._agent.spent, at, self._winding_up or "")

    def _end(self, reason: str, at: float) -> None:
        self._ending = reason
        self._do(StopThinking())
        self._hang_up(at)

    def _hang_up(self, at: float) -> None:
        """Order the end, again and again: an order that was lost would leave the caller in silence."""
        self._do(EndCall(self.generation, self._ending or ""), ArmTimer("hang-up", at + HANG_UP_AGAIN_S))

    def _after_the_end(self, event: Told, at: float) -> None:
        if isinstance(event, ToolDone):
            self._reply.errands.done(event)
        elif event == TimerFired("hang-up"):
            self._hang_up(at)

    def _change_voice(self, event: VoiceChanged, at: float) -> None:
        if event.voice <= self.voice:
            self._do(Ignore("stale-voice"))
            return
        self.voice = event.voice
        self._reply.voice_changed(event.reached, at)

    # --- the caller ------------------------------------------------------------------------------------------------

    def _heard_speech(self, event: SpeechMessage, at: float) -> None:
        if event.epoch < self._stt_epoch:
            self._do(Ignore("stale-stt-epoch"))
            return
        if event.utterance <= self._heard_upto:
            self._do(Ignore("told-again"))
            return
        if event.epoch > self._stt_epoch:
            self._caller.fell_silent()  # a new worker tells again of what is still being said
            self._stt_epoch = event.epoch
        match event:
            case SpeechStarted():
                self._caller.began(event.utterance, event.onset_at)
                self._do(ArmTimer("silence", at + LONGEST_SPEECH_S))
                if self.state == "listening" or self._agent.turns.barge_in:
                    said = self._reply.give_way(event.onset_at, at)
                    if said is not None:
                        self._caller.resume(said)
            case SpeechStopped():
                if self.state == "listening" and self._caller.speaks:
                    self._reply.fillers.wait(event.endpoint_at)
            case FinalTranscript():
                self._caller.said(event)
            case TurnEnded():
                self._caller.ended(event)
                self._heard_upto = max(self._heard_upto, event.utterance)
                if self.state == "listening" and not self._caller.speaks:
                    self._take_turn(at)
            case PartialTranscript():
                pass

    def _take_turn(self, at: float) -> None:
        """The floor is the agent's, if the caller said anything."""
        caller, self._caller = self._caller, CallerTurn()
        if caller.utterances:
            self._do(Emit(caller.fact(TurnId(self.turn + bool(caller.text)))))
        if self._winding_up is not None:
            self._say_last(at)
        elif caller.text:
            self._reprompts = 0
            self.history.caller_said(caller.text)
            self._reply.answer(caller.times, at, since=at if caller.times is None else caller.times.endpoint_at)
        elif caller.failed:
            self._reply.not_understood(at)
        elif not self._reply.go_on(at):
            self._listen(at)

    def _key(self, event: DigitPressed, at: float) -> None:
        if 0 < event.at <= self._key_at:
            self._do(Ignore("told-again"))
            return
        self._key_at = event.at
        self._keypad.press(event.digit, at)
        if self.state == "listening":
            self._reply.fillers.stop()
        else:
            self._reply.fall_silent("barge-in", at)

    def _keys_entered(self, at: float) -> None:
        keys = self._keypad.take()
        if self.state != "listening":
            self._reply.fall_silent("barge-in", at)
        self._reprompts = 0
        self.history.noted(f"The caller pressed the keys {keys}")
        if self._caller.speaks:
            # The end of their words is the moment to answer both.
            self._reply.new_turn(at)
            self._do(ArmTimer("silence", at + LONGEST_SPEECH_S))
        elif self._winding_up is not None:
            self._say_last(at)
        else:
            self._reply.answer(None, at, since=at)

    # --- nobody ----------------------------------------------------------------------------------------------------

    def _all_heard(self, at: float) -> None:
        turn = self._reply.finish(at)
        if turn is not None and turn.end_reason is not None:
            self._end(turn.end_reason, at)
        elif self._winding_up is not None and not self._caller.speaks:
            self._say_last(at)
        elif turn is not None and turn.owes_a_word:
            self._reply.own_up(at)
        elif self._caller.utterances and not self._caller.speaks:
            # The caller spoke over an agent that does not give way: now is their turn.
            self._take_turn(at)
        else:
            self._listen(at)

    def _listen(self, at: float) -> None:
        """Both are silent, or the caller speaks on: neither may last for ever."""
        longest_s = LONGEST_SPEECH_S if self._caller.speaks else self._agent.turns.reprompt_after_s
        self._do(ArmTimer("silence", at + longest_s))

    def _too_quiet(self, at: float) -> None:
        if self._caller.speaks:
            self._do(Ignore("utterance-never-ended"))
            self._caller.fell_silent()
            if self.state == "listening":
                self._take_turn(at)
        elif self.state == "listening":
            self._break_silence(at)

    def _break_silence(self, at: float) -> None:
        turns = self._agent.turns
        if self._reprompts < turns.max_reprompts:
            self._reprompts += 1
            self._reply.say(turns.reprompt, at)
        else:
            self._reply.say(turns.silence_goodbye, at, SILENCE)

    def _time_came(self, timer: Timer, at: float) -> None:
        match timer:
            case "duration":
                self._end("exceeded-max-duration", at)
            case "thought":
                self._reply.stalled(at)
            case "filler":
                self._reply.fill(at)
            case "keys":
                self._keys_entered(at)
            case "silence":
                self._too_quiet(at)
            case "playout":
                self._reply.overdue(at)
            case "hang-up":
                pass
