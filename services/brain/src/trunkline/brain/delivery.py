"""What the agent says, on its way to the caller's ear. A pure part of the conversation.

It numbers generations and utterances, hands sentences to TTS, follows what the edge reports of their playout, and keeps
the books of the turn that is being said. It does not know who has the floor.
"""

from collections.abc import Callable
from typing import Final, Literal

from trunkline.brain.heard import Fate, Speaking, Utterance
from trunkline.brain.history import History
from trunkline.brain.measure import TurnTimes
from trunkline.brain.moves import ArmTimer, DisarmTimer, Emit, Ignore, Speak, Void
from trunkline.proto.events import AgentSpoke
from trunkline.proto.ids import Generation, TurnId, UtteranceId
from trunkline.proto.messages import (
    PlayoutCut,
    PlayoutFinished,
    PlayoutMessage,
    PlayoutStarted,
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
        self._history = history
        self._speed = speed
        self._do: Callable[..., None] = do
        self._utterance = UtteranceId(0)
        self._fillers: dict[UtteranceId, Fate] = {}

    def adopt(self, turn: TurnId, utterance: UtteranceId, text: str, at: float) -> None:
        """Take over a turn that somebody else has begun to say, as `utterance` of the generation that is current."""
        self._utterance = utterance
        current = self.begin(turn)
        current.say(utterance, text, at)
        current.complete = True
        self._history.agent_said(current.utterances[-1])

    def renew(self) -> None:
        """Begin a generation: every turn of the agent's has one of its own."""
        self.generation = Generation(self.generation + 1)

    def void(self, reason: Literal["barge-in", "resumed-turn", "overdue"], onset_at: float = 0.0) -> None:
        """Make all that was said so far void, wherever it is."""
        self.renew()
        self._fillers.clear()
        self._do(Void(self.generation, reason, onset_at), DisarmTimer("playout"))

    def begin(self, turn: TurnId) -> Speaking:
        """Begin to say a turn."""
        self.current = Speaking(turn, self.generation)
        return self.current

    def say(self, turn: TurnId, text: str, at: float, *, goes_on: bool = False, filler_at: float = 0.0) -> None:
        """Have a sentence said, or the next piece of it, as part of the turn under way if there is one."""
        current = self.current or self.begin(turn)
        last = current.utterances[-1] if current.utterances else None
        if last is not None and last.open:
            last.text += text
        else:
            self._utterance = UtteranceId(self._utterance + 1)
            last = current.say(self._utterance, text, at)
            self._history.agent_said(last)
        last.open = goes_on
        if self.times is not None:
            self.times.first_sentence(at)
        self._do(Speak(self.generation, last.id, text, goes_on, filler_at))

    def fill(self, text: str) -> None:
        """Say something that is no part of any turn, while one is awaited."""
        self._utterance = UtteranceId(self._utterance + 1)
        self._fillers[self._utterance] = Fate.SAID
        self._do(Speak(self.generation, self._utterance, text))

    @property
    def filling(self) -> bool:
        """Whether the caller hears, or is about to hear, a filler."""
        return bool(self._fillers)

    def filled(self, event: PlayoutMessage) -> bool:
        """Take in what the edge says of a filler; tell whether it was about one."""
        if event.utterance not in self._fillers:
            return False
        if isinstance(event, PlayoutStarted):
            self._fillers[event.utterance] = Fate.STARTED
        else:
            del self._fillers[event.utterance]
        return True

    def timed(self, event: WordsTimed) -> None:
        """Take in where the words of an utterance lie."""
        if self.current is not None and (utterance := self.current.find(event.utterance)) is not None:
            utterance.points += event.points

    def unspoken(self, event: SpeakingFailed) -> bool:
        """Take in that TTS could not speak an utterance, and drops what follows; tell whether that concerns the turn.

        What is played in its place, if anything, is still awaited.
        """
        current = self.current
        if current is None or event.generation != self.generation:
            return False
        failing = current.find(event.utterance)
        if failing is None:
            return False
        failing.lost = current.failed = current.complete = True
        current.apologised = current.apologised or event.instead == "apology"
        for utterance in current.utterances:
            if utterance.id > event.utterance:
                utterance.lost = True
                current.cut(utterance, 0, 0, complete=True)
        return True

    @property
    def done(self) -> bool:
        """Whether the turn is complete and the fate of all of it is known."""
        return self.current is not None and self.current.complete and self.current.settled

    def reported(self, event: PlayoutMessage) -> None:
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
            case PlayoutCut():
                current.cut(utterance, event.heard_ms, event.total_ms, complete=event.complete)

    def _started(self, current: Speaking, utterance: Utterance, event: PlayoutStarted) -> None:
        if current.started(utterance, event.sent_at) and self.times is not None:
            fact = self.times.fact(current.turn, current.generation, event.synthesised_at, event.sent_at)
            self.times = None
            if fact is not None:
                self._do(Emit(fact))

    def watch(self, at: float) -> None:
        """Wait for marks, but not for ever: for TTS to begin with what it was given, or for the carrier to end."""
        if self.current is None or self.current.settled:
            self._do(DisarmTimer("playout"))
            return
        playing_s = self.current.playing_s() / self._speed
        waiting = bool(self.current.waiting)
        late_s = playing_s + START_SLACK_S if waiting else PLAYOUT_FACTOR * playing_s + PLAYOUT_SLACK_S
        self._do(ArmTimer("playout", at + late_s))

    def overdue(self) -> list[str]:
        """Give up waiting; return the sentences that were lost before they began to play.

        What did begin is taken as heard. Whatever of it all may still come is void: it would be spoken over what
        follows. What was lost once is not returned when it is lost again.
        """
        current = self.current
        self._do(Ignore("playout-overdue"))
        self.void("overdue")
        if current is None:
            return []
        lost = current.waiting
        for utterance in current.coming:
            if utterance in lost:
                current.cut(utterance, 0, 0, complete=True)
            else:
                current.finished(utterance)
        return [] if current.again else [utterance.text for utterance in lost]

    def close(self, at: float, *, interrupted: bool) -> None:
        """Close the books on the turn."""
        current, self.current = self.current, None
        if current is None or not current.utterances:
            return
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
