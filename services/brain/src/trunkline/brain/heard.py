"""What the caller heard of what the agent said. Pure.

An agent's turn is a list of utterances (sentences). Each is on its way, heard in full, or cut; the history that a model
is shown, and the records, hold what was heard.
"""

import math
from typing import Final

import msgspec

from trunkline.brain.llm import AgentSaid
from trunkline.brain.snapshot import Saying
from trunkline.brain.utterance import Fate, Utterance
from trunkline.proto.ids import Generation, TurnId, UtteranceId

CHARACTERS_PER_S: Final = 14.0
"""Pace of speech when nothing better is known; English text read aloud runs at 13 to 16 characters a second."""
BRISK_CHARACTERS_PER_S: Final = 18.0
"""Of a voice in a hurry: who must not say a word twice believes that so much was said."""


def timed_words(text: str, heard_ms: int, points: tuple[tuple[int, int], ...]) -> str:
    """Return the words of `text` that were spoken in full in `heard_ms` of its audio, as `points` tell."""
    reach = max((characters for characters, ms in points if ms <= heard_ms), default=0)
    if reach < len(text) and not text[reach].isspace():
        reach = text.rfind(" ", 0, reach + 1)
    return " ".join(text[: max(0, reach)].split())


def heard_words(text: str, heard_ms: int, total_ms: int, *, complete: bool) -> str:
    """Return the words of `text` that fit into `heard_ms` of its `total_ms` of audio, never half a word.

    `complete` says that `total_ms` is all of the audio; otherwise the rest was still to come, and the usual pace of
    speech bounds it from below.
    """
    if not complete:
        total_ms = max(total_ms, int(len(text) / CHARACTERS_PER_S * 1000))
    if total_ms <= 0 or heard_ms <= 0:
        return ""
    if heard_ms >= total_ms:
        return text
    reach = len(text) * heard_ms / total_ms
    words = text.split()
    kept: list[str] = []
    used = 0
    for word in words:
        used += len(word)
        if used > reach:
            break
        kept.append(word)
        used += 1
    return " ".join(kept)


def rest_begins(text: str, spoken_ms: int, points: tuple[tuple[int, int], ...], speed: float = 1.0) -> int:
    """Return where in `text` the first word begins of which nothing can have been spoken; its length if there is none.

    No word is to be said twice, rather lost: one that may have begun counts as spoken.

    Args:
        text: of the sentence.
        spoken_ms: how much audio of it there is.
        points: as of `Utterance.points`.
        speed: of the voice, a factor on the usual pace.
    """
    begins_ms = max((ms for characters, ms in points if characters == 0), default=0)
    if spoken_ms <= begins_ms:
        return 0
    passed, passed_ms = max((point for point in points if point[1] <= spoken_ms), default=(0, begins_ms))
    ahead = min((characters for characters, ms in points if ms > spoken_ms and characters > passed), default=None)
    if spoken_ms <= passed_ms:
        touched = passed
    elif ahead is not None:
        touched = ahead  # its word is being spoken
    else:
        after = passed + len(text[passed:]) - len(text[passed:].lstrip())
        touched = after + max(1, math.ceil((spoken_ms - passed_ms) / 1_000 * BRISK_CHARACTERS_PER_S * speed))
    at = min(touched, len(text))
    while 0 < at < len(text) and not text[at].isspace() and not text[at - 1].isspace():
        at += 1
    return at + len(text[at:]) - len(text[at:].lstrip())


def spoken_s(text: str) -> float:
    """Return how long `text` may take to say at the usual pace; a digit, a sign or a foreign letter is a word or so."""
    plain = sum(character.isascii() and (character.isalpha() or character.isspace()) for character in text)
    return (plain + 5 * (len(text) - plain)) / CHARACTERS_PER_S


