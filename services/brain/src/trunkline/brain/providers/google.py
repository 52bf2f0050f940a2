"""Google's Gemini, through the official SDK: ``streamGenerateContent`` of the Gemini API.

One attempt per request, nothing kept in between. The SDK is given an HTTP client of ours: left to itself it takes
another one, which repeats failed requests after seconds.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any, Final

import httpx2
import msgspec
from google.genai import Client, errors, types
from google.genai.client import DebugConfig

from trunkline.brain.llm import LlmCapabilities, LlmDelta, LlmRequest, LlmStream, TextDelta, ToolCall
from trunkline.brain.providers.google_wire import DEFAULT_MODEL, config_of, contents_of, finished, made_id
from trunkline.brain.providers.openai_chat import encodable
from trunkline.proto.agent import Llm, Option, Tool
from trunkline.proto.ids import ToolCallId
from trunkline.providers import keys
from trunkline.providers.errors import (
    Misconfigured,
    ProviderError,
    Rejected,
    Throttled,
    Transient,
    Unauthorised,
    of_status,
    seconds_of,
)

log = logging.getLogger("trunkline.brain.providers.google")

LONGEST_ANSWER: Final = 1_000_000
"""Characters of text and arguments; whatever goes on longer is no answer to a caller."""
OPTIONS: Final[Mapping[str, type]] = {
    "seed": int,
    "thinking_budget": int,
    "thinking_level": str,
    "top_k": int,
    "top_p": float,
}
LEVELS: Final = ("minimal", "low", "medium", "high")
_ADDRESS: Final = "https://generativelanguage.googleapis.com"
_WARM_S: Final = 2.0
# Left to itself, the SDK writes requests to files, or answers from them, when the process's environment says so.
_LIVE: Final = DebugConfig(client_mode=None, replays_directory=None, replay_id=None)
_LONG_S: Final = 600  # whoever asks has shorter time-outs
# The library's own 5 s would close the connection between two sentences of a conversation.
_LIMITS: Final = httpx2.Limits(max_connections=1_000, max_keepalive_connections=100, keepalive_expiry=55)
# What an answer of a strange shape makes the SDK stumble over is not only its own errors.
_RAISED: Final = (
    errors.APIError,
    httpx2.HTTPError,
    httpx2.StreamError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
)
for _type in (types.GenerateContentConfig, types.Content, types.GenerateContentResponse, types.Model):
    _type.model_rebuild()  # else it is made in the first call, which waits for it
_responses: ContextVar[list[httpx2.Response] | None] = ContextVar("trunkline.google.responses", default=None)
# The SDK has one time for everything of a request.
_connect_s: ContextVar[float | None] = ContextVar("trunkline.google.connect_s", default=None)


class GoogleLlm:
    """Gemini models by name; key ``GOOGLE_API_KEY`` or ``GEMINI_API_KEY``, address ``GOOGLE_BASE_URL``."""

    capabilities: Final = LlmCapabilities(model=DEFAULT_MODEL, honours=frozenset({"temperature", "max_tokens"}))

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._clients: dict[tuple[str, str], _Connected] = {}
        self._trust: Final = httpx2.create_ssl_context()  # takes too long to be made in a call

    def check(self, llm: Llm, tools: tuple[Tool, ...]) -> None:
        """See `LlmProvider.check`; the model is left to the service, which has new ones now and then.

        Raises:
            Misconfigured: no key, no such option, one of the wrong type, or a tool whose arguments are no object.
        """
        self._account()
        if llm.endpoint:
            raise Misconfigured("llm.endpoint", "the provider google has one only")
        for name, value in llm.options.items():
            _check_option(name, value)
        if {"thinking_budget", "thinking_level"} <= llm.options.keys():
            raise Misconfigured("llm.options.thinking_budget", "the service takes it or thinking_level, not both")
        for tool in tools:
            if tool.parameters and tool.parameters.get("type") != "object":
                raise Misconfigured(f"tools.{tool.name}.parameters", 'expected a schema with type = "object"')

    async def warm(self, llm: Llm) -> None:
        """Open a connection, by asking about the model: any answer will do."""
        try:
            async with asyncio.timeout(_WARM_S):
                await self._connected().client.aio.models.get(model=llm.model or DEFAULT_MODEL)
        except Misconfigured:
            pass  # told by `check`, and again by `stream`
        except (*_RAISED, TimeoutError) as error:
            log.debug("warming had no answer to like", extra={"provider": "google", "error": type(error).__name__})

    async def stream(self, request: LlmRequest) -> LlmStream:
        """See `LlmProvider.stream`.

        Raises:
            Misconfigured: as for `check`.
        """
        self.check(request.llm, request.tools)
        connected = self._connected()
        try:
            config = types.GenerateContentConfig.model_validate(config_of(request))
            contents: Any = [types.Content.model_validate(content) for content in contents_of(request.messages)]
        except ValueError:
            raise Rejected("the request cannot be made") from None  # the library's own text quotes what was said
        model = request.llm.model or DEFAULT_MODEL
        try:
            chunks = await connected.client.aio.models.generate_content_stream(
                model=model, contents=contents, config=config
            )
            async with aclosing(_Answer(request).deltas(chunks)) as deltas:
                async for delta in deltas:
                    yield delta
        except _RAISED as error:
            raise _meant(error, connected.key) from None  # the library's own text may quote the key

    async def aclose(self) -> None:
        """Close the connections."""
        while self._clients:
            _, connected = self._clients.popitem()
            await connected.aclose()

    def _account(self) -> tuple[str, str]:
        try:
            address = keys.address_of("google", self._environ, _ADDRESS)
            try:
                return address, keys.key_of("google", self._environ)
            except keys.MissingKey as error:
                try:
                    return address, keys.key_of("gemini", self._environ)
                except keys.MissingKey:
                    raise Misconfigured(error.variable, str(error)) from error
        except keys.BadAddress as error:
            raise Misconfigured("GOOGLE_BASE_URL", str(error)) from error

    def _connected(self) -> "_Connected":
        account = self._account()
        if account not in self._clients:
            self._clients[account] = _Connected(*account, self._trust)
        return self._clients[account]


class _Connected:
    """The SDK's client for one address and key, on connections of ours."""

    def __init__(self, address: str, key: str, trust: Any) -> None:
        self.key: Final = key
        self._http: Final = httpx2.AsyncClient(
            verify=trust,
            limits=_LIMITS,
            timeout=_LONG_S,
            follow_redirects=False,  # that would hand the caller's words to a host that nobody named
            event_hooks={"request": [_hurry], "response": [_note]},
        )
        self._unused: Final = httpx2.Client(verify=trust)  # the SDK would make its own
        options = types.HttpOptions(
            base_url=address, httpx_client=self._unused, httpx_async_client=self._http, timeout=_LONG_S * 1_000
        )
        self.client: Final = Client(vertexai=False, api_key=key, http_options=options, debug_config=_LIVE)

    async def aclose(self) -> None:
        self._unused.close()
        await self._http.aclose()


