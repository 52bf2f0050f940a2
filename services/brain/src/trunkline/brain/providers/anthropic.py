"""Anthropic's Claude, through the official SDK: ``POST /v1/messages``, streamed.

One attempt per request, nothing kept in between. The SDK sends the request and cuts the stream into server-sent events;
what stands in them is read here, by type, because the SDK takes an event it does not know for one that it does.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Final

import anthropic
import anthropic.resources.messages  # the SDK would import these in the midst of the first call
import anthropic.resources.models
import httpx2
import msgspec

from trunkline.brain.llm import LlmCapabilities, LlmDelta, LlmRequest, LlmStream
from trunkline.brain.providers.anthropic_wire import DEFAULT_MODEL, Fault, Reading, body_of, event_of
from trunkline.proto.agent import Llm, Tool
from trunkline.providers import keys
from trunkline.providers.errors import Misconfigured, ProviderError, Rejected, Transient, of_status

log = logging.getLogger("trunkline.brain.providers.anthropic")

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
_LONG_S: Final = 600.0  # whoever asks has shorter time-outs
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
        key = client.api_key or ""
        try:
            timeout = anthropic.Timeout(_LONG_S, connect=request.llm.timeouts.connect_ms / 1_000)
            asking = client.messages.with_streaming_response.create(stream=True, timeout=timeout, **body_of(request))
            async with asking as response, aclosing(_deltas(response.http_response, key)) as deltas:
                async for delta in deltas:
                    yield delta
        except _RAISED as error:
            raise _meant(error, key) from None  # the library's own text may quote the key

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
                timeout=_LONG_S,
                # A redirect would hand the caller's words to a host that nobody named.
                http_client=anthropic.DefaultAsyncHttpxClient(limits=_LIMITS, follow_redirects=False),
            )
        return self._clients[account]


def _check_option(name: str, value: object) -> None:
    if name not in OPTIONS:
        raise Misconfigured(f"llm.options.{name}", f"no such option; there are {', '.join(sorted(OPTIONS))}")
    known = OPTIONS[name]
    if isinstance(known, tuple):
        if value not in known:
            raise Misconfigured(f"llm.options.{name}", f"expected one of {', '.join(known)}")
    elif type(value) is not known:
        raise Misconfigured(f"llm.options.{name}", f"expected {known.__name__}")


async def _deltas(response: httpx2.Response, key: str) -> AsyncGenerator[LlmDelta, None]:
    """Yield what the events of `response` mean; it is read to its end, so that its connection is kept."""
    reading = Reading()
    left = LONGEST_ANSWER
    async for sse in anthropic.AsyncStream.raw_events(response):
        left -= len(sse.data)
        if left < 0:
            raise Transient("the answer has no end", "malformed")
        event = event_of(sse.data) if sse.data else None
        if event is None:
            continue
        if event.type == "error":
            raise _of_fault(event.error, key)
        if (delta := reading.take(event)) is not None:
            yield delta
    if not reading.stopped:
        raise Transient("the answer ended before its end", "dropped")
    yield reading.finished


_STATUSES: Final = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
}


def _of_fault(fault: Fault, key: str) -> ProviderError:
    """Return what an error told in the midst of an answer stands for; its HTTP status was 200."""
    return of_status(_STATUSES.get(fault.type, 500), keys.without_key(f"{fault.type}: {fault.message}", key))


def _meant(error: Exception, key: str) -> ProviderError:
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
        case httpx2.LocalProtocolError() | UnicodeEncodeError():
            return Rejected(f"the request cannot be made: {type(error).__name__}")
        case httpx2.TransportError() | httpx2.StreamError():
            return Transient("the connection broke", "dropped")
        case httpx2.DecodingError() | anthropic.APIError() | msgspec.DecodeError() | UnicodeDecodeError():
            return Transient("the answer cannot be read", "malformed")
        case _:
            return Rejected(f"the request cannot be made: {type(error).__name__}")
