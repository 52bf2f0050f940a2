"""What the agent does while the floor is its own: asks the model, runs tools, says the answer, or what stands for one.

Pure. It does not know why the floor is the agent's, nor who has it next; see `conversation` for that. `state` says how
far it is: *listening* until there is something to do, *thinking* until a sentence was given out to be said, *speaking*
until `finish`, which is due as soon as the turn is `heard`.

An answer fails in three ways. Nobody gave one, or it broke off: asked for again once if nothing of it was given out to
be said, else apologised for. Nobody could say it: what was still to come of it is given up. The third, that the caller
was not understood, is told from outside.
"""

from collections.abc import Callable, Sequence
from typing import Literal

from trunkline.brain.answer import Said
from trunkline.brain.delivery import Delivery
from trunkline.brain.errands import Errands
from trunkline.brain.failures import Failures
from trunkline.brain.fillers import Fillers
from trunkline.brain.heard import Speaking, spoken_s
from trunkline.brain.history import History
from trunkline.brain.lines import PROVIDERS_FAILED
from trunkline.brain.measure import TurnTimes
from trunkline.brain.moves import Emit, Ignore, Playout, ThoughtCame, ThoughtEnded, ToolDone, ToolWanted
from trunkline.brain.thinking import Thinking
from trunkline.proto.agent import Agent
from trunkline.proto.events import CallerBargedIn
from trunkline.proto.ids import Generation, TurnId, UtteranceId
from trunkline.proto.messages import PlayoutStarted, Reached, SpeakingFailed, WordsTimed


