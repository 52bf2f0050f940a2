"""Anthropic's Claude, through the official SDK: ``POST /v1/messages``, streamed.

One attempt per request, nothing kept in between. The SDK sends the request and cuts the stream into server-sent events;
what stands in them is read here, by type, because the SDK takes an event it does not know for one that it does.
"""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Final, Literal

import anthropic
import anthropic.resources.messages  # the SDK would import these in the midst of the first call
import anthropic.resources.models
import httpx2
import msgspec

from trunkline.brain.llm import (
    AgentSaid,
    CallerSaid,
    Finished,
    LlmCapabilities,
    LlmDelta,
    LlmRequest,
    LlmStream,
    Message,
    SystemNote,
    TextDelta,
    ToolAnswered,
    ToolAsked,
    ToolCall,
    Usage,
)
from trunkline.proto.agent import Llm, Tool
from trunkline.proto.ids import ToolCallId
from trunkline.providers import keys
from trunkline.providers.errors import Misconfigured, ProviderError, Rejected, Throttled, Transient, of_status

log = logging.getLogger("trunkline.brain.providers.anthropic")

DEFAULT_MODEL: Final = "claude-haiku-5-5"
DEFAULT_MAX_TOKENS: Final = 1_024
LONGEST_ANSWER: Final = 4_000_000
"""Characters of events; whatever goes on longer is no answer to a caller."""
OPTIONS: Final[Mapping[str, type | tuple[str, ...]]] = {
    "cache": bool,
    "effort": ("low", "medium", "high", "xhigh", "max"),
    "service_tier": ("auto", "standard_only"),
    "speed": ("standard", "fast"),
    "thinking": ("disabled", "adaptive"),
}
_ADDRESS: Final = "https://api.anthropic.com"
_TIMEOUT: Final = anthropic.Timeout(600, connect=60)  # whoever asks has shorter ones
_WARM_S: Final = 2.0
# The library's own 5 s would close the connection between two sentences of a conversation.
_LIMITS: Final = httpx2.Limits(max_connections=1_000, max_keepalive_connections=100, keepalive_expiry=55)
_RAISED: Final = (anthropic.AnthropicError, httpx2.HTTPError, httpx2.StreamError, TypeError, ValueError)


class AnthropicLlm:
    """Claude models by name; key ``ANTHROPIC_API_KEY``, address ``ANTHROPIC_BASE_URL`` (without ``/v1``)."""

    capabilities: Final = LlmCapabilities(model=DEFAULT_MODEL, honours=frozenset({"max_tokens"}))

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._clients: dict[tuple[str, str], anthropic.AsyncAnthropic] = {}

    def check(self, llm: Llm, tools: tuple[Tool, ...]) -> None:
        """See `LlmProvider.check`; the model is left to the service, which has new ones now and then.

        Raises:
            Misconfigured: no key, no such option, one of the wrong type, or a tool whose arguments are no object.
        """
        self._account()
        if llm.endpoint:
            raise Misconfigured("llm.endpoint", "the provider anthropic has one only")
        for name, value in llm.options.items():
            _check_option(name, value)
        for tool in tools:
            if tool.parameters and tool.parameters.get("type") != "object":
                raise Misconfigured(f"tools.{tool.name}.parameters", 'expected a schema with type = "object"')

    async def warm(self, llm: Llm) -> None:
        """Open a connection, by asking about the model: any answer will do."""
        try:
            models = self._client().models.with_streaming_response
            async with asyncio.timeout(_WARM_S), models.retrieve(llm.model or DEFAULT_MODEL) as response:
                async for _ in response.iter_bytes():
                    pass  # a connection is kept once its answer is read
        except Misconfigured:
            pass  # told by `check`, and again by `stream`
        except (*_RAISED, TimeoutError) as error:
            log.debug("warming had no answer to like", extra={"provider": "anthropic", "error": type(error).__name__})

    async def stream(self, request: LlmRequest) -> LlmStream:
        """See `LlmProvider.stream`.

        Raises:
            Misconfigured: as for `check`.
        """
        self.check(request.llm, request.tools)
        client = self._client()
        try:
            asking = client.messages.with_streaming_response.create(stream=True, **_body(request))
            async with asking as response, aclosing(_deltas(response.http_response)) as deltas:
                async for delta in deltas:
                    yield delta
        except _RAISED as error:
            raise _meant(error, client.api_key or "") from None  # the library's own text may quote the key

    async def aclose(self) -> None:
        """Close the connections."""
        while self._clients:
            _, client = self._clients.popitem()
            await client.close()

    def _account(self) -> tuple[str, str]:
        try:
            return keys.address_of("anthropic", self._environ, _ADDRESS), keys.key_of("anthropic", self._environ)
        except keys.MissingKey as error:
            raise Misconfigured(error.variable, str(error)) from error
        except keys.BadAddress as error:
            raise Misconfigured("ANTHROPIC_BASE_URL", str(error)) from error

    def _client(self) -> anthropic.AsyncAnthropic:
        address, key = account = self._account()
        if account not in self._clients:
            self._clients[account] = anthropic.AsyncAnthropic(
                base_url=address,
                api_key=key,
                max_retries=0,
                timeout=_TIMEOUT,
                # A redirect would hand the caller's words to a host that nobody named.
                http_client=anthropic.DefaultAsyncHttpxClient(limits=_LIMITS, follow_redirects=False),
            )
        return self._clients[account]


