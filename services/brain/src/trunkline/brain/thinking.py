"""What the model is asked, and the answer that streams in. Pure.

Every question has a number; whatever answers an older one comes too late.
"""

from collections.abc import Callable
from typing import Final

from trunkline.brain.answer import Answer
from trunkline.brain.llm import AgentSaid, Message
from trunkline.brain.moves import ArmTimer, DisarmTimer, StopThinking, Think
from trunkline.proto.ids import TurnId

LONGEST_THOUGHT_S: Final = 10.0
"""A model that streams nothing for so long has stalled, whatever those say who ask it."""


class Thinking:
    """One call's.

    Args:
        in_pieces: whether sentences are given out before they are whole.
        do: takes orders.
    """

    def __init__(self, do: Callable[..., None], *, in_pieces: bool) -> None:
        self.number = 0
        """Of the question asked last."""
        self.under_way = False
        self.continues = False
        """Whether it was for the rest of what was said in part: there may be none."""
        self.answer = Answer(in_pieces=in_pieces)
        self._do: Callable[..., None] = do
        self._in_pieces = in_pieces
        self._repaired = False

    def new_turn(self) -> None:
        """The caller has said something new."""
        self._repaired = False

    def ask(self, turn: TurnId, messages: tuple[Message, ...], at: float, *, tools: bool) -> None:
        """Ask, and forget what was asked before."""
        self.number += 1
        self.under_way = True
        self.continues = bool(messages) and isinstance(last := messages[-1], AgentSaid) and bool(last.heard)
        self.answer = Answer(in_pieces=self._in_pieces)
        self._do(Think(thought=self.number, turn=turn, messages=messages, tools=tools))
        self._do(ArmTimer("thought", at + LONGEST_THOUGHT_S))

    def takes(self, thought: int, at: float) -> bool:
        """Tell whether what comes answers the question under way; if so, there is more time for the rest."""
        if not self.under_way or thought != self.number:
            return False
        self._do(ArmTimer("thought", at + LONGEST_THOUGHT_S))
        return True

    def end(self) -> Answer:
        """Return the answer: nothing more of it comes, or is wanted."""
        self.under_way = False
        self._do(DisarmTimer("thought"))
        return self.answer

    def stop(self) -> None:
        """Let go of the answer under way."""
        self.under_way = False
        self._do(StopThinking(), DisarmTimer("thought"))

    def repair(self) -> bool:
        """Tell whether an answer that broke off, and of which nothing was said, may be asked for again: once a turn."""
        allowed, self._repaired = not self._repaired, True
        return allowed
