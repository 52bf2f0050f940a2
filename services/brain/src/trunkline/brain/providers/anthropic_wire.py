"""What Anthropic's Messages API is sent and what its events mean. Pure: it knows no connection and no SDK.

Events are hostile input: a wrong type is `msgspec.ValidationError`, an unknown event or block is nothing.
"""

import re
from collections.abc import Mapping
from itertools import groupby
from typing import Any, Final, Literal

import msgspec

from trunkline.brain.llm import (
    AgentSaid,
    CallerSaid,
    Finished,
    LlmDelta,
    LlmRequest,
    Message,
    SystemNote,
    TextDelta,
    ToolAnswered,
    ToolAsked,
    ToolCall,
    Usage,
)
from trunkline.proto.ids import ToolCallId
from trunkline.providers.errors import Transient

DEFAULT_MODEL: Final = "claude-haiku-5-5"
DEFAULT_MAX_TOKENS: Final = 1_024

# --- what is asked ----------------------------------------------------------------------------------------------------

_BEGINS: Final = "(the call begins)"
_WORDLESS: Final = "(the caller made a sound without words)"
_SILENT: Final = "(the caller says nothing)"
_RUNNING: Final = "(no answer yet)"
_NO_ID: Final = re.compile(r"[^a-zA-Z0-9_-]")


def body_of(request: LlmRequest) -> dict[str, Any]:
    """Return the body of `request`, but for its ``stream``."""
    llm = request.llm
    model = llm.model or DEFAULT_MODEL
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": llm.max_tokens or DEFAULT_MAX_TOKENS,
        "messages": messages_of(request.messages),
    }
    if request.prompt.strip():
        system: dict[str, Any] = {"type": "text", "text": request.prompt}
        if llm.options.get("cache") is not False:
            system["cache_control"] = {"type": "ephemeral"}  # tools come before it, so they are kept with it
        body["system"] = [system]
    if request.tools:
        body["tools"] = [
            {
                "name": tool.name,
                "description": tool.description,
                "input_schema": tool.parameters or {"type": "object", "properties": {}},
            }
            for tool in request.tools
        ]
    elif used := dict.fromkeys(message.name for message in request.messages if isinstance(message, ToolAsked)):
        # A history with tools in it wants them declared, even where none may be asked for any more.
        body["tools"] = [{"name": name, "input_schema": {"type": "object", "properties": {}}} for name in used]
        body["tool_choice"] = {"type": "none"}
    thinking = llm.options.get("thinking")
    if thinking is None and ("haiku" in model or "sonnet" in model):
        thinking = "disabled"  # of a caller's waiting; the other families refuse to be told so
    if thinking is not None:
        body["thinking"] = {"type": thinking}
    if (effort := llm.options.get("effort")) is not None:
        body["output_config"] = {"effort": effort}
    return body | {name: llm.options[name] for name in ("service_tier", "speed") if llm.options.get(name) is not None}


def messages_of(history: tuple[Message, ...]) -> list[dict[str, Any]]:
    """Return `history` as messages: roles alternate, the caller's first and last, and every tool use has its result.

    A tool that was asked for and has not answered is said to run still. Tools asked for in a row are one message's.
    """
    turns: list[dict[str, Any]] = []
    answers = {message.tool_call: message for message in history if isinstance(message, ToolAnswered)}
    asked = {message.tool_call for message in history if isinstance(message, ToolAsked)}
    for in_a_row, group in groupby(history, lambda message: isinstance(message, ToolAsked)):
        messages = list(group)
        if in_a_row:
            uses = [message for message in messages if isinstance(message, ToolAsked)]
            _add(turns, "assistant", [_tool_use(use) for use in uses])
            _add(turns, "user", [_tool_result(use.tool_call, answers.get(use.tool_call)) for use in uses])
            continue
        for message in messages:
            if not (isinstance(message, ToolAnswered) and message.tool_call in asked) and (text := _words(message)):
                _add(turns, "assistant" if isinstance(message, AgentSaid) else "user", [{"type": "text", "text": text}])
    if not turns or turns[-1]["role"] == "assistant":
        _add(turns, "user", [{"type": "text", "text": _SILENT if turns else _BEGINS}])
    return turns


def _add(turns: list[dict[str, Any]], role: Literal["user", "assistant"], blocks: list[dict[str, Any]]) -> None:
    if not turns and role == "assistant":
        turns.append({"role": "user", "content": [{"type": "text", "text": _BEGINS}]})
    if turns and turns[-1]["role"] == role:
        turns[-1]["content"] += blocks
    else:
        turns.append({"role": role, "content": blocks})


def _words(message: Message) -> str:
    match message:
        case CallerSaid(text=text):
            return text.strip() or _WORDLESS
        case AgentSaid(heard=heard):
            return heard.strip()
        case SystemNote(text=text):
            return f"[{text.strip()}]" if text.strip() else ""
        case ToolAsked(name=name):
            return f"[{name}]"
        case ToolAnswered(name=name, result=result, error=error):
            return f"[{name}: {error or result}]"