# --- what is asked ----------------------------------------------------------------------------------------------------

_BEGINS: Final = "(the call begins)"
_WORDLESS: Final = "(the caller made a sound without words)"
_SILENT: Final = "(the caller says nothing)"
_RUNNING: Final = "(no answer yet)"
_NO_ID: Final = re.compile(r"[^a-zA-Z0-9_-]")


def _body(request: LlmRequest) -> dict[str, Any]:
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
    group: list[ToolAsked] = []

    def add(role: Literal["user", "assistant"], *blocks: dict[str, Any]) -> None:
        if not turns and role == "assistant":
            turns.append({"role": "user", "content": [_text(_BEGINS)]})
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": [*blocks]})

    def add_group() -> None:
        if group:
            add("assistant", *map(_tool_use, group))
            add("user", *(_tool_result(use.tool_call, answers.get(use.tool_call)) for use in group))
            group.clear()

    for message in history:
        if not isinstance(message, ToolAsked):
            add_group()
        match message:
            case CallerSaid(text=text):
                add("user", _text(text.strip() or _WORDLESS))
            case AgentSaid(heard=heard) if heard.strip():
                add("assistant", _text(heard.strip()))
            case SystemNote(text=text) if text.strip():
                add("user", _text(f"[{text.strip()}]"))
            case ToolAsked():
                group.append(message)
            case ToolAnswered(tool_call=tool_call, name=name) if tool_call not in asked:
                add("user", _text(f"[{name}: {message.error or message.result}]"))
            case _:
                pass
    add_group()
    if not turns:
        add("user", _text(_BEGINS))
    elif turns[-1]["role"] == "assistant":
        add("user", _text(_SILENT))
    return turns


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


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


def _check_option(name: str, value: object) -> None:
    if name not in OPTIONS:
        raise Misconfigured(f"llm.options.{name}", f"no such option; there are {', '.join(sorted(OPTIONS))}")
    known = OPTIONS[name]
    if isinstance(known, tuple):
        if value not in known:
            raise Misconfigured(f"llm.options.{name}", f"expected one of {', '.join(known)}")
    elif type(value) is not known:
        raise Misconfigured(f"llm.options.{name}", f"expected {known.__name__}")


# --- what comes back --------------------------------------------------------------------------------------------------


class _Usage(msgspec.Struct):
    """Counts so far; None where an event leaves one out."""

    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens: int | None = None


class _Kind(msgspec.Struct):
    type: str


class _MessageOpened(msgspec.Struct):
    usage: _Usage = msgspec.field(default_factory=_Usage)


class _Block(msgspec.Struct):
    type: str
    id: str = ""
    name: str = ""
    text: str = ""


class _BlockDelta(msgspec.Struct):
    type: str
    text: str = ""
    partial_json: str = ""


class _Stop(msgspec.Struct):
    stop_reason: str | None = None


class _Fault(msgspec.Struct):
    type: str = ""
    message: str = ""


class _MessageStart(msgspec.Struct, tag_field="type", tag="message_start"):
    message: _MessageOpened


class _BlockStart(msgspec.Struct, tag_field="type", tag="content_block_start"):
    index: int
    content_block: _Block


class _BlockGoesOn(msgspec.Struct, tag_field="type", tag="content_block_delta"):
    index: int
    delta: _BlockDelta


class _BlockStop(msgspec.Struct, tag_field="type", tag="content_block_stop"):
    index: int


class _MessageDelta(msgspec.Struct, tag_field="type", tag="message_delta"):
    delta: _Stop
    usage: _Usage = msgspec.field(default_factory=_Usage)


class _MessageStop(msgspec.Struct, tag_field="type", tag="message_stop"):
    pass


class _ErrorEvent(msgspec.Struct, tag_field="type", tag="error"):
    error: _Fault


