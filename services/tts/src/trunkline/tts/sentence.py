"""A sentence to be spoken, whole or still being written. Pure."""

from trunkline.proto.ids import Epoch, Generation, UtteranceId
from trunkline.proto.messages import Say
from trunkline.tts.text import Cleaning

Key = tuple[Epoch, Generation, UtteranceId]


def key_of(say: Say) -> Key:
    """Return what the pieces of one sentence have in common."""
    return say.epoch, say.generation, say.utterance


class Sentence:
    """One utterance of the agent, as far as it is known."""

    def __init__(self, say: Say) -> None:
        self.key = key_of(say)
        self.epoch, self.generation, self.utterance = self.key
        self.filler_at = say.filler_at
        self.complete = False
        """Whether no more of it will come."""
        self._cleaning = Cleaning()
        self.add(say)

    @property
    def text(self) -> str:
        """What may be spoken so far; whole words, and it only ever grows."""
        return self._cleaning.text

    @property
    def dropped_chars(self) -> int:
        """How many characters were too many."""
        return self._cleaning.dropped_chars

    def add(self, say: Say) -> None:
        """Take its next piece."""
        self._cleaning.push(say.text)
        if not say.goes_on:
            self.end()

    def end(self) -> None:
        """No more of it will come."""
        self._cleaning.end()
        self.complete = True

    def original(self, characters: int) -> int:
        """Return how many characters of the text as it was ordered the first `characters` of `text` stand for."""
        return self._cleaning.original(characters)
