"""The conversation of one call. A pure machine: `handle` takes what happened and when, and returns what to do.

Who has the floor:

===========  ==================================================  =====================================================
state        what it means                                       how it is left
===========  ==================================================  =====================================================
listening    the agent is silent, the caller speaks or may       the caller's turn ends with words → thinking;
                                                                 both silent too long → speaking (a reprompt)
thinking     the model was asked, nothing is said yet            its first sentence → speaking; the caller goes on
                                                                 → listening, and the two halves become one turn
speaking     sentences are on the way to the caller              all heard → listening, or over if the turn ends the
                                                                 call; the caller barges in → listening
over         the call is ending                                  never
===========  ==================================================  =====================================================

Invariants: every agent turn has a generation of its own; a `Void` always raises it; nothing of a lower generation is
said afterwards; the call is ended only by a turn that was heard to its end (or by a limit); a tool that was started is
never stopped, and no model is asked while a tool is still running; a model is asked again for an answer that broke off
only while nothing of it was given out to be said; whoever waits for an answer hears a filler now and then.

Times are seconds of one steady clock that agrees with the wall clock; they come in with the events.
"""

from typing import Final, Literal

from trunkline.brain.answer import Answer, Said
from trunkline.brain.caller import CallerTurn
from trunkline.brain.delivery import START_SLACK_S, Delivery
from trunkline.brain.fillers import Fillers
from trunkline.brain.heard import Speaking
from trunkline.brain.history import History
from trunkline.brain.llm import ToolCall
from trunkline.brain.moves import (
    ArmTimer,
    DisarmTimer,
    Emit,
    EndCall,
    Ignore,
    Opened,
    Order,
    RunTool,
    StopThinking,
    Think,
    ThoughtCame,
    ThoughtEnded,
    Timer,
    TimerFired,
    Told,
    ToolDone,
    ToolWanted,
)
from trunkline.proto.agent import Agent
from trunkline.proto.events import CallerBargedIn, ToolCalled, ToolReturned
from trunkline.proto.ids import Epoch, Generation, ToolCallId, TurnId
from trunkline.proto.messages import (
    DigitPressed,
    FinalTranscript,
    PartialTranscript,
    PlayoutCut,
    PlayoutFinished,
    PlayoutMessage,
    PlayoutStarted,
    SpeakingFailed,
    SpeechMessage,
    SpeechStarted,
    SpeechStopped,
    SpokenMessage,
    TurnEnded,
    WindUp,
    WordsTimed,
)

State = Literal["listening", "thinking", "speaking", "over"]

PROVIDERS_FAILED: Final = "providers-failed"
LONGEST_SPEECH_S: Final = 40.0
"""STT ends every utterance sooner; when no end has come by then, none will."""
LONGEST_THOUGHT_S: Final = 10.0
"""A model that streams nothing for so long has stalled."""
HANG_UP_AGAIN_S: Final = 2.0
KEYS_END_S: Final = 0.15
"""How long ``#`` waits for the carrier to tell what was heard of the words it cut."""
KEYS_PAUSE_S: Final = 1.5
"""Keys pressed within this time of each other are one entry; ``#`` ends it."""


