"""What the adapters to OpenAI and to servers like it share: their SDK's clients, and what its exceptions mean.

Needs the distribution ``openai``, which this one does not ask for: only adapters that depend on it may import this. The
SDK fills gaps from the process's environment, whoever is asked; here the gaps are closed.
"""

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Final

import httpx2
import openai

from trunkline.proto.agent import Timeouts
from trunkline.providers import keys
from trunkline.providers.errors import (
    Misconfigured,
    ProviderError,
    Rejected,
    Throttled,
    Transient,
    Unauthorised,
    of_status,
)

log = logging.getLogger("trunkline.providers.openai")

RAISED: Final = (openai.OpenAIError, httpx2.HTTPError, httpx2.StreamError, ValueError, RecursionError)
"""What may come out of the SDK. What is no `openai.OpenAIError` comes from reading a stream."""
ADDRESS: Final = "https://api.openai.com/v1"
_LONG_S: Final = 600.0  # whoever asks has shorter time-outs
_NO_KEY: Final = "no-key-needed"  # given none, the SDK would send this process's OPENAI_API_KEY to any server
# The library's own 5 s would close the connection between two turns of a conversation.
_LIMITS: Final = httpx2.Limits(max_connections=1_000, max_keepalive_connections=100, keepalive_expiry=55)


class Clients:
    """A process's clients, one for each address and key, so that calls share connections."""

    def __init__(self) -> None:
        self._clients: dict[tuple[str, str, bool], openai.AsyncOpenAI] = {}

    def of(self, address: str, key: str, *, compatible: bool) -> openai.AsyncOpenAI:
        """Return the client for `address`; opens nothing.

        Args:
            address: base URL, with the version's path.
            key: ``""``: none is known, and none of ours is sent.
            compatible: it is not OpenAI's own, so its organization and project are none of its business.
        """
        account = address, key, compatible
        if account not in self._clients:
            client = self._clients[account] = openai.AsyncOpenAI(
                base_url=address,
                api_key=key or _NO_KEY,
                max_retries=0,
                timeout=_LONG_S,
                # A redirect would hand what callers say to a host that nobody named.
                http_client=openai.DefaultAsyncHttpxClient(limits=_LIMITS, follow_redirects=False),
            )
            if compatible:  # the SDK takes these from the process's environment, whoever is asked
                client.organization = client.project = client.admin_api_key = None
                client._custom_headers = {}  # noqa: SLF001 - of OPENAI_CUSTOM_HEADERS; there is no other way to drop them
        return self._clients[account]

    async def aclose(self) -> None:
        """Close the connections."""
        while self._clients:
            _, client = self._clients.popitem()
            await client.close()


def own_account(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return OpenAI's own address and the key for it.

    Raises:
        Misconfigured: there is no key, or the address cannot be used.
    """
    try:
        return keys.address_of("openai", environ, ADDRESS), keys.key_of("openai", environ)
    except keys.MissingKey as error:
        raise Misconfigured(error.variable, str(error)) from error
    except keys.BadAddress as error:
        raise Misconfigured("OPENAI_BASE_URL", str(error)) from error


def timeout_of(timeouts: Timeouts) -> openai.Timeout:
    """Return the time-outs of one request: the agent's for connecting, and none that matters for the rest."""
    return openai.Timeout(_LONG_S, connect=timeouts.connect_ms / 1_000)


async def warm(client: openai.AsyncOpenAI, model: str, timeout_s: float) -> None:
    """Open a connection, by asking about `model`: any answer will do. Never raises."""
    try:
        models = client.models.with_streaming_response
        async with asyncio.timeout(timeout_s), models.retrieve(model) as response:
            async for _ in response.iter_bytes():
                pass  # a connection is kept once its answer is read
    except (*RAISED, TimeoutError) as error:
        log.debug("warming had no answer to like", extra={"model": model, "error": type(error).__name__})


def meant(error: Exception, key: str) -> ProviderError:
    """Return what `error` of the libraries means; of a refusal only its message is kept, which quotes no input."""
    if isinstance(error, openai.APIStatusError):
        said = error.body.get("message") if isinstance(error.body, dict) else None
        text = f"HTTP {error.status_code}" + (f": {said}" if isinstance(said, str) else "")
        text = keys.without_key(text, key)
        if error.code == "insufficient_quota":  # comes with 429, but waiting does not help
            return Unauthorised(text)
        return of_status(error.status_code, text, error.response.headers.get("retry-after"))
    if isinstance(error, openai.APIConnectionError) and isinstance(error.__cause__, Exception):
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
        case openai.APIError() if type(error) is openai.APIError and error.body is not None:
            return told(error.body, key)
        case httpx2.DecodingError() | openai.APIError() | json.JSONDecodeError() | UnicodeDecodeError():
            return Transient("the answer cannot be read", "malformed")
        case RecursionError():
            return Transient("the answer is nested too deeply", "malformed")
        case _:
            return Rejected(f"the request cannot be made: {type(error).__name__}")


def told(error: object, key: str) -> ProviderError:
    """Return what an error object in the midst of a stream means: ``{"message", "type", "code"}``, each of any type.

    `code` is a name (OpenAI) or an HTTP status (OpenRouter, vLLM).
    """
    members = error if isinstance(error, dict) else {}
    code, kind, said = (members.get(name) for name in ("code", "type", "message"))
    text = keys.without_key(said if isinstance(said, str) else "an error in the stream", key)
    status = int(code) if isinstance(code, int | str) and str(code).isdecimal() and len(str(code)) == 3 else 0
    if 400 <= status < 600:
        return of_status(status, text)
    names = {name for name in (code, kind) if isinstance(name, str)}
    if names & {"insufficient_quota", "invalid_api_key", "authentication_error", "permission_error"}:
        return Unauthorised(text)
    if names & {"rate_limit_exceeded", "rate_limit_error", "requests", "tokens"}:
        return Throttled(text)
    if any(name.startswith(("invalid_", "context_length")) or name.endswith("_policy_violation") for name in names):
        return Rejected(text)
    return Transient(text, "server")