async def _hurry(request: httpx2.Request) -> None:
    if (connect_s := _connect_s.get()) is not None:
        request.extensions["timeout"]["connect"] = connect_s


async def _note(response: httpx2.Response) -> None:
    if (responses := _responses.get()) is not None:
        responses.append(response)


class _Answer:
    """One answer being read."""

    def __init__(self, request: LlmRequest) -> None:
        self._request = request
        self._reason = ""
        self._calls = 0
        self._length = 0
        self._counts: dict[str, int | None] = {}

    async def deltas(self, chunks: Any) -> AsyncGenerator[LlmDelta, None]:
        """Yield what `chunks` mean; they are read to their end, so that the connection is kept."""
        responses: list[httpx2.Response] = []
        token = _responses.set(responses)
        hurry = _connect_s.set(self._request.llm.timeouts.connect_ms / 1_000)
        try:
            try:
                chunk = await anext(chunks, None)
            finally:
                _responses.reset(token)
                _connect_s.reset(hurry)
            while chunk is not None:
                for delta in self._take(chunk):
                    yield delta
                chunk = await anext(chunks, None)
        finally:
            # The SDK closes what it reads from only once its iterators are collected.
            for response in responses:
                await response.aclose()
        if not self._reason:
            raise Transient("the answer ended before its end", "dropped")
        yield finished(self._reason, self._calls, self._counts)

    def _take(self, chunk: types.GenerateContentResponse) -> list[LlmDelta]:
        if (usage := chunk.usage_metadata) is not None:
            self._counts |= {name: count for name, count in usage if isinstance(count, int)}
        if (feedback := chunk.prompt_feedback) is not None and feedback.block_reason is not None:
            self._reason = "PROHIBITED_CONTENT"
        deltas: list[LlmDelta] = []
        for candidate in (chunk.candidates or ())[:1]:
            for part in (candidate.content.parts if candidate.content else None) or ():
                if part.function_call is not None:
                    deltas.append(self._call(part.function_call))
                elif part.text and not part.thought:
                    self._count(part.text)
                    deltas.append(TextDelta(part.text))
            if candidate.finish_reason is not None:
                self._reason = candidate.finish_reason.value
        return deltas

    def _call(self, call: types.FunctionCall) -> ToolCall:
        if not call.name:
            raise Transient("a function call without a name", "malformed")
        self._calls += 1
        self._count(call.name + (call.id or ""))
        try:
            arguments = msgspec.json.encode(call.args or {}).decode()
        except UnicodeEncodeError:
            raise Transient("half a character", "malformed") from None
        self._count(arguments)
        call_id = ToolCallId(call.id) if call.id else made_id(self._request, self._calls)
        return ToolCall(id=call_id, name=call.name, arguments=arguments)

    def _count(self, text: str) -> None:
        if not encodable(text):
            raise Transient("half a character", "malformed")
        self._length += len(text)
        if self._length > LONGEST_ANSWER:
            raise Transient("the answer has no end", "malformed")


