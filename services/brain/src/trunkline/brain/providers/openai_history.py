"""A call's history as models with OpenAI's protocols must be shown it, whichever of the two is spoken. Pure.

Both refuse a request in which a tool that was asked for has no answer, so questions and answers are paired here; and
what another model wrote (names, ids, arguments) is made to fit.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from trunkline.brain.llm import AgentSaid, CallerSaid, Message, SystemNote, ToolAnswered, ToolAsked
from trunkline.proto.agent import Tool

_LONGEST_ID: Final = 40
_LONGEST_NAME: Final = 64
_NOTHING_YET: Final = '{"error":"no answer yet"}'
_BEGINNING: Final = "[Nobody has been heard yet]"


class Asked(NamedTuple):
    """A tool the model asked for, and what it answered."""

    id: str
    name: str
    arguments: str
    """A JSON object."""
    answer: str


class Turn(NamedTuple):
    """What one side did: the caller said `text`; or the agent said it, or asked for `tools`, or both in this order."""

    who: str
    """``user`` or ``assistant``."""
    text: str = ""
    tools: tuple[Asked, ...] = ()


def turns(messages: Sequence[Message], *, short_ids: bool = False) -> list[Turn]:
    """Return `messages` as turns; what nobody heard is left out, and so are answers nobody asked for.

    There is at least one: Responses refuses a request without any, and so do some models of compatible servers.

    Args:
        messages: oldest first.
        short_ids: ids of tool calls have nine letters and digits.
    """
    told: list[Turn] = []
    after: Message | None = None
    for at, message in enumerate(messages):
        match message:
            case CallerSaid(text=text):
                told.append(Turn("user", text if text.strip() else "[unintelligible]"))
            case SystemNote(text=text):
                told.append(Turn("user", f"[{text}]"))
            case AgentSaid(heard=heard):
                if not heard.strip():
                    continue
                told.append(Turn("assistant", heard))
            case ToolAsked():
                asked = _asked(message, _answer(messages[at + 1 :], message), short_ids=short_ids)
                last = told[-1] if told else Turn("user")
                if last.who == "assistant" and not isinstance(after, ToolAnswered):
                    told[-1] = last._replace(tools=(*last.tools, asked))
                else:
                    told.append(Turn("assistant", tools=(asked,)))
            case ToolAnswered():
                pass  # stands beside its question
        after = message
    return told or [Turn("user", _BEGINNING)]


def parameters(tool: Tool) -> dict[str, object]:
    """Return the JSON Schema of the arguments; a tool without any has an object without properties."""
    return dict(tool.parameters) or {"type": "object", "properties": {}}


def _answer(later: Sequence[Message], question: ToolAsked) -> str:
    for message in later:
        match message:
            case ToolAsked(tool_call=same) if same == question.tool_call:
                break
            case ToolAnswered(tool_call=same, result=result, error=error) if same == question.tool_call:
                return msgspec.json.encode({"error": error}).decode() if error else result
            case _:
                pass
    return _NOTHING_YET


def _asked(message: ToolAsked, answer: str, *, short_ids: bool) -> Asked:
    name = re.sub(r"[^A-Za-z0-9_-]", "_", message.name)[:_LONGEST_NAME] or "_"
    return Asked(_id(message.tool_call, short=short_ids), name, _object(message.arguments), answer)


def _id(own: str, *, short: bool) -> str:
    """Return `own`, or what stands for it, the same every time, where it does not fit."""
    fits = re.fullmatch(r"[A-Za-z0-9]{9}", own) if short else 0 < len(own) <= _LONGEST_ID
    return own if fits else hashlib.sha256(own.encode()).hexdigest()[: 9 if short else _LONGEST_ID]


def _object(arguments: str) -> str:
    try:
        msgspec.json.decode(arguments, type=dict[str, object])
    except (msgspec.DecodeError, RecursionError):
        return "{}"
    return arguments