class Conversation:
    """One call's turns. See the module's table."""

    def __init__(self, agent: Agent, started_at: float) -> None:
        self._agent = agent
        self._started_at = started_at
        self.state: State = "listening"
        self.turn = TurnId(0)
        self.history = History()
        self._mouth = Delivery(self.history, agent.tts.speed, self._do)
        self._thought = 0
        self._answer = Answer()
        self._asked_again = False
        self._fillers = Fillers(agent.turns)
        self._failures = 0
        """Turns in a row that no provider could serve."""
        self._winding_up: str | None = None
        self._caller = CallerTurn()
        self._stt_epoch = Epoch(0)
        self._running: set[ToolCallId] = set()
        self._tools_this_turn = 0
        self._reprompts = 0
        self._keys = ""
        self._ending: str | None = None
        self._due: dict[Timer, float] = {}
        self._out: list[Order] = []

    @property
    def generation(self) -> Generation:
        """Which agent turn is current."""
        return self._mouth.generation

    def handle(self, event: Told, at: float) -> list[Order]:
        """Take in `event`, which happened at `at`; return what is to be done, in order."""
        self._out = []
        if isinstance(event, TimerFired) and not self._came_due(event.timer, at):
            self._do(Ignore("stale-timer"))
            return self._out
        if self.state == "over":
            self._after_the_end(event, at)
        else:
            self._take(event, at)
        return self._out

    def _after_the_end(self, event: Told, at: float) -> None:
        if isinstance(event, ToolDone):
            self._tool_done(event)
        elif event == TimerFired("hang-up"):
            self._hang_up(at)

    def _take(self, event: Told, at: float) -> None:
        match event:
            case Opened():
                self._open(event)
            case SpeechStarted() | PartialTranscript() | SpeechStopped() | FinalTranscript() | TurnEnded():
                self._heard_speech(event, at)
            case PlayoutStarted() | PlayoutFinished() | PlayoutCut():
                self._played(event, at)
            case WordsTimed() | SpeakingFailed():
                self._spoken(event, at)
            case WindUp():
                self._wind_up(event.reason, at)
            case ThoughtCame() | ToolWanted() | ThoughtEnded():
                self._thought_about(event, at)
            case ToolDone():
                self._tool_done(event)
                self._go_on(at)
            case DigitPressed():
                self._key(event.digit, at)
            case TimerFired():
                self._time_came(event, at)

    # --- the call --------------------------------------------------------------------------------------------------

    def _open(self, event: Opened) -> None:
        self._mouth.generation = event.generation
        self._do(ArmTimer("duration", self._started_at + self._agent.limits.max_duration_s))
        if event.greeting:
            self._mouth.adopt(self.turn, event.greeting, self._agent.greeting, self._started_at)
            self.state = "speaking"
            self._follow_playout(self._started_at)
            return
        self._mouth.renew()
        if self._agent.greeting:
            self._say_all(self._agent.greeting, self._started_at)
        else:
            self._listen(self._started_at)

    def _end(self, reason: str, at: float) -> None:
        self.state = "over"
        self._ending = reason
        self._do(StopThinking())
        self._hang_up(at)

    def _wind_up(self, reason: str, at: float) -> None:
        """Bring the call to a polite end: what is being said is finished, and a last sentence is said."""
        self._winding_up = reason
        self._do(StopThinking(), DisarmTimer("thought"))
        self._thought += 1
        if self.state == "speaking" and self._mouth.current is not None:
            self._complete(at, self._mouth.current.end_reason)
        elif not self._caller.speaks:
            self._say_last(at)

    def _say_last(self, at: float) -> None:
        self._rest()
        self._mouth.close(at, interrupted=True)
        self._mouth.renew()
        if self._agent.spent:
            self._say_all(self._agent.spent, at, self._winding_up)
        else:
            self._end(self._winding_up or "", at)

    def _hang_up(self, at: float) -> None:
        """Order the end, again and again: an order that was lost would leave the caller in silence."""
        if self._ending is not None:
            self._do(EndCall(self.generation, self._ending), ArmTimer("hang-up", at + HANG_UP_AGAIN_S))

    def close(self, at: float) -> list[Order]:
        """Return what is left to record when the call has ended, for whatever reason."""
        self._out = []
        self._mouth.close(at, interrupted=self._mouth.current is not None and not self._mouth.current.settled)
        self.state = "over"
        return self._out

    # --- the caller ------------------------------------------------------------------------------------------------

    def _heard_speech(self, event: SpeechMessage, at: float) -> None:
        if event.epoch < self._stt_epoch:
            self._do(Ignore("stale-stt-epoch"))
            return
        if event.epoch > self._stt_epoch:
            self._caller.fell_silent()  # a new worker tells again of what is still being said
            self._stt_epoch = event.epoch
        match event:
            case SpeechStarted():
                self._caller.began(event.utterance, event.onset_at)
                self._do(ArmTimer("silence", at + LONGEST_SPEECH_S))
                if self.state == "listening" or self._agent.turns.barge_in:
                    self._give_way(event, at)
            case SpeechStopped():
                if self.state == "listening":
                    self._await_answer(event.endpoint_at)
            case FinalTranscript():
                self._caller.said(event)
            case TurnEnded():
                self._caller.ended(event)
                if self.state == "listening" and not self._caller.speaks:
                    self._take_turn(at)
            case PartialTranscript():
                pass

    def _give_way(self, event: SpeechStarted, at: float) -> None:
        """The caller speaks while the agent thinks or speaks: stop, and listen."""
        filling = self._mouth.filling
        if self.state == "listening" and not filling:
            self._rest()
            return
        answered = self.state != "listening" and self._mouth.current is not None and self._mouth.current.audible
        reason: Literal["barge-in", "resumed-turn"] = "barge-in" if answered or filling else "resumed-turn"
        self._silence_agent(reason, event.onset_at)
        if answered or filling:
            fact = CallerBargedIn(turn=self.turn, generation=self.generation, onset_at=event.onset_at, at=at)
            self._do(Emit(fact))
        if self.state != "listening" and not answered and not self._running and not self._tools_this_turn:
            self._take_back()
        self.state = "listening"

    def _silence_agent(self, reason: Literal["barge-in", "resumed-turn"], onset_at: float) -> None:
        self._thought += 1  # whatever still streams in answers nobody's question
        self._rest()
        self._mouth.void(reason, onset_at)
        self._do(StopThinking(), DisarmTimer("thought"))

    def _take_back(self) -> None:
        """Nothing of the answer was heard: the caller's words and those to come are one turn.

        What answers nobody (a greeting, a reprompt, sentences said again) is not taken back: if the sound turns out to
        be no words, it is still to be said.
        """
        unheard = self._mouth.current.utterances if self._mouth.current is not None else []
        said = self.history.take_back(unheard)
        if said is None:
            return
        self._mouth.current = None
        self._caller.resume(said)
        self.turn = TurnId(self.turn - 1)

    def _take_turn(self, at: float) -> None:
        """The floor is the agent's, if the caller said anything."""
        text = self._caller.text
        if self._caller.utterances:
            self._do(Emit(self._caller.fact(TurnId(self.turn + bool(text)))))
        if self._winding_up is not None:
            self._say_last(at)
            return
        if not text:
            failed = self._caller.failed
            self._caller = CallerTurn()
            if failed:
                self._not_understood(at)
            else:
                self._nothing_said(at)
            return
        self._await_answer(self._caller.times.endpoint_at if self._caller.times is not None else at)
        self._mouth.close(at, interrupted=True)
        self.turn = TurnId(self.turn + 1)
        self.history.caller_said(text)
        self._mouth.times = self._caller.times
        self._caller = CallerTurn()
        self._reprompts = 0
        self._tools_this_turn = 0
        self._asked_again = False
        self._mouth.renew()
        self._think(at)

    def _nothing_said(self, at: float) -> None:
        """There was sound, but no words. If it stopped the agent, the agent goes on where it was cut."""
        self._rest()
        cut = self._mouth.current
        if cut is not None and cut.complete and cut.unheard:
            self._say_again(cut, cut.unheard, at)
            return
        self._mouth.close(at, interrupted=True)
        self._mouth.renew()
        if (cut is not None and not cut.complete) or self.history.owes_an_answer:
            self._think(at)
        else:
            self._listen(at)

    def _say_again(self, cut: Speaking, sentences: list[str], at: float) -> None:
        """Say what was not heard of a turn, as a turn that ends the call if that one did."""
        self._mouth.close(at, interrupted=True)
        self.history.forget_unheard()
        self._mouth.renew()
        self._mouth.begin(self.turn).again = True
        for sentence in sentences:
            self._say(sentence, at)
        self._complete(at, cut.end_reason)

    def _key(self, digit: str, at: float) -> None:
        self._keys += digit
        self._do(DisarmTimer("silence"), ArmTimer("keys", at + (KEYS_END_S if digit == "#" else KEYS_PAUSE_S)))
        if self.state != "listening":
            self._silence_agent("barge-in", at)
            self.state = "listening"

    def _keys_entered(self, at: float) -> None:
        keys, self._keys = self._keys, ""
        if self.state != "listening":
            self._silence_agent("barge-in", at)
            self.state = "listening"
        self._mouth.close(at, interrupted=True)
        self.turn = TurnId(self.turn + 1)
        self.history.noted(f"The caller pressed the keys {keys}")
        self._mouth.times = None
        self._reprompts = 0
        self._tools_this_turn = 0
        self._asked_again = False
        if self._winding_up is not None:
            self._say_last(at)
        elif not self._caller.speaks:  # otherwise the end of their words is the moment to answer both
            self._await_answer(at)
            self._mouth.renew()
            self._think(at)

    # --- the agent -------------------------------------------------------------------------------------------------

    def _think(self, at: float) -> None:
        """Ask the model, as soon as no tool is running."""
        self.state = "thinking"
        self._answer = Answer()
        if self._running:
            return
        self._thought += 1
        tools = self._tools_this_turn < self._agent.limits.max_tool_calls_per_turn
        if self._mouth.times is not None:
            self._mouth.times.asked(at)
        self._do(Think(thought=self._thought, turn=self.turn, messages=self.history.messages(), tools=tools))
        self._do(ArmTimer("thought", at + LONGEST_THOUGHT_S))

    def _thought_about(self, event: ThoughtCame | ToolWanted | ThoughtEnded, at: float) -> None:
        if event.thought != self._thought or self.state == "listening":
            self._do(Ignore("stale-thought"))
            return
        self._do(ArmTimer("thought", at + LONGEST_THOUGHT_S))
        match event:
            case ThoughtCame():
                if self._mouth.times is not None:
                    self._mouth.times.first_token(at)
                self._say_answer(self._answer.read(event.text), at)
            case ToolWanted():
                self._answer.calls.append(event.call)
            case ThoughtEnded():
                self._thought_ended(event.failure, at)

    def _say_answer(self, pieces: list[Said], at: float) -> None:
        for piece in pieces:
            filler_at = self._fillers.due_at
            self._rest()
            self.state = "speaking"
            self._mouth.say(self.turn, piece.text, at, goes_on=piece.goes_on, filler_at=filler_at)
            if self._mouth.current is not None:
                self._mouth.current.answers = True

    def _thought_ended(self, failure: str, at: float) -> None:
        answer = self._answer
        self._thought += 1  # nothing more of it is wanted
        self._do(DisarmTimer("thought"))
        if failure and not answer.said:
            self._no_answer(failure, at)
            return
        self._say_answer(answer.end(), at)
        if failure:
            self._fail(at)
        elif answer.calls:
            self._start_tools(answer.calls, at)
        elif answer.end_reason is not None and self._mouth.current is None:
            self._end(answer.end_reason, at)
        else:
            if not answer.said and answer.end_reason is None:
                # An empty answer is no reason for silence on the line, and no failure of a provider.
                self._say(self._agent.apology, at)
            self._complete(at, answer.end_reason)

    # --- what fails ------------------------------------------------------------------------------------------------

    def _no_answer(self, failure: str, at: float) -> None:
        """Nothing of the answer was given out: an answer that broke off may be asked for again, once in a turn."""
        if failure == "broke-off" and not self._asked_again:
            self._asked_again = True
            speaking = self.state == "speaking"
            self._think(at)
            self.state = "speaking" if speaking else "thinking"
        else:
            self._fail(at)

    def _not_understood(self, at: float) -> None:
        """Nobody could find the caller's words."""
        self._mouth.close(at, interrupted=True)
        self._mouth.times = None
        self._mouth.renew()
        self._fail(at)

    def _spoken(self, event: SpokenMessage, at: float) -> None:
        """TTS tells where words lie; or that nobody could speak, and what was to come of the turn is given up."""
        if isinstance(event, WordsTimed):
            self._mouth.timed(event)
            return
        if self.state != "speaking" or not self._mouth.unspoken(event):
            self._do(Ignore("speaking-failed-late"))
            return
        self._thought += 1
        self._do(StopThinking(), DisarmTimer("thought"))
        self._follow_playout(at)

    def _fail(self, at: float) -> None:
        """End a turn that no provider could serve: say so, or, once too often, say goodbye."""
        over = self._failures + 1 >= self._agent.limits.max_failed_turns
        self._say(self._agent.farewell if over else self._agent.apology, at)
        if self._mouth.current is not None:
            self._mouth.current.failed = self._mouth.current.apologised = True
        self._complete(at, PROVIDERS_FAILED if over else None)

    def _after_failure(self, *, apologised: bool, at: float) -> None:
        self._failures += 1
        over = self._failures >= self._agent.limits.max_failed_turns
        if over or not apologised:
            self._mouth.renew()
            self._mouth.times = None
            self._say_all(self._agent.farewell if over else self._agent.apology, at, PROVIDERS_FAILED if over else None)
        else:
            self._listen(at)

    def _start_tools(self, calls: list[ToolCall], at: float) -> None:
        self._tools_this_turn += len(calls)
        for call in calls:
            tool_call = self.history.tool_asked(call)
            self._running.add(tool_call)
            fact = ToolCalled(turn=self.turn, tool_call=tool_call, name=call.name, arguments=call.arguments)
            self._do(Emit(fact))
            self._do(RunTool(turn=self.turn, tool_call=tool_call, name=call.name, arguments=call.arguments))
        self._mouth.watch(at)

    def _tool_done(self, event: ToolDone) -> None:
        if event.tool_call not in self._running:
            self._do(Ignore("unknown-tool-call"))
            return
        self._running.discard(event.tool_call)
        self.history.tool_answered(event)
        fact = ToolReturned(
            turn=self.turn,
            tool_call=event.tool_call,
            name=event.name,
            took_ms=event.took_ms,
            result=event.result,
            error=event.error,
        )
        self._do(Emit(fact))

    def _go_on(self, at: float) -> None:
        """The tools have answered: let the model go on, unless the caller has the floor."""
        if not self._running and self.state in {"thinking", "speaking"}:
            speaking = self.state == "speaking"
            self._think(at)
            self.state = "speaking" if speaking else "thinking"

    def _say(self, sentence: str, at: float) -> None:
        self._rest()
        self.state = "speaking"
        self._mouth.say(self.turn, sentence, at)

    def _say_all(self, text: str, at: float, end_reason: str | None = None) -> None:
        """Say `text`, one of the agent's fixed lines, as a turn of its own; whole, as its clip is kept."""
        self._mouth.begin(self.turn)
        self._say(text, at)
        self._complete(at, end_reason)

    def _complete(self, at: float, end_reason: str | None) -> None:
        """Nothing more comes in this turn."""
        if self._mouth.current is None:
            return
        self._mouth.current.complete = True
        self._mouth.current.end_reason = end_reason
        self._rest()
        self._follow_playout(at)

    # --- what was heard --------------------------------------------------------------------------------------------

    def _played(self, event: PlayoutMessage, at: float) -> None:
        if self._mouth.filled(event):
            if self._fillers.waiting and not isinstance(event, PlayoutStarted):
                self._fillers.silent(at)
                self._arm_filler()
            return
        self._mouth.reported(event)
        current = self._mouth.current
        if self.state == "speaking" and current is not None and current.settled and not current.complete:
            # The rest of the answer is late.
            self._fillers.silent(at)
            self._arm_filler()
        self._follow_playout(at)

    def _follow_playout(self, at: float) -> None:
        if self.state != "speaking":  # the caller has the floor; what comes in only settles what was cut
            return
        if self._mouth.done:
            self._all_heard(at)
        else:
            self._mouth.watch(at)

    def _all_heard(self, at: float) -> None:
        current = self._mouth.current
        reason = current.end_reason if current is not None else None
        self._do(DisarmTimer("playout"))
        self._mouth.close(at, interrupted=False)
        if reason is not None:
            self._end(reason, at)
        elif self._winding_up is not None:
            self._say_last(at)
        elif current is not None and current.failed:
            self._after_failure(apologised=current.apologised, at=at)
        elif self._caller.utterances and not self._caller.speaks:
            self._worked(current)
            # The caller spoke over an agent that does not give way: now is their turn.
            self._take_turn(at)
        else:
            self._worked(current)
            self._listen(at)

    def _worked(self, turn: Speaking | None) -> None:
        if turn is not None and turn.answers:
            self._failures = 0

    def _overdue(self, at: float) -> None:
        """What should have been heard long ago is given up; what never began to play is said again, once."""
        turn = self._mouth.current
        lost = self._mouth.overdue()
        if turn is None or not turn.complete:
            return
        if lost:
            self._say_again(turn, lost, at)
        else:
            self._all_heard(at)

    # --- time ------------------------------------------------------------------------------------------------------

    def _listen(self, at: float) -> None:
        self.state = "listening"
        if not self._caller.speaks:
            self._do(ArmTimer("silence", at + self._agent.turns.reprompt_after_s))

    def _await_answer(self, since: float) -> None:
        self._fillers.wait(since)
        self._arm_filler()

    def _arm_filler(self) -> None:
        if due_at := self._fillers.due_at:
            self._do(ArmTimer("filler", due_at))

    def _rest(self) -> None:
        """Nobody waits for an answer any more: it is there, or the caller speaks."""
        self._fillers.stop()
        self._do(DisarmTimer("filler"))

    def _fill(self, at: float) -> None:
        if self._fillers.waiting and self._winding_up is None:
            text = self._fillers.take(at, expect_s=START_SLACK_S)
            self._mouth.fill(text)
            self._arm_filler()

    def _time_came(self, event: TimerFired, at: float) -> None:
        match event.timer:
            case "duration":
                self._end("exceeded-max-duration", at)
            case "thought":
                self._do(StopThinking())
                self._thought_ended("nobody", at)
            case "filler":
                self._fill(at)
            case "hang-up":
                pass
            case "keys":
                self._keys_entered(at)
            case "silence":
                self._too_quiet(at)
            case "playout":
                if self.state == "speaking":
                    self._overdue(at)

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
        self._mouth.renew()
        self._mouth.times = None
        if self._reprompts < turns.max_reprompts:
            self._reprompts += 1
            self._say_all(turns.reprompt, at)
        else:
            self._say_all(turns.silence_goodbye, at, "silence-timed-out")

    def _came_due(self, timer: Timer, at: float) -> bool:
        """Tell whether `timer` is set and its time has come: one that was moved may have fired already."""
        due = self._due.get(timer)
        if due is None or at < due - 0.05:
            return False
        del self._due[timer]
        return True

    def _do(self, *orders: Order) -> None:
        for order in orders:
            match order:
                case ArmTimer(timer, at):
                    self._due[timer] = at
                case DisarmTimer(timer):
                    self._due.pop(timer, None)
        self._out.extend(orders)
