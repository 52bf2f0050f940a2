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
never stopped, and no model is asked while a tool is still running.

Times are seconds of one steady clock that agrees with the wall clock; they come in with the events.
"""

from typing import Final, Literal

from trunkline.brain.caller import CallerTurn
from trunkline.brain.heard import Passage, Speaking
from trunkline.brain.llm import CallerSaid, Message, SystemNote, ToolAnswered, ToolAsked, ToolCall
from trunkline.brain.markers import END_CALL, VOICEMAIL, Marker, MarkerFilter, Piece
from trunkline.brain.measure import TurnTimes
from trunkline.brain.moves import (
    ArmTimer,
    DisarmTimer,
    Emit,
    EndCall,
    Ignore,
    Opened,
    Order,
    RunTool,
    Speak,
    StopThinking,
    Think,
    ThoughtCame,
    ThoughtEnded,
    TimerFired,
    Told,
    ToolDone,
    ToolWanted,
    Void,
)
from trunkline.brain.sentences import SentenceSplitter
from trunkline.proto.agent import Agent
from trunkline.proto.events import AgentSpoke, CallerBargedIn, ToolCalled, ToolReturned
from trunkline.proto.ids import Epoch, Generation, ToolCallId, TurnId, UtteranceId
from trunkline.proto.messages import (
    DigitPressed,
    FinalTranscript,
    PartialTranscript,
    PlayoutCut,
    PlayoutFinished,
    PlayoutStarted,
    SpeechStarted,
    TurnEnded,
)

State = Literal["listening", "thinking", "speaking", "over"]

END_REASONS: Final = {END_CALL: "assistant-ended-call", VOICEMAIL: "voicemail"}
LONGEST_SPEECH_S: Final = 40.0
"""STT ends every utterance sooner; when no end has come by then, none will."""
PLAYOUT_SLACK_S: Final = 5.0
"""How much longer than expected a turn may take to be heard before the call goes on without its marks."""
KEYS_PAUSE_S: Final = 1.5
"""Keys pressed within this time of each other are one entry; ``#`` ends it at once."""


