"""The LLM provider `recite`: answers every question with the words it is known by, and nothing else.

What it answers depends on the history alone. When the last question has been answered in part, the rest follows: it
believes, as models do, what the history says was heard.
"""

import asyncio
import secrets
from collections.abc import Mapping
from typing import Final

import msgspec

from trunkline.brain.llm import (
    AgentSaid,
    CallerSaid,
    Finished,
    LlmCapabilities,
    LlmRequest,
    LlmStream,
    Message,
    TextDelta,
    ToolAnswered,
    ToolAsked,
    ToolCall,
)
from trunkline.chaos.codebook import LINES, answer, text_of, words_in
from trunkline.chaos.script import TOOL, WANTS_TOOL, question_in
from trunkline.proto.agent import Llm, Tool
from trunkline.proto.ids import ToolCallId

FIRST_S: Final = 0.3
"""How long it thinks."""
BETWEEN_S: Final = 0.0125
"""Between two words: 24 of them take 0.3 s."""


class ReciteLlm:
    """The one who knows all answers by heart."""

    capabilities: Final = LlmCapabilities(usage=False, continues=True)

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Need nothing of `environ`."""

    def check(self, llm: Llm, tools: tuple[Tool, ...]) -> None:
        """Accept every agent."""

    async def warm(self, llm: Llm) -> None:
        """Need nothing."""

    async def stream(self, request: LlmRequest) -> LlmStream:
        """Answer the last question that is not answered yet."""
        await asyncio.sleep(FIRST_S)
        wanted = due(request.call, request.messages)
        if isinstance(wanted, int):
            arguments = msgspec.json.encode({"question": wanted}).decode()
            yield ToolCall(id=ToolCallId(f"led-{secrets.token_hex(4)}"), name=TOOL, arguments=arguments)
            yield Finished(reason="tool-calls")
            return
        for at, word in enumerate(wanted.split()):
            yield TextDelta(f" {word}" if at else word)
            await asyncio.sleep(BETWEEN_S)
        yield Finished()

    async def aclose(self) -> None:
        """Nothing to free."""


def due(call: str, messages: tuple[Message, ...]) -> str | int:
    """Return what is to be said now; or the number of the question for which a tool is to be asked first.

    Several questions may have been asked since anything was answered: all are answered, in their order.
    """
    said: list[str] = []
    questions: list[int] = []
    tool_asked: set[int] = set()
    for message in messages:
        match message:
            case CallerSaid(text=text) if (question := question_in(text)) is not None:
                questions.append(question)
            case AgentSaid(heard=heard):
                said += words_in(heard)
            case ToolAsked(name=name, arguments=arguments) if name == TOOL:
                tool_asked.add(int(msgspec.json.decode(arguments)["question"]))
            case ToolAnswered() | _:
                pass
    last = messages[-1] if messages else None
    if isinstance(last, CallerSaid) and question_in(last.text) is None:
        return LINES.unasked
    texts = []
    for question in questions:
        words = answer(call, question)
        rest = _rest(words, said)
        if not rest:
            continue
        begun = len(rest) < len(words)
        later = question != questions[-1] and begun
        if later:
            continue  # cut off by the caller, who has asked for something else
        if question == WANTS_TOOL and question not in tool_asked:
            return question
        texts.append(text_of(rest))
    if not texts and not isinstance(last, AgentSaid):
        return LINES.unasked
    return " ".join(texts)


def _rest(words: tuple[str, ...], said: list[str]) -> tuple[str, ...]:
    """Return `words` from behind the last one that has been said."""
    heard = set(said)
    behind = [at + 1 for at, word in enumerate(words) if word in heard]
    return words[max(behind, default=0) :]
