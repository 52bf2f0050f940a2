"""What the agent says, on its way to the caller's ear. A pure part of the conversation.

It numbers generations and utterances, hands sentences to TTS, follows what the edge reports of their playout, and keeps
the books of the turn that is being said. It does not know who has the floor.
"""

from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec

from trunkline.brain.heard import Speaking, rest_begins
from trunkline.brain.history import History
from trunkline.brain.measure import TurnTimes
from trunkline.brain.moves import ArmTimer, DisarmTimer, Emit, Ignore, Playout, Speak, Void
from trunkline.brain.snapshot import Mouth
from trunkline.brain.utterance import Fate, Utterance
from trunkline.proto.events import AgentSpoke
from trunkline.proto.ids import Generation, TurnId, UtteranceId
from trunkline.proto.messages import (
    PlayoutCut,
    PlayoutFinished,
    PlayoutStarted,
    Reached,
    SpeakingFailed,
    WordsTimed,
)

START_SLACK_S: Final = 4.0
"""How long after what is playing a sentence may take to begin before it counts as lost."""
PLAYOUT_FACTOR: Final = 3.0
PLAYOUT_SLACK_S: Final = 10.0
"""How much longer than expected a sentence may play before its mark counts as lost."""


class Delivery:
    """The agent's mouth.

    Args:
        history: where sentences are entered as they are said.
        speed: of the voice, a factor on the usual pace.
        do: takes orders.
    """

    def __init__(self, history: History, speed: float, do: Callable[..., None]) -> None:
        self.generation = Generation(0)
        self.times: TurnTimes | None = None
        """The moments of the turn that is being answered, until its first sound."""
        self.current: Speaking | None = None
        """The turn that is being said; one that was cut stays until its books are closed."""
        self._closed: Speaking | None = None
        self._history = history
        self._speed = speed
        self._do: Callable[..., None] = do
        self._utterance = UtteranceId(0)
        self._used = False
        self._fillers: dict[UtteranceId, str] = {}

    # --- what is said ----------------------------------------------------------------------------------------------

    def open(self, generation: Generation) -> None:
        """Begin above `generation`, which somebody has used."""
        self.generation = generation
        self._used = True

    def adopt(self, turn: TurnId, utterance: UtteranceId, text: str, at: float) -> None:
        """Take over a turn that somebody else has said since `at`, as `utterance` of the generation that is current.

        Whoever did so may have told its beginning before anybody of us listened.
        """
        self._utterance = utterance
        current = self.begin(turn)
        self._history.agent_said(current.say(utterance, text, at))
        current.started(current.utterances[-1], at)
        current.complete = True

    def renew(self) -> None:
        """Begin a generation, unless nothing but fillers was said in this one: every turn has one of its own."""
        if self._used:
            self._raise()

    def void(self, reason: Literal["barge-in", "resumed-turn", "overdue"], onset_at: float = 0.0) -> None:
        """Make all that was said so far void, wherever it is."""
        self._raise()
        self._fillers.clear()
        if self.current is not None:
            self.current.shut()
        self._do(Void(self.generation, reason, onset_at), DisarmTimer("playout"))

    def _raise(self) -> None:
        self.generation = Generation(self.generation + 1)
        self._used = False

    def begin(self, turn: TurnId) -> Speaking:
        """Begin to say a turn."""
        self.current = Speaking(turn, self.generation)
        self._used = True
        return self.current

    def say(
        self,
        turn: TurnId,
        text: str,
        at: float,
        *,
        goes_on: bool = False,
        filler_at: float = 0.0,
        remembered: bool = True,
    ) -> Speaking:
        """Have a sentence said, or the next piece of it, as part of the turn under way if there is one.

        What is not `remembered` is no part of what the model is shown.
        """
        current = self.current or self.begin(turn)
        last = current.utterances[-1] if current.utterances else None
        begin = 0
        if last is not None and last.open:
            begin = len(last.text)
            last.text += text
        else:
            text = text.lstrip()  # a piece may go on a sentence that had to end
            if not text:
                return current
            self._utterance = UtteranceId(self._utterance + 1)
            last = current.say(self._utterance, text, at)
            if remembered:
                self._history.agent_said(last)
        last.open = goes_on
        self._used = True
        if self.times is not None:
            self.times.first_sentence(at)
        self._do(Speak(self.generation, last.id, text, goes_on, filler_at, begin))
        return current

    def complete(self, end_reason: str | None) -> None:
        """Nothing more comes in the turn under way: a sentence that is open ends here."""
        if self.current is not None:
            self.shut()
            self.current.complete = True
            self.current.end_reason = end_reason

    def shut(self) -> None:
        """End a sentence of which more was to come."""
        if self.current is not None and self.current.shut():
            last = self.current.utterances[-1]
            self._do(Speak(self.generation, last.id, "", at=len(last.text)))

    def fill(self, text: str) -> None:
        """Say something that is no part of any turn, while one is awaited.

        If the turn before is over, the filler is the first of the generation in which the awaited one is said.
        """
        if self.current is None:
            self.renew()
        self._utterance = UtteranceId(self._utterance + 1)
        self._fillers[self._utterance] = text
        self._do(Speak(self.generation, self._utterance, text))

    @property
    def filling(self) -> bool:
        """Whether the caller hears, or is about to hear, a filler."""
        return bool(self._fillers)

    # --- what became of it -----------------------------------------------------------------------------------------

    def filled(self, event: Playout) -> str | None:
        """Take in what the edge says of a filler; return its text, or None when it was about something else."""
        if isinstance(event, PlayoutStarted):
            return self._fillers.get(event.utterance)
        return self._fillers.pop(event.utterance, None)

    def timed(self, event: WordsTimed) -> None:
        """Take in where the words of an utterance lie."""
        if self.current is not None and (utterance := self.current.find(event.utterance)) is not None:
            utterance.points += event.points

    def unspoken(self, turn: TurnId, event: SpeakingFailed) -> Speaking | None:
        """Take in that TTS could not speak an utterance, and drops what follows; return the turn that fails by that.

        What is played in its place, if anything, is still awaited. A filler takes down the turn it was said in, since
        what was to follow it is dropped as well.
        """
        if event.generation != self.generation:
            return None
        if event.utterance in self._fillers:
            del self._fillers[event.utterance]
            current = self.current or self.begin(turn)
            current.insert(event.utterance)
        elif self.current is not None and self.current.find(event.utterance) is not None:
            current = self.current
        else:
            return None
        current.lose(event.utterance)
        return current

    def unspoken_after_all(self, event: SpeakingFailed) -> Speaking | None:
        """Return the turn whose books were closed last, if `event` is about it: its end was told sooner."""
        closed = self._closed
        if closed is None or event.generation != self.generation or closed.find(event.utterance) is None:
            return None
        self._closed = None
        return closed

    def voice_changed(self, reached_now: Sequence[Reached], at: float) -> None:
        """Say again under new names what the voice before has not: sentences without audio, the rest of a cut one.

        What began to play and is not named has ended already; its report is on the way.
        """
        reached = {known.utterance: known for known in reached_now}
        self._fillers = {utterance: text for utterance, text in self._fillers.items() if utterance in reached}
        current = self.current
        if current is None or current.generation != self.generation:
            return
        for utterance in current.coming:
            known = reached.get(utterance.id)
            gone = utterance.fate is Fate.SAID if known is None else not known.complete
            if gone and not utterance.part and not utterance.lost:
                self._say_rest(current, utterance, known.queued_ms if known is not None else 0, at)

    def _say_rest(self, current: Speaking, utterance: Utterance, spoken_ms: int, at: float) -> None:
        text, goes_on = utterance.text, utterance.open
        begin = rest_begins(text, spoken_ms, utterance.points, self._speed)
        if begin:
            utterance.text, utterance.part, utterance.open = text[:begin].rstrip(), True, False
        rest = None
        if text[begin:].strip():
            self._utterance = UtteranceId(self._utterance + 1)
            rest = Utterance(id=self._utterance, text=text[begin:], said_at=at, open=goes_on)
            self._do(Speak(self.generation, rest.id, rest.text, goes_on))
        self._history.replace(utterance, rest)
        current.replace(utterance, rest)

    @property
    def done(self) -> bool:
        """Whether the turn is complete and the fate of all of it is known."""
        return self.current is not None and self.current.complete and self.current.settled

    def reported(self, event: Playout) -> None:
        """Take in what the edge says of an utterance."""
        current = self.current
        utterance = current.find(event.utterance) if current is not None else None
        if current is None or utterance is None:
            self._do(Ignore("unknown-utterance"))
            return
        match event:
            case PlayoutStarted():
                self._started(current, utterance, event)
            case PlayoutFinished():
                current.finished(utterance, heard=event.heard_ms > 0)
            case PlayoutCut() if utterance.part and event.heard_ms >= event.total_ms:
                current.finished(utterance, heard=event.heard_ms > 0)
            case PlayoutCut():
                complete = event.complete or utterance.part
                current.cut(utterance, event.heard_ms, event.total_ms, complete=complete)

    def _started(self, current: Speaking, utterance: Utterance, event: PlayoutStarted) -> None:
        if current.started(utterance, event.sent_at) and self.times is not None:
            fact = self.times.fact(current.turn, current.generation, event.synthesised_at, event.sent_at)
            self.times = None
            if fact is not None:
                self._do(Emit(fact))

    def watch(self, at: float) -> None:
        """Wait for marks, but not for ever: for TTS to begin with what it was given, or for the carrier to end.

        A sentence that is still being written is not late: how long the model may take is no matter of the mouth's.
        """
        current = self.current
        coming = [] if current is None else [utterance for utterance in current.coming if not utterance.open]
        if current is None or not coming:
            self._do(DisarmTimer("playout"))
            return
        playing_s = current.playing_s() / self._speed
        waiting = any(utterance.fate is Fate.SAID for utterance in coming)
        late_s = playing_s + START_SLACK_S if waiting else PLAYOUT_FACTOR * playing_s + PLAYOUT_SLACK_S
        self._do(ArmTimer("playout", at + late_s))

    def overdue(self) -> list[Utterance]:
        """Give up waiting; return copies of the sentences that were lost before they began to play.

        What did begin is taken as heard, unless that was a filler. Whatever of it all may still come is void: it would
        be spoken over what follows. What was lost once is not returned when it is lost again, nor is what no voice
        could say.
        """
        current = self.current
        self._do(Ignore("playout-overdue"))
        lost = [] if current is None or current.again or current.failed else current.waiting
        copies = [msgspec.structs.replace(utterance) for utterance in lost]
        self.void("overdue")
        for utterance in current.coming if current is not None else []:
            if current is not None and (utterance.fate is Fate.SAID or (utterance.points and not utterance.timed)):
                current.cut(utterance, 0, 0, complete=True)
            elif current is not None:
                current.finished(utterance)
        return copies

    def close(self, at: float, *, interrupted: bool) -> Speaking | None:
        """Close the books on the turn; return it."""
        current, self.current = self.current, None
        if current is None or not current.said:
            return current
        self._closed = current
        current.close()
        fact = AgentSpoke(
            turn=current.turn,
            generation=current.generation,
            said=current.said,
            heard=current.heard,
            interrupted=interrupted,
            started_at=current.started_at or at,
            ended_at=at,
        )
        self._do(Emit(fact))
        return current

    # --- for whoever goes on with it -------------------------------------------------------------------------------

    def kept(self) -> Mouth:
        """Return it as it is to be kept."""
        return Mouth(
            generation=self.generation,
            used=self._used,
            utterance=self._utterance,
            saying=None if self.current is None else self.current.kept(),
            fillers=tuple(self._fillers.items()),
        )

    def restore(self, kept: Mouth) -> None:
        """Begin as `kept`."""
        self.generation, self._used, self._utterance = kept.generation, kept.used, kept.utterance
        self._fillers = dict(kept.fillers)
        self.current = None if kept.saying is None else Speaking.of(kept.saying)

    def above(self, generation: Generation, utterance: UtteranceId) -> None:
        """Somebody has used `generation` and `utterance`, or at least made void what is below."""
        if generation > self.generation:
            self.generation, self._used = generation, True
        self._utterance = max(self._utterance, utterance)

    def take_up(self, turn: TurnId, utterance: Utterance) -> Speaking:
        """Take over a sentence that somebody else has ordered, as part of the turn under way if there is one."""
        current = self.current or self.begin(turn)
        current.utterances.append(utterance)
        self._history.agent_said(utterance)
        return current

    def take_up_filler(self, utterance: UtteranceId, text: str) -> None:
        """Take over a filler that is on its way; what is not told to be is not any more."""
        self._fillers[utterance] = text

    def drop_filler(self, utterance: UtteranceId) -> bool:
        """Forget a filler; return whether it was one."""
        return self._fillers.pop(utterance, None) is not None