def _check_option(name: str, value: Option) -> None:
    setting = f"llm.options.{name}"
    if name not in OPTIONS:
        raise Misconfigured(setting, f"no such option; there are {', '.join(sorted(OPTIONS))}")
    known = OPTIONS[name]
    if type(value) is not known and not (known is float and type(value) is int):
        raise Misconfigured(setting, f"expected {known.__name__}")
    if name == "thinking_level" and value not in LEVELS:
        raise Misconfigured(setting, f"expected one of {', '.join(LEVELS)}")


def _meant(error: Exception, key: str) -> ProviderError:
    """Return what `error` of the libraries means; of a refusal only its message is kept, which quotes no input."""
    match error:
        case errors.APIError(code=int()):
            return _of_api_error(error, key)
        case httpx2.ConnectError() | httpx2.ConnectTimeout() | httpx2.PoolTimeout():
            return Transient("no connection", "connect")
        case httpx2.TimeoutException():
            return Transient("no answer", "stall")
        case httpx2.RemoteProtocolError() if "disconnected" not in str(error) and "peer closed" not in str(error):
            return Transient("the answer is no HTTP", "malformed")
        case httpx2.LocalProtocolError() | UnicodeEncodeError():
            return Rejected(f"the request cannot be made: {type(error).__name__}")
        case httpx2.TransportError() | httpx2.StreamError():
            return Transient("the connection broke", "dropped")
        case _:
            return Transient("the answer cannot be read", "malformed")


def _of_api_error(error: errors.APIError, key: str) -> ProviderError:
    said = f": {error.message}" if isinstance(error.message, str) else ""
    text = keys.without_key(f"HTTP {error.code}{said}", key)
    details = _details(error.details)
    if any(detail.get("reason") == "API_KEY_INVALID" for detail in details):
        return Unauthorised(text)  # its status is 400
    headers = getattr(error.response, "headers", None) or {}
    meant = of_status(error.code, text, headers.get("retry-after"))
    if isinstance(meant, Throttled) and meant.retry_after_s is None:
        delays = [detail["retryDelay"] for detail in details if isinstance(detail.get("retryDelay"), str)]
        return Throttled(text, seconds_of(delays[0].removesuffix("s")) if delays else None)
    return meant


def _details(body: object) -> list[dict[str, Any]]:
    error = body.get("error") if isinstance(body, dict) else None
    details = error.get("details") if isinstance(error, dict) else None
    return [detail for detail in details if isinstance(detail, dict)] if isinstance(details, list) else []