_Event = _MessageStart | _BlockStart | _BlockGoesOn | _BlockStop | _MessageDelta | _MessageStop | _ErrorEvent
_KNOWN: Final = frozenset(
    {"message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta"}
    | {"message_stop", "error"}
)
_kind: Final = msgspec.json.Decoder(_Kind)
_event: Final[msgspec.json.Decoder[_Event]] = msgspec.json.Decoder(_Event)
_REASONS: Final[Mapping[str | None, Literal["stop", "tool-calls", "length", "refused"]]] = {
    "tool_use": "tool-calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refused",
}


async def _deltas(response: httpx2.Response) -> AsyncGenerator[LlmDelta, None]:
    """Yield what the events of `response` mean; it is read to its end, so that its connection is kept."""
    tools: dict[int, tuple[_Block, list[str]]] = {}
    usage = _Usage()
    reason: str | None = None
    stopped = False
    left = LONGEST_ANSWER
    async for sse in anthropic.AsyncStream.raw_events(response):
        left -= len(sse.data)
        if left < 0:
            raise Transient("the answer has no end", "malformed")
        if not sse.data or stopped or _kind.decode(sse.data).type not in _KNOWN:
            continue
        match _event.decode(sse.data):
            case _MessageStart(message=message):
                _count(usage, message.usage)
            case _BlockStart(index=index, content_block=block) if block.type == "tool_use":
                tools[index] = (block, [])
            case _BlockStart(content_block=block) if block.type == "text" and block.text:
                yield TextDelta(block.text)
            case _BlockGoesOn(delta=delta) if delta.type == "text_delta":
                if delta.text:
                    yield TextDelta(delta.text)
            case _BlockGoesOn(index=index, delta=delta) if delta.type == "input_json_delta" and index in tools:
                tools[index][1].append(delta.partial_json)
            case _BlockStop(index=index) if index in tools:
                yield _tool_call(*tools.pop(index))
            case _MessageDelta(delta=stop, usage=counts):
                _count(usage, counts)
                reason = stop.stop_reason
            case _MessageStop():
                stopped = True
            case _ErrorEvent(error=fault):
                raise _of_fault(fault)
            case _:
                pass
    if not stopped:
        raise Transient("the answer ended before its end", "dropped")
    yield Finished(reason=_REASONS.get(reason, "stop"), usage=_total(usage))


def _tool_call(block: _Block, pieces: list[str]) -> ToolCall:
    if not block.id or not block.name:
        raise Transient("a tool use without id or name", "malformed")
    return ToolCall(id=ToolCallId(block.id), name=block.name, arguments="".join(pieces) or "{}")


def _count(usage: _Usage, counts: _Usage) -> None:
    """Take over `counts`, which are cumulative."""
    for name in usage.__struct_fields__:
        if (count := getattr(counts, name)) is not None:
            setattr(usage, name, count)


def _total(usage: _Usage) -> Usage:
    cached = usage.cache_read_input_tokens or 0
    fresh = (usage.input_tokens or 0) + (usage.cache_creation_input_tokens or 0)  # the API counts these apart
    return Usage(input_tokens=fresh + cached, cached_tokens=cached, output_tokens=usage.output_tokens or 0)


# --- what goes wrong --------------------------------------------------------------------------------------------------

_STATUSES: Final = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
}


def _of_fault(fault: _Fault) -> ProviderError:
    """Return what an error told in the midst of an answer stands for; its HTTP status was 200."""
    text = f"{fault.type}: {fault.message}"
    return Throttled(text) if fault.type == "rate_limit_error" else of_status(_STATUSES.get(fault.type, 500), text)


def _meant(error: Exception, key: str) -> Exception:
    """Return what `error` of the libraries means; of a refusal only its message is kept, which quotes no input."""
    if isinstance(error, anthropic.APIStatusError):
        text = f"HTTP {error.status_code}" + (f": {error.api_message}" if isinstance(error.api_message, str) else "")
        return of_status(error.status_code, keys.without_key(text, key), error.response.headers.get("retry-after"))
    if isinstance(error, anthropic.APIConnectionError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    match error:
        case httpx2.ConnectError() | httpx2.ConnectTimeout() | httpx2.PoolTimeout():
            return Transient("no connection", "connect")
        case httpx2.TimeoutException():
            return Transient("no answer", "stall")
        case httpx2.RemoteProtocolError() if "disconnected" not in str(error) and "peer closed" not in str(error):
            return Transient("the answer is no HTTP", "malformed")
        case httpx2.TransportError() | httpx2.StreamError():
            return Transient("the connection broke", "dropped")
        case httpx2.DecodingError() | anthropic.APIError() | msgspec.DecodeError() | UnicodeDecodeError():
            return Transient("the answer cannot be read", "malformed")
        case _:
            return Rejected(f"the request cannot be made: {type(error).__name__}")