class Speaking:
    """The agent's current turn: what it says, and how far the caller has heard it."""

    def __init__(self, turn: TurnId, generation: Generation) -> None:
        self.turn = turn
        self.generation = generation
        self.utterances: list[Utterance] = []
        self.complete = False
        """Whether nothing more will be said in this turn."""
        self.end_reason: str | None = None
        """Why the call ends once this turn was heard; None when it goes on."""
        self.started_at: float | None = None
        self.again = False
        """Whether it repeats what was lost on its way."""
        self.answers = False
        """Whether it is a model's answer, and not a sentence of ours."""
        self.failed = False
        """Whether no provider could do its part."""
        self.owes_a_word = False
        """Whether the caller is still to be told that it failed."""
        self.given_up = False
        """Whether sentences of it were given to TTS that nobody waits for any more."""

    @classmethod
    def of(cls, kept: Saying) -> "Speaking":
        """Return the turn that was kept as `kept`."""
        turn = cls(kept.turn, kept.generation)
        turn.utterances = [msgspec.structs.replace(utterance) for utterance in kept.utterances]
        turn.complete, turn.end_reason, turn.started_at = kept.complete, kept.end_reason, kept.started_at
        turn.again, turn.answers, turn.failed = kept.again, kept.answers, kept.failed
        turn.owes_a_word, turn.given_up = kept.owes_a_word, kept.given_up
        return turn

    def kept(self) -> Saying:
        """Return it as it is to be kept."""
        return Saying(
            turn=self.turn,
            generation=self.generation,
            utterances=tuple(msgspec.structs.replace(utterance) for utterance in self.utterances),
            complete=self.complete,
            end_reason=self.end_reason,
            started_at=self.started_at,
            again=self.again,
            answers=self.answers,
            failed=self.failed,
            owes_a_word=self.owes_a_word,
            given_up=self.given_up,
        )

    def say(self, utterance: UtteranceId, text: str, at: float) -> Utterance:
        """Add a sentence."""
        self.utterances.append(Utterance(id=utterance, text=text, said_at=at))
        return self.utterances[-1]

    def insert(self, utterance: UtteranceId) -> None:
        """Add what was said in the midst of it and is no part of it: a filler that could not be spoken."""
        self.utterances.append(Utterance(id=utterance, text="", said_at=0.0))
        self.utterances.sort(key=lambda known: known.id)

    def replace(self, utterance: Utterance, by: Utterance | None) -> None:
        """Have `by` said last, in place of `utterance`, or of the rest of it if that is a part."""
        if not utterance.part:
            self.utterances.remove(utterance)
        if by is not None:
            self.utterances.append(by)

    def shut(self) -> bool:
        """No more of its last sentence comes; return whether more was to come."""
        open_last = bool(self.utterances) and self.utterances[-1].open
        if open_last:
            self.utterances[-1].open = False
        return open_last

    def lose(self, failing: UtteranceId) -> None:
        """No voice can say `failing`, and nothing that follows it is said; some other sound may be played for it."""
        self.failed = self.complete = True
        self.shut()
        for utterance in self.utterances:
            if utterance.id >= failing and utterance in self.coming:
                utterance.lost = True
                if utterance.id > failing:
                    self.given_up = True
                    self.cut(utterance, 0, 0, complete=True)

    def find(self, utterance: UtteranceId) -> Utterance | None:
        """Return the utterance of that id, or None when it is not of this turn."""
        return next((known for known in self.utterances if known.id == utterance), None)

    def started(self, utterance: Utterance, at: float) -> bool:
        """Note that audio of `utterance` left for the caller; return whether it is the turn's first."""
        if utterance.fate is Fate.SAID:
            utterance.fate = Fate.STARTED
        first = self.started_at is None
        if first:
            self.started_at = at
        return first

    def finished(self, utterance: Utterance, *, heard: bool = True) -> None:
        """Note that `utterance` is over, and whether the caller has heard it: it may have had no sound."""
        utterance.fate = Fate.FINISHED
        utterance.heard = utterance.text if heard and not utterance.lost else ""

    def cut(self, utterance: Utterance, heard_ms: int, total_ms: int, *, complete: bool) -> None:
        """Note that `utterance` was ended early."""
        utterance.fate = Fate.CUT
        if utterance.lost:
            utterance.heard = ""
        elif utterance.timed and heard_ms < total_ms:
            utterance.heard = timed_words(utterance.text, heard_ms, utterance.points)
        else:
            before_ms = utterance.before_ms
            utterance.heard = heard_words(utterance.text, heard_ms - before_ms, total_ms - before_ms, complete=complete)

    def close(self) -> None:
        """Nothing more will be learned: what has not been reported heard was not heard."""
        for utterance in self.coming:
            utterance.fate = Fate.CUT

    @property
    def coming(self) -> list[Utterance]:
        """What is still on its way to the caller."""
        return [u for u in self.utterances if u.fate in {Fate.SAID, Fate.STARTED}]

    @property
    def waiting(self) -> list[Utterance]:
        """What was given to TTS and has not begun to play."""
        return [u for u in self.utterances if u.fate is Fate.SAID]

    @property
    def audible(self) -> bool:
        """Whether the caller has heard anything of this turn."""
        return self.started_at is not None

    @property
    def settled(self) -> bool:
        """Whether the fate of all that was said is known."""
        return not self.coming

    @property
    def said(self) -> str:
        """All that was meant to be heard."""
        return " ".join(u.text for u in self.utterances if u.text)

    @property
    def heard(self) -> str:
        """What was heard, as far as is known."""
        return " ".join(u.heard for u in self.utterances if u.heard)

    @property
    def unheard(self) -> list[str]:
        """The sentences to say again if the turn was cut for nothing: from the one that was cut.

        What no voice could say is not among them.
        """
        return [u.text for u in self.utterances if u.fate is not Fate.FINISHED and not u.lost]

    def playing_s(self) -> float:
        """Return how long what the carrier has may take to play, at the usual pace."""
        return sum(spoken_s(u.text) for u in self.utterances if u.fate is Fate.STARTED)


class Passage:
    """Sentences the agent said in a row, in the history; what was heard of them may still change."""

    def __init__(self) -> None:
        self.utterances: list[Utterance] = []

    def message(self) -> AgentSaid:
        """Return it for a model. What is still on its way counts as heard."""
        coming = {Fate.SAID, Fate.STARTED}
        heard = " ".join(u.text if u.fate in coming else u.heard for u in self.utterances)
        return AgentSaid(text=" ".join(u.text for u in self.utterances), heard=heard.strip())