class Conversation:
    """One call's turns. See the module's table."""

    def __init__(self, agent: Agent, started_at: float) -> None:
        self._agent = agent
        self._started_at = started_at
        self.state: State = "listening"
        self.turn = TurnId(0)
        self.generation = Generation(0)
        self.history: list[Message | Passage] = []
        self._utterance = UtteranceId(0)
        self._thought = 0
        self._speaking: Speaking | None = None
        self._answer = _Answer()
        self._times: TurnTimes | None = None
        self._caller = CallerTurn()
        self._stt_epoch = Epoch(0)
        self._running: dict[ToolCallId, str] = {}
        self._tools_this_turn = 0
        self._reprompts = 0
        self._keys = ""
        self._out: list[Order] = []

    def handle(self, event: Told, at: float) -> list[Order]:
        """Take in `event`, which happened at `at`; return what is to be done, in order."""
        self._out = []
        if self.state == "over":
            if isinstance(event, ToolDone):
                self._tool_done(event)
            return self._out
        match event:
            case Opened():
                self._open(event)
            case SpeechStarted() | PartialTranscript() | FinalTranscript() | TurnEnded():
                self._heard_speech(event, at)
            case PlayoutStarted() | PlayoutFinished() | PlayoutCut():
                self._heard_playout(event, at)
            case ThoughtCame() | ToolWanted() | ThoughtEnded():
                self._thought_about(event, at)
            case ToolDone():
                self._tool_done(event)
                self._go_on(at)
            case DigitPressed():
                self._key(event.digit, at)
            case TimerFired():
                self._time_came(event, at)
        return self._out

    # --- the call --------------------------------------------------------------------------------------------------

    def _open(self, event: Opened) -> None:
        self.generation = Generation(event.generation + 1)
        self._do(ArmTimer("duration", self._started_at + self._agent.limits.max_duration_s))
        if self._agent.greeting:
            self._say_all(self._agent.greeting, self._started_at)
        else:
            self._listen(self._started_at)

    def _end(self, reason: str) -> None:
        self.state = "over"
        self._do(StopThinking(), EndCall(self.generation, reason))

    def close(self, at: float) -> list[Order]:
        """Return what is left to record when the call has ended, for whatever reason."""
        self._out = []
        if self._speaking is not None:
            self._settle(at, interrupted=not self._speaking.settled)
        self.state = "over"
        return self._out

    # --- the caller ------------------------------------------------------------------------------------------------

    def _heard_speech(self, event: SpeechStarted | PartialTranscript | FinalTranscript | TurnEnded, at: float) -> None:
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
                if self.state != "listening" and self._agent.turns.barge_in:
                    self._give_way(event, at)
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
        audible = self._speaking is not None and self._speaking.audible
        reason: Literal["barge-in", "resumed-turn"] = "barge-in" if audible else "resumed-turn"
        self._silence_agent(reason, event.onset_at)
        if audible:
            fact = CallerBargedIn(turn=self.turn, generation=self.generation, onset_at=event.onset_at, at=at)
            self._do(Emit(fact))
        elif self.history and isinstance(self.history[-1], CallerSaid | Passage) and not self._running:
            self._take_back()
        self.state = "listening"

    def _silence_agent(self, reason: Literal["barge-in", "resumed-turn"], onset_at: float) -> None:
        self.generation = Generation(self.generation + 1)
        self._thought += 1  # whatever still streams in answers nobody's question
        self._do(Void(self.generation, reason, onset_at), StopThinking(), DisarmTimer("playout"))

    def _take_back(self) -> None:
        """Nothing of the answer was heard: the caller's words and those to come are one turn."""
        if isinstance(self.history[-1], Passage):
            self.history.pop()
        self._speaking = None
        if self.history and isinstance(self.history[-1], CallerSaid):
            said = self.history.pop()
            if isinstance(said, CallerSaid):
                self._caller.resume(said.text)
                self.turn = TurnId(self.turn - 1)

    def _take_turn(self, at: float) -> None:
        """The floor is the agent's, if the caller said anything."""
        text = self._caller.text
        if self._caller.utterances:
            self._do(Emit(self._caller.fact(TurnId(self.turn + bool(text)))))
        if not text:
            self._caller = CallerTurn()
            self._nothing_said(at)
            return
        if self._speaking is not None:
            self._settle(at, interrupted=True)
        self.turn = TurnId(self.turn + 1)
        self.history.append(CallerSaid(text=text))
        self._times = self._caller.times
        self._caller = CallerTurn()
        self._reprompts = 0
        self._tools_this_turn = 0
        self.generation = Generation(self.generation + 1)
        self._think(at)

    def _nothing_said(self, at: float) -> None:
        """There was sound, but no words. If it stopped the agent, the agent goes on where it was cut."""
        cut = self._speaking
        rest = cut.unheard if cut is not None and cut.complete else []
        reason = cut.end_reason if cut is not None else None
        self._settle(at, interrupted=True)
        self.generation = Generation(self.generation + 1)
        if rest:
            self._begin_speaking()
            for sentence in rest:
                self._say(sentence, at)
            self._complete(at, reason)
        elif (cut is not None and not cut.complete) or self._owes_an_answer():
            self._think(at)
        else:
            self._listen(at)

    def _owes_an_answer(self) -> bool:
        return bool(self.history) and not isinstance(self.history[-1], Passage)

    def _key(self, digit: str, at: float) -> None:
        self._keys += digit
        self._do(DisarmTimer("silence"))
        if digit == "#":
            self._keys_entered(at)
        else:
            self._do(ArmTimer("keys", at + KEYS_PAUSE_S))

    def _keys_entered(self, at: float) -> None:
        keys, self._keys = self._keys, ""
        self._do(DisarmTimer("keys"))
        if self.state != "listening":
            self._silence_agent("barge-in", at)
        if self._speaking is not None:
            self._settle(at, interrupted=True)
        self.turn = TurnId(self.turn + 1)
        self.history.append(SystemNote(text=f"The caller pressed the keys {keys}"))
        self._times = None
        self.generation = Generation(self.generation + 1)
        self._think(at)

    # --- the agent -------------------------------------------------------------------------------------------------

    def _think(self, at: float) -> None:
        """Ask the model, as soon as no tool is running."""
        self.state = "thinking"
        self._answer = _Answer()
        if self._running:
            return
        self._thought += 1
        tools = self._tools_this_turn < self._agent.limits.max_tool_calls_per_turn
        if self._times is not None:
            self._times.asked(at)
        self._do(Think(thought=self._thought, turn=self.turn, messages=self.messages(), tools=tools))

    def _thought_about(self, event: ThoughtCame | ToolWanted | ThoughtEnded, at: float) -> None:
        if event.thought != self._thought or self.state == "listening":
            self._do(Ignore("stale-thought"))
            return
        match event:
            case ThoughtCame():
                if self._times is not None:
                    self._times.first_token(at)
                self._read(self._answer.filter.feed(event.text), at)
            case ToolWanted():
                self._answer.calls.append(event.call)
            case ThoughtEnded():
                self._thought_ended(event.failure, at)

    def _read(self, pieces: list[Piece], at: float) -> None:
        for piece in pieces:
            match piece:
                case Marker():
                    self._answer.end_reason = END_REASONS.get(piece.name)
                case str():
                    for sentence in self._answer.splitter.feed(piece):
                        self._say(sentence, at)

    def _thought_ended(self, failure: str, at: float) -> None:
        answer = self._answer
        self._read(answer.filter.flush(), at)
        for sentence in answer.splitter.flush():
            self._say(sentence, at)
        if answer.calls and not failure:
            self._start_tools(answer.calls, at)
            return
        said_something = self._speaking is not None and bool(self._speaking.utterances)
        if answer.end_reason is not None and not said_something:
            self._end(answer.end_reason)
            return
        if not said_something:
            # An empty answer is no reason for silence on the line.
            self._say(self._agent.apology, at)
        self._complete(at, None if failure else answer.end_reason)

    def _start_tools(self, calls: list[ToolCall], at: float) -> None:
        self._tools_this_turn += len(calls)
        for call in calls:
            self._running[call.id] = call.name
            self.history.append(ToolAsked(tool_call=call.id, name=call.name, arguments=call.arguments))
            fact = ToolCalled(turn=self.turn, tool_call=call.id, name=call.name, arguments=call.arguments)
            self._do(Emit(fact))
            self._do(RunTool(turn=self.turn, tool_call=call.id, name=call.name, arguments=call.arguments))
        self._watch_playout(at)

    def _tool_done(self, event: ToolDone) -> None:
        if self._running.pop(event.tool_call, None) is None:
            self._do(Ignore("unknown-tool-call"))
            return
        answer = ToolAnswered(tool_call=event.tool_call, name=event.name, result=event.result, error=event.error)
        # Beside its question, even if the caller has spoken since.
        index = next(
            (i + 1 for i, m in enumerate(self.history) if isinstance(m, ToolAsked) and m.tool_call == event.tool_call),
            len(self.history),
        )
        self.history.insert(index, answer)
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

    def _begin_speaking(self) -> Speaking:
        self._speaking = Speaking(self.turn, self.generation)
        self.state = "speaking"
        return self._speaking

    def _say(self, sentence: str, at: float) -> None:
        turn = self._speaking or self._begin_speaking()
        self.state = "speaking"
        self._utterance = UtteranceId(self._utterance + 1)
        turn.say(self._utterance, sentence, at)
        if not (self.history and isinstance(self.history[-1], Passage)):
            self.history.append(Passage())
        passage = self.history[-1]
        if isinstance(passage, Passage):
            passage.utterances.append(turn.utterances[-1])
        if self._times is not None:
            self._times.first_sentence(at)
        self._do(Speak(self.generation, self._utterance, sentence))

    def _say_all(self, text: str, at: float, end_reason: str | None = None) -> None:
        """Say `text` as a turn of its own."""
        self._begin_speaking()
        splitter = SentenceSplitter()
        for sentence in [*splitter.feed(text), *splitter.flush()]:
            self._say(sentence, at)
        self._complete(at, end_reason)

    def _complete(self, at: float, end_reason: str | None) -> None:
        """Nothing more comes in this turn."""
        if self._speaking is None:
            return
        self._speaking.complete = True
        self._speaking.end_reason = end_reason
        if self._speaking.settled:
            self._all_heard(at)
        else:
            self._watch_playout(at)

    # --- what was heard --------------------------------------------------------------------------------------------

    def _heard_playout(self, event: PlayoutStarted | PlayoutFinished | PlayoutCut, at: float) -> None:
        turn = self._speaking
        utterance = turn.find(event.utterance) if turn is not None else None
        if turn is None or utterance is None:
            self._do(Ignore("unknown-utterance"))
            return
        match event:
            case PlayoutStarted():
                if turn.started(utterance, event.sent_at) and self._times is not None:
                    fact = self._times.fact(self.turn, turn.generation, event.synthesised_at, event.sent_at)
                    self._times = None
                    if fact is not None:
                        self._do(Emit(fact))
            case PlayoutFinished():
                turn.finished(utterance)
            case PlayoutCut():
                # In an interrupt the state is no longer speaking; otherwise the sentence was lost on its way.
                turn.cut(utterance, event.heard_ms, event.total_ms, complete=event.complete)
        self._watch_playout(at)
        if turn.complete and turn.settled and self.state == "speaking":
            self._all_heard(at)

    def _watch_playout(self, at: float) -> None:
        if self._speaking is None or self._speaking.settled:
            self._do(DisarmTimer("playout"))
        elif self.state == "speaking":
            self._do(ArmTimer("playout", at + self._speaking.expected_s() + PLAYOUT_SLACK_S))

    def _all_heard(self, at: float) -> None:
        reason = self._speaking.end_reason if self._speaking is not None else None
        self._do(DisarmTimer("playout"))
        self._settle(at, interrupted=False)
        if reason is not None:
            self._end(reason)
        elif self._caller.utterances and not self._caller.speaks:
            # The caller spoke over an agent that does not give way: now is their turn.
            self._take_turn(at)
        else:
            self._listen(at)

    def _settle(self, at: float, *, interrupted: bool) -> None:
        """Close the books on the agent's turn."""
        turn, self._speaking = self._speaking, None
        if turn is None or not turn.utterances:
            return
        turn.close()
        fact = AgentSpoke(
            turn=turn.turn,
            generation=turn.generation,
            said=turn.said,
            heard=turn.heard,
            interrupted=interrupted,
            started_at=turn.started_at or at,
            ended_at=at,
        )
        self._do(Emit(fact))

    # --- time ------------------------------------------------------------------------------------------------------

    def _listen(self, at: float) -> None:
        self.state = "listening"
        if not self._caller.speaks:
            self._do(ArmTimer("silence", at + self._agent.turns.reprompt_after_s))

    def _time_came(self, event: TimerFired, at: float) -> None:
        match event.timer:
            case "duration":
                self._end("exceeded-max-duration")
            case "keys":
                self._keys_entered(at)
            case "silence":
                self._too_quiet(at)
            case "playout":
                if self.state == "speaking" and self._speaking is not None:
                    self._marks_missing(self._speaking, at)

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
        self.generation = Generation(self.generation + 1)
        self._times = None
        if self._reprompts < turns.max_reprompts:
            self._reprompts += 1
            self._say_all(turns.reprompt, at)
        else:
            self._say_all(turns.silence_goodbye, at, "silence-timed-out")

    def _marks_missing(self, turn: Speaking, at: float) -> None:
        """The carrier owes us marks: a turn that should have been heard long ago is taken as heard."""
        self._do(Ignore("playout-overdue"))
        for utterance in turn.coming:
            turn.finished(utterance)
        if turn.complete:
            self._all_heard(at)

    # --- what a model is shown -------------------------------------------------------------------------------------

    def messages(self) -> tuple[Message, ...]:
        """Return the history: of what the agent said, what the caller heard of it."""
        return tuple(m.message() if isinstance(m, Passage) else m for m in self.history)

    def _do(self, *orders: Order) -> None:
        self._out.extend(orders)


class _Answer:
    """One answer of the model, as it streams in."""

    def __init__(self) -> None:
        self.filter = MarkerFilter()
        self.splitter = SentenceSplitter()
        self.calls: list[ToolCall] = []
        self.end_reason: str | None = None