def _id(tool_call: ToolCallId) -> str:
    return _NO_ID.sub("_", tool_call)  # it may be another provider's


def _tool_use(asked: ToolAsked) -> dict[str, Any]:
    try:
        arguments = msgspec.json.decode(asked.arguments or "{}", type=dict[str, Any])
    except msgspec.DecodeError:
        arguments = {"text": asked.arguments}
    return {"type": "tool_use", "id": _id(asked.tool_call), "name": asked.name, "input": arguments}


def _tool_result(tool_call: ToolCallId, answered: ToolAnswered | None) -> dict[str, Any]:
    result: dict[str, Any] = {"type": "tool_result", "tool_use_id": _id(tool_call)}
    if answered is None:
        return result | {"content": _RUNNING}
    if answered.error:
        return result | {"content": answered.error, "is_error": True}
    return result | {"content": answered.result}


# --- what comes back --------------------------------------------------------------------------------------------------


class _Usage(msgspec.Struct):
    """Counts so far; None where an event leaves one out."""

    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens: int | None = None

    def take(self, counts: "_Usage") -> None:
        """Take over `counts`, which are cumulative."""
        for name in self.__struct_fields__:
            if (count := getattr(counts, name)) is not None:
                setattr(self, name, count)

    @property
    def total(self) -> Usage:
        cached = self.cache_read_input_tokens or 0
        fresh = (self.input_tokens or 0) + (self.cache_creation_input_tokens or 0)  # the API counts these apart
        return Usage(input_tokens=fresh + cached, cached_tokens=cached, output_tokens=self.output_tokens or 0)


class _Opened(msgspec.Struct):
    usage: _Usage = msgspec.field(default_factory=_Usage)


class _Block(msgspec.Struct):
    type: str = ""
    id: str = ""
    name: str = ""
    text: str = ""


class _Delta(msgspec.Struct):
    type: str = ""
    text: str = ""
    partial_json: str = ""
    stop_reason: str | None = None


class Fault(msgspec.Struct):
    """What an error event tells."""

    type: str = ""
    message: str = ""


class _Kind(msgspec.Struct):
    type: str


class Event(_Kind):
    """Any event of a known type; each has some of the fields."""

    index: int = 0
    message: _Opened = msgspec.field(default_factory=_Opened)
    content_block: _Block = msgspec.field(default_factory=_Block)
    delta: _Delta = msgspec.field(default_factory=_Delta)
    usage: _Usage = msgspec.field(default_factory=_Usage)
    error: Fault = msgspec.field(default_factory=Fault)


_EVENTS: Final = frozenset(
    {
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "error",
    }
)
_kind: Final = msgspec.json.Decoder(_Kind)
_event: Final = msgspec.json.Decoder(Event)
_REASONS: Final[Mapping[str | None, Literal["stop", "tool-calls", "length", "refused"]]] = {
    "tool_use": "tool-calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refused",
}


def event_of(data: str) -> Event | None:
    """Return the event that `data` holds, or None when it is of no known type.

    Raises:
        msgspec.DecodeError: it cannot be read.
    """
    return _event.decode(data) if _kind.decode(data).type in _EVENTS else None


class Reading:
    """An answer as far as it has been read."""

    def __init__(self) -> None:
        self.usage: Final = _Usage()
        self.reason: str | None = None
        self.stopped = False
        """All has been said; nothing but the end of the stream is to come."""
        self._tools: dict[int, tuple[_Block, list[str]]] = {}

    @property
    def finished(self) -> Finished:
        """Return how it ended."""
        return Finished(reason=_REASONS.get(self.reason, "stop"), usage=self.usage.total)

    def take(self, event: Event) -> LlmDelta | None:
        """Return what `event` adds, if anything."""
        block, delta = event.content_block, event.delta
        match event.type, block.type or delta.type:
            case "content_block_start", "tool_use":
                self._tools[event.index] = (block, [])
            case "content_block_start", "text":
                return TextDelta(block.text) if block.text else None
            case "content_block_delta", "text_delta":
                return TextDelta(delta.text) if delta.text else None
            case "content_block_delta", "input_json_delta" if event.index in self._tools:
                self._tools[event.index][1].append(delta.partial_json)
            case "content_block_stop", _ if event.index in self._tools:
                return _tool_call(*self._tools.pop(event.index))
            case "message_start", _:
                self.usage.take(event.message.usage)
            case "message_delta", _:
                self.usage.take(event.usage)
                self.reason = delta.stop_reason
            case "message_stop", _:
                self.stopped = True
            case _:
                pass
        return None


def _tool_call(block: _Block, pieces: list[str]) -> ToolCall:
    if not block.id or not block.name:
        raise Transient("a tool use without id or name", "malformed")
    return ToolCall(id=ToolCallId(block.id), name=block.name, arguments="".join(pieces) or "{}")
