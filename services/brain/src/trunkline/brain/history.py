"""What has been said and done in a call, in the order in which it was decided. Pure.

A model is shown it as it was heard: what the agent said lies in it as `Passage`s, whose sentences are those the playout
is reported for.
"""

from collections.abc import Iterable, Mapping

import msgspec

from trunkline.brain.heard import Passage
from trunkline.brain.llm import CallerSaid, Message, SystemNote, ToolAnswered, ToolAsked, ToolCall
from trunkline.brain.moves import ToolDone
from trunkline.brain.snapshot import Spoke
from trunkline.brain.utterance import Utterance
from trunkline.proto.ids import ToolCallId, UtteranceId


class History:
    """One call's."""

    def __init__(self) -> None:
        self._items: list[Message | Passage] = []
        self._tool_ids: set[ToolCallId] = set()

    def messages(self) -> tuple[Message, ...]:
        """Return it as a model is shown it."""
        return tuple(item.message() if isinstance(item, Passage) else item for item in self._items)

    @property
    def owes_an_answer(self) -> bool:
        """Whether the last word is not the agent's."""
        return bool(self._items) and not isinstance(self._items[-1], Passage)

    def caller_said(self, text: str) -> None:
        """Add a turn of the caller's."""
        self._items.append(CallerSaid(text=text))

    def noted(self, text: str) -> None:
        """Add something that nobody said."""
        self._items.append(SystemNote(text=text))

    def agent_said(self, utterance: Utterance) -> None:
        """Add a sentence of the agent's; those said in a row are one passage."""
        if not (self._items and isinstance(self._items[-1], Passage)):
            self._items.append(Passage())
        passage = self._items[-1]
        if isinstance(passage, Passage):
            passage.utterances.append(utterance)

    def replace(self, utterance: Utterance, by: Utterance | None) -> None:
        """Enter `by` in the place of `utterance`, or behind it if that is a part."""
        for item in self._items:
            if isinstance(item, Passage) and utterance in item.utterances:
                at = item.utterances.index(utterance)
                item.utterances[at : at + 1] = [
                    *([utterance] if utterance.part else []),
                    *([by] if by is not None else []),
                ]

    def tool_asked(self, call: ToolCall) -> ToolCallId:
        """Add the wish for a tool; return the id it goes by in this call.

        Some models count theirs from nought in every answer.
        """
        own, n = call.id, 1
        while own in self._tool_ids:
            n += 1
            own = ToolCallId(f"{call.id}-{n}")
        self._tool_ids.add(own)
        self._items.append(ToolAsked(tool_call=own, name=call.name, arguments=call.arguments))
        return own

    def tool_answered(self, done: ToolDone) -> None:
        """Add a tool's answer beside its question, even if the caller has spoken since."""
        answer = ToolAnswered(tool_call=done.tool_call, name=done.name, result=done.result, error=done.error)
        for at, item in enumerate(self._items):
            if isinstance(item, ToolAsked) and item.tool_call == done.tool_call:
                self._items.insert(at + 1, answer)
                return

    def take_back(self, unheard: list[Utterance]) -> str | None:
        """Remove the caller's last turn and the beginning of its answer, `unheard`; return what the caller said.

        Nothing is removed, and None returned, when the agent's last words were heard in part or answered nobody.
        """
        answered = len(self._items) - 1
        if self._items and isinstance(passage := self._items[-1], Passage):
            if any(utterance not in unheard for utterance in passage.utterances):
                return None
            answered -= 1
        if answered < 0 or not isinstance(said := self._items[answered], CallerSaid):
            return None
        del self._items[answered:]
        return said.text

    def forget_unheard(self) -> None:
        """Drop sentences of the last passage that nobody heard: they are said again."""
        if self._items and isinstance(passage := self._items[-1], Passage):
            passage.utterances = [utterance for utterance in passage.utterances if utterance.heard]

    # --- for whoever goes on with it -------------------------------------------------------------------------------

    def kept(self) -> tuple[Message | Spoke, ...]:
        """Return it as it is to be kept."""
        return tuple(
            Spoke(tuple(msgspec.structs.replace(utterance) for utterance in item.utterances))
            if isinstance(item, Passage)
            else item
            for item in self._items
        )

    def restore(self, kept: Iterable[Message | Spoke], said: Mapping[UtteranceId, Utterance]) -> None:
        """Begin as `kept`; the sentences in `said` are those that are still being said."""
        for item in kept:
            if isinstance(item, Spoke):
                passage = Passage()
                passage.utterances = [said.get(known.id) or msgspec.structs.replace(known) for known in item.utterances]
                self._items.append(passage)
            else:
                self._items.append(item)
                if isinstance(item, ToolAsked):
                    self._tool_ids.add(item.tool_call)