class Reply:
    """One call's."""

    def __init__(self, agent: Agent, do: Callable[..., None], *, in_pieces: bool) -> None:
        self.state: Literal["listening", "thinking", "speaking"] = "listening"
        self.turn = TurnId(0)
        self.history = History()
        self.fillers = Fillers(agent.turns, do)
        self.errands = Errands(self.history, agent.limits.max_tool_calls_per_turn, do)
        self.thinking = Thinking(do, in_pieces=in_pieces)
        self.mouth = Delivery(self.history, agent.tts.speed, do)
        self.failures = Failures(agent.limits.max_failed_turns)
        self._agent = agent
        self._do: Callable[..., None] = do

    @property
    def generation(self) -> Generation:
        """Which agent turn is current."""
        return self.mouth.generation

    @property
    def heard(self) -> bool:
        """Whether the turn is complete and the caller has heard what they will hear of it."""
        return self.state == "speaking" and self.mouth.done

    # --- something to do -------------------------------------------------------------------------------------------

    def open(self, generation: Generation, greeting: UtteranceId, began_at: float, at: float) -> None:
        """Greet the caller, unless somebody is at it since `began_at`."""
        self.mouth.open(generation)
        if greeting:
            self.mouth.adopt(self.turn, greeting, self._agent.greeting, began_at)
            self.state = "speaking"
            self.mouth.watch(at)
        elif self._agent.greeting:
            self.say(self._agent.greeting, at)

    def answer(self, times: TurnTimes | None, at: float, since: float) -> None:
        """Answer the caller, who has said something new and waits since `since`."""
        self.new_turn(at)
        self.mouth.times = times
        self.fillers.wait(since)
        self.think(at)

    def new_turn(self, at: float) -> None:
        """The caller has said something new; the answer may have to wait."""
        self._close(at, interrupted=True)
        self.turn = TurnId(self.turn + 1)
        self.errands.new_turn()
        self.thinking.new_turn()
        self.mouth.times = None
        self.mouth.renew()

    def go_on(self, at: float) -> bool:
        """There was sound, but no words: if it stopped the agent, go on where it was cut. Return whether it was."""
        self.fillers.stop()
        cut = self.mouth.current
        if cut is not None and cut.complete and cut.unheard:
            self.say_again(cut, [(sentence, False) for sentence in cut.unheard], at)
            return True
        self._close(at, interrupted=True)
        self.mouth.renew()
        if cut is not None and cut.owes_a_word:
            self.own_up(at)
        elif (cut is not None and not cut.complete) or self.history.owes_an_answer:
            self.think(at)
        return self.state != "listening"

    def say(self, text: str, at: float, end_reason: str | None = None) -> None:
        """Say `text`, one of the agent's fixed lines, as a turn of its own; whole, as its clip is kept.

        Once it is heard, the call ends for `end_reason` if there is one.
        """
        self._close(at, interrupted=True)
        self.mouth.times = None
        self.mouth.renew()
        self.mouth.begin(self.turn)
        if text:
            self.mouth.say(self.turn, text, at)
        self._complete(end_reason, at)

    def say_last(self, text: str, at: float, end_reason: str) -> None:
        """Say `text` as the call's last; if it was cut before, what was not heard of it."""
        cut = self.mouth.current
        if cut is not None and cut.end_reason == end_reason and cut.unheard:
            self.say_again(cut, [(sentence, False) for sentence in cut.unheard], at)
        else:
            self.say(text, at, end_reason)

    def own_up(self, at: float) -> None:
        """Tell the caller that nobody could serve them; once too often, say farewell."""
        if self.failures.too_many:
            self.say(self._agent.farewell, at, PROVIDERS_FAILED)
        else:
            self.say(self._agent.apology, at)

    def not_understood(self, at: float) -> None:
        """Nobody could find the caller's words."""
        self._close(at, interrupted=True)
        self.failures.failed()
        self.own_up(at)

    # --- enough of it ----------------------------------------------------------------------------------------------

    def give_way(self, onset_at: float, at: float) -> str | None:
        """The caller speaks: be silent.

        Returns:
            What the caller said before, if nobody heard anything of an answer to it: that and what they say now are one
            turn then. What answers nobody (a greeting, a reprompt, sentences said again) is not taken back: if the
            sound turns out to be no words, it is still to be said.
        """
        current, state = self.mouth.current, self.state
        begun = state != "listening" and current is not None and current.audible
        if state == "listening" and not self.mouth.filling:
            self.fillers.stop()
            return None
        barged_in = begun or self.mouth.filling
        self.fall_silent("barge-in" if barged_in else "resumed-turn", onset_at)
        if barged_in:
            self._do(Emit(CallerBargedIn(turn=self.turn, generation=self.generation, onset_at=onset_at, at=at)))
        if state == "listening" or begun or self.errands.concern_this_turn:
            return None
        said = self.history.take_back(current.utterances if current is not None else [])
        if said is not None:
            self.mouth.current = None
            self.turn = TurnId(self.turn - 1)
        return said

    def fall_silent(self, reason: Literal["barge-in", "resumed-turn"], onset_at: float) -> None:
        """Stop in mid-word."""
        self.fillers.stop()
        self.thinking.stop()
        self.mouth.void(reason, onset_at)
        self.state = "listening"

    def cut_short(self, at: float) -> None:
        """Say what was given out, and no more."""
        self.thinking.stop()
        if self.mouth.current is None:
            self.fillers.stop()
            self.state = "listening"
        else:
            self._complete(self.mouth.current.end_reason, at)

    def finish(self, at: float) -> Speaking | None:
        """Close the books on a turn that was heard, and listen. Return it."""
        self.state = "listening"
        self.fillers.quiet(at, more=False)
        self.mouth.watch(at)
        turn = self._close(at, interrupted=False)
        if turn is not None and turn.given_up:
            self.mouth.void("overdue")  # what TTS was given after it had dropped the rest
        return turn

    def close(self, at: float) -> None:
        """Close the books on whatever was being said."""
        current = self.mouth.current
        self._close(at, interrupted=current is not None and not current.settled)

    # --- the model -------------------------------------------------------------------------------------------------

    def thought(self, event: ThoughtCame | ToolWanted | ThoughtEnded, at: float) -> None:
        """Take in what the model answers."""
        if not self.thinking.takes(event.thought, at):
            self._do(Ignore("stale-thought"))
            return
        match event:
            case ThoughtCame():
                if self.mouth.times is not None:
                    self.mouth.times.first_token(at)
                self._give_out(self.thinking.answer.read(event.text), at)
            case ToolWanted():
                self.thinking.answer.calls.append(event.call)
            case ThoughtEnded():
                self._thought_ended(event.failure, at)

    def stalled(self, at: float) -> None:
        """The model is given up."""
        self.thinking.stop()
        self._thought_ended("nobody", at)

    def tool_done(self, event: ToolDone, at: float) -> None:
        """Take in a tool's answer; the model goes on when no tool is running any more, unless the turn is over."""
        self.errands.done(event)
        current = self.mouth.current
        complete = current is not None and current.complete
        if self.state != "listening" and not complete and not self.thinking.under_way:
            self.think(at)

    def think(self, at: float) -> None:
        """Ask the model, as soon as no tool is running."""
        if self.mouth.current is None:
            self.state = "thinking"
            self.fillers.wait(at)
        if self.errands.running:
            return
        if self.mouth.times is not None:
            self.mouth.times.asked(at)
        self.thinking.ask(self.turn, self.history.messages(), at, tools=self.errands.allowed)

    def _give_out(self, answer: list[Said], at: float) -> None:
        for piece in answer:
            filler_at = self.fillers.first_at
            self.fillers.stop()
            self.state = "speaking"
            turn = self.mouth.say(self.turn, piece.text, at, goes_on=piece.goes_on, filler_at=filler_at)
            turn.answers = True

    def _thought_ended(self, failure: Literal["", "nobody", "broke-off"], at: float) -> None:
        answer = self.thinking.end()
        if failure == "broke-off" and not answer.said and self.thinking.repair():
            self.think(at)
            return
        self._give_out(answer.break_off() if failure else answer.end(), at)
        if failure:
            self._fail(at)
        elif answer.calls:
            self.errands.start(self.turn, answer.calls)
            self.mouth.watch(at)
        elif answer.said or answer.end_reason is not None or self.thinking.continues:
            self._complete(answer.end_reason, at)
        else:
            # An empty answer is no reason for silence on the line, and no failure of a provider.
            self.mouth.say(self.turn, self._agent.apology, at)
            self._complete(None, at)

    def _fail(self, at: float) -> None:
        """The model has failed: say so where the answer broke off."""
        self.failures.failed()
        over = self.failures.too_many
        self.mouth.say(self.turn, self._agent.farewell if over else self._agent.apology, at).failed = True
        self._complete(PROVIDERS_FAILED if over else None, at)

    # --- the voice -------------------------------------------------------------------------------------------------

    def played(self, event: Playout, at: float) -> None:
        """Take in what the caller has heard."""
        filler = self.mouth.filled(event)
        if filler is None:
            self.mouth.reported(event)
        elif isinstance(event, PlayoutStarted):
            self.fillers.begun(at, spoken_s(filler))
        else:
            self.fillers.quiet(at, more=self.fillers.waiting)
        current = self.mouth.current
        if filler is None and self.state == "speaking" and current is not None:
            if current.settled and not current.complete and not self.fillers.waiting:
                self.fillers.quiet(at, more=True)
            self.mouth.watch(at)

    def voice_changed(self, reached: Sequence[Reached], at: float) -> None:
        """Take in that somebody else speaks from now on, who knows nothing of what is still to be said."""
        self.mouth.voice_changed(reached, at)
        if self.state == "speaking":
            self.mouth.watch(at)

    def timed(self, event: WordsTimed) -> None:
        """Take in where the words of a sentence lie."""
        self.mouth.timed(event)

    def unspoken(self, event: SpeakingFailed, at: float, *, may_speak: bool) -> None:
        """Take in that nobody could speak; `may_speak`, the caller has not begun to, either."""
        listening = self.state == "listening"
        turn = self.mouth.unspoken_after_all(event) if listening else self.mouth.unspoken(self.turn, event)
        if turn is None:
            self._do(Ignore("speaking-failed-late"))
            return
        self.failures.failed(after_all=listening)
        turn.owes_a_word = self.failures.too_many or event.instead == ""
        if not listening:
            self.state = "speaking"
            self.fillers.stop()
            self.thinking.stop()
            self.mouth.watch(at)
        elif turn.owes_a_word and may_speak:
            self.own_up(at)

    def overdue(self, at: float) -> None:
        """What should have been heard long ago is given up; what never began to play is said again, once.

        A voice that is silent a second time has failed without a word; an apology would be lost as well.
        """
        turn = self.mouth.current
        if self.state != "speaking" or turn is None:
            return
        lost_again = turn.again and not turn.failed and bool(turn.waiting)
        lost = self.mouth.overdue()
        if lost_again:
            self.failures.failed()
            turn.failed, turn.owes_a_word = True, self.failures.too_many
            self.thinking.stop()
            self._complete(turn.end_reason, at)
        elif lost:
            self.say_again(turn, [(utterance.text, utterance.open) for utterance in lost], at)
        elif not turn.complete:
            self.fillers.quiet(at, more=True)

    def fill(self, at: float) -> None:
        """Say that the answer is late."""
        self.mouth.fill(self.fillers.next(at))

    def say_again(self, cut: Speaking, sentences: list[tuple[str, bool]], at: float, first: str = "") -> None:
        """Say `first`, and what was not heard of a turn, as a turn that goes on, or ends the call, if that one did."""
        self.mouth.close(at, interrupted=True)
        self.history.forget_unheard()
        self.mouth.renew()
        turn = self.mouth.begin(self.turn)
        turn.again, turn.answers = True, cut.answers
        turn.failed, turn.owes_a_word = cut.failed, cut.owes_a_word
        self.state = "speaking"
        if first:
            self.mouth.say(self.turn, first, at, remembered=False)
        for sentence, goes_on in sentences:
            self.mouth.say(self.turn, sentence, at, goes_on=goes_on)
        if cut.complete:
            self._complete(cut.end_reason, at)
        else:
            self.mouth.watch(at)

    def _complete(self, end_reason: str | None, at: float) -> None:
        """Nothing more comes in this turn."""
        self.fillers.stop()
        if self.mouth.current is None:  # an answer without words
            self.mouth.begin(self.turn)
        self.state = "speaking"
        self.mouth.complete(end_reason)
        self.mouth.watch(at)

    def _close(self, at: float, *, interrupted: bool) -> Speaking | None:
        turn = self.mouth.close(at, interrupted=interrupted)
        if turn is not None and turn.answers and turn.audible and not turn.failed:
            self.failures.worked()
        return turn
