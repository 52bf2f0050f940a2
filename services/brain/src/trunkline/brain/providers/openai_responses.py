"""OpenAI's Responses: the same models, shown the same history, by the protocol that gets its new features first.

Nothing is kept at OpenAI (``store`` is false): each request holds the whole history. The SDK makes objects of a wrong
class of events it does not know, so only their `type` is looked at, and nothing else is believed unread.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

import msgspec
import openai
from openai.types.responses import FunctionToolParam, ResponseInputItemParam

from trunkline.brain.llm import Finished, LlmDelta, LlmRequest, LlmStream, TextDelta, ToolCall, Usage
from trunkline.brain.providers.openai import DEFAULT_MODEL, SAMPLING, OpenAiLlm, given
from trunkline.brain.providers.openai_chat import LONGEST, MOST_TOOLS, Reason, encodable, tokens
from trunkline.brain.providers.openai_history import Turn, parameters, turns
from trunkline.proto.agent import Option
from trunkline.proto.ids import ToolCallId
from trunkline.providers.errors import Transient
from trunkline.providers.openai_sdk import RAISED, meant, timeout_of, told

_T = TypeVar("_T")
_INCOMPLETE: Final[Mapping[str, Reason]] = {"max_output_tokens": "length", "content_filter": "refused"}


class ResponsesLlm(OpenAiLlm):
    """OpenAI's models through ``/responses``; key and address as for `OpenAiLlm`."""

    options: Mapping[str, type] = SAMPLING

    async def stream(self, request: LlmRequest) -> LlmStream:
        """See `LlmProvider.stream`."""
        llm = request.llm
        client = self._client(llm)
        answer = _Answer(client.api_key)
        tools = [_function(tool.name, tool.description, parameters(tool)) for tool in request.tools]
        try:
            async with await client.responses.create(
                model=llm.model or DEFAULT_MODEL,
                instructions=request.prompt or openai.omit,
                input=_items(turns(request.messages)),
                stream=True,
                store=False,
                tools=tools or openai.omit,
                temperature=openai.omit if llm.temperature is None else llm.temperature,
                max_output_tokens=openai.omit if llm.max_tokens is None else llm.max_tokens,
                extra_body=given(_nested(llm.options), tools=bool(tools)),
                timeout=timeout_of(llm.timeouts),
            ) as events:
                async for event in events:
                    for delta in answer.take(event):
                        yield delta
        except RAISED as error:
            if not answer.complete:
                raise meant(error, client.api_key) from None  # the library's own text may quote the key
        yield answer.finished()


class _Delta(msgspec.Struct, frozen=True):
    delta: str


class _Call(msgspec.Struct, frozen=True):
    call_id: str
    name: str
    arguments: str = ""


class _Item(msgspec.Struct, frozen=True):
    type: str | None = None


class _Done(msgspec.Struct, frozen=True):
    item: object = None


class _Details(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct, frozen=True):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _Details | None = None


class _Why(msgspec.Struct, frozen=True):
    reason: str | None = None


class _Error(msgspec.Struct, frozen=True):
    code: object = None
    message: object = None


class _Response(msgspec.Struct, frozen=True):
    usage: object = None
    incomplete_details: _Why | None = None
    error: _Error | None = None


class _Last(msgspec.Struct, frozen=True):
    response: _Response


class _Answer:
    """One answer, put together from events."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._length = 0
        self._tools = 0
        self._refused = False
        self._finished: Finished | None = None

    @property
    def complete(self) -> bool:
        """Whether the last event has come."""
        return self._finished is not None

    def take(self, event: object) -> Iterator[LlmDelta]:
        """Yield what `event`, an object of the SDK's, adds; nothing if its type is not known.

        Raises:
            ProviderError: it tells of a failure, cannot be read, or there is no end to it.
        """
        try:
            yield from self._read(event)
        except (msgspec.ValidationError, UnicodeEncodeError):
            raise Transient("an event cannot be read", "malformed") from None  # its text would quote words

    def finished(self) -> Finished:
        """Return its end.

        Raises:
            Transient: there was none.
        """
        if self._finished is None:
            raise Transient("the answer has no end", "dropped")
        return self._finished

    def _read(self, event: object) -> Iterator[LlmDelta]:
        match _of(event, _Item).type:
            case "response.output_text.delta" | "response.refusal.delta" as kind:
                self._refused |= kind == "response.refusal.delta"
                text = _of(event, _Delta).delta
                self._count(text)
                if text:
                    yield TextDelta(text)
            case "response.output_item.done":
                item = _of(event, _Done).item
                if _of(item, _Item).type == "function_call":
                    call = _of(item, _Call)
                    self._count(call.call_id + call.name + call.arguments)
                    self._tools += 1
                    if not call.name or not call.call_id or self._tools > MOST_TOOLS:
                        raise Transient("no tool that could be called", "malformed")
                    yield ToolCall(id=ToolCallId(call.call_id), name=call.name, arguments=call.arguments or "{}")
            case "response.completed" | "response.incomplete":
                self._end(_of(event, _Last).response)
            case "response.failed":
                error = _of(event, _Last).response.error or _Error()
                raise told({"code": error.code, "message": error.message}, self._key)
            case "error":
                error = _of(event, _Error)
                raise told({"code": error.code, "message": error.message}, self._key)
            case _:
                pass

    def _end(self, response: _Response) -> None:
        why = response.incomplete_details.reason if response.incomplete_details else None
        reason: Reason = "tool-calls" if self._tools else "refused" if self._refused else "stop"
        self._finished = Finished(reason=_INCOMPLETE.get(why or "", reason), usage=_usage(response.usage))

    def _count(self, text: str) -> None:
        if not encodable(text):
            raise Transient("half a character", "malformed")
        self._length += len(text)
        if self._length > LONGEST:
            raise Transient("the answer is too long", "malformed")


def _of(value: object, kind: type[_T]) -> _T:
    return msgspec.convert(value, kind, from_attributes=True)


def _usage(usage: object) -> Usage:
    """Return the figures; none where they cannot be read: an answer is not worse for that."""
    try:
        read = _of(usage, _Usage)
    except (msgspec.ValidationError, UnicodeEncodeError):
        return Usage()
    cached = read.input_tokens_details.cached_tokens if read.input_tokens_details else 0
    return Usage(
        input_tokens=tokens(read.input_tokens or 0),
        cached_tokens=tokens(cached or 0),
        output_tokens=tokens(read.output_tokens or 0),
    )


def _nested(options: Mapping[str, Option]) -> dict[str, Any]:
    """Return `options`, where chat completions' names are, under the names of this protocol."""
    members: dict[str, Any] = dict(options)
    if "reasoning_effort" in members:
        members["reasoning"] = {"effort": members.pop("reasoning_effort")}
    if "verbosity" in members:
        members["text"] = {"verbosity": members.pop("verbosity")}
    return members


def _function(name: str, description: str, schema: dict[str, object]) -> FunctionToolParam:
    # Strict is this protocol's own default, and refuses schemas that chat completions take.
    return {"type": "function", "name": name, "description": description, "parameters": schema, "strict": False}


def _items(history: list[Turn]) -> list[ResponseInputItemParam]:
    items: list[ResponseInputItemParam] = []
    for turn in history:
        if turn.text:
            items.append({"role": "user" if turn.who == "user" else "assistant", "content": turn.text})
        items += [
            {"type": "function_call", "call_id": asked.id, "name": asked.name, "arguments": asked.arguments}
            for asked in turn.tools
        ]
        items += [{"type": "function_call_output", "call_id": asked.id, "output": asked.answer} for asked in turn.tools]
    return items
