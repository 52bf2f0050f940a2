"""One sentence of the agent's, and what became of it. Pure data."""

from enum import Enum

import msgspec

from trunkline.proto.ids import UtteranceId


class Fate(Enum):
    """What became of an utterance."""

    SAID = "said"
    STARTED = "started"
    FINISHED = "finished"
    CUT = "cut"


class Utterance(msgspec.Struct):
    """A sentence of the agent's."""

    id: UtteranceId
    text: str
    said_at: float
    fate: Fate = Fate.SAID
    heard: str = ""
    open: bool = False
    """Whether more of its text is still to come."""
    lost: bool = False
    """Whether what was played under its name is not its text."""
    points: tuple[tuple[int, int], ...] = ()
    """How far its text is spoken when: ``(characters, ms)``, as far as the voice tells."""
    part: bool = False
    """Whether its voice was lost in its midst: it ends with its text, and the rest is another's."""

    @property
    def before_ms(self) -> int:
        """How much of its audio is not of it: a filler that came first."""
        return max((ms for characters, ms in self.points if characters == 0), default=0)

    @property
    def timed(self) -> bool:
        """Whether it is known where its words lie."""
        return any(characters for characters, _ in self.points)
