"""OpenAI's chat completions, and those of any server that speaks the same (Ollama, vLLM, Groq, Kimi, Qwen and more).

One streamed request per answer, through the official SDK with its own retries off. Its objects are built without
validation, so nothing of them is believed before `openai_chat` has read it.
"""

from collections.abc import Mapping
from typing import Final

import openai
from openai.types.chat import (
    ChatCompletionFunctionToolParam,
    ChatCompletionMessageFunctionToolCallParam,
    ChatCompletionMessageParam,
)

from trunkline.brain.llm import LlmCapabilities, LlmRequest, LlmStream
from trunkline.brain.providers.openai_chat import ChatAnswer
from trunkline.brain.providers.openai_history import Turn, parameters, turns
from trunkline.proto.agent import Llm, Option, Tool
from trunkline.providers.endpoints import account_of, endpoint_of
from trunkline.providers.errors import Misconfigured
from trunkline.providers.openai_sdk import RAISED, Clients, meant, own_account, timeout_of, warm

DEFAULT_MODEL: Final = "gpt-5.4-mini"
"""Small, and without an announced end; gpt-4.1-mini and gpt-5-mini are shut down by 2027-01-14."""
WARM_S: Final = 2.0

SAMPLING: Final[Mapping[str, type]] = {
    "top_p": float,
    "reasoning_effort": str,
    "verbosity": str,
    "service_tier": str,
    "parallel_tool_calls": bool,
    "prompt_cache_key": str,
    "safety_identifier": str,
}
"""Options that both of OpenAI's protocols have."""


class OpenAiLlm:
    """OpenAI's models by name; key ``OPENAI_API_KEY``, address ``OPENAI_BASE_URL`` (with ``/v1``)."""

    capabilities = LlmCapabilities(model=DEFAULT_MODEL, honours=frozenset({"temperature", "max_tokens"}))
    options: Mapping[str, type] = {
        **SAMPLING,
        "frequency_penalty": float,
        "presence_penalty": float,
        "seed": int,
        "stop": str,
    }

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._clients = Clients()

    def account(self, llm: Llm) -> tuple[str, str]:
        """Return the address `llm` asks at, and the key.

        Raises:
            Misconfigured: there is none.
        """
        if llm.endpoint:
            raise Misconfigured("llm.endpoint", f"{llm.provider} has one only; openai-compatible has others")
        return own_account(self._environ)

    def check(self, llm: Llm, tools: tuple[Tool, ...]) -> None:
        """See `LlmProvider.check`; the model is left to the service, which has new ones now and then.

        Raises:
            Misconfigured: no key, no such option, or one of the wrong type.
        """
        del tools  # any will do
        self.account(llm)
        check_options(llm.options, self.options)

    async def warm(self, llm: Llm) -> None:
        """Open a connection."""
        try:
            client = self._client(llm)
        except Misconfigured:
            return  # told by `check`
        await warm(client, llm.model or DEFAULT_MODEL, WARM_S)

    async def stream(self, request: LlmRequest) -> LlmStream:
        """See `LlmProvider.stream`."""
        llm, endpoint = request.llm, endpoint_of(request.llm.endpoint)
        client, most = self._client(llm), openai.omit if llm.max_tokens is None else llm.max_tokens
        answer = ChatAnswer(f"t{request.turn}")
        tools = [_function(tool) for tool in request.tools]
        try:
            async with await client.chat.completions.create(
                model=llm.model or DEFAULT_MODEL,
                messages=_messages(request.prompt, turns(request.messages, short_ids=endpoint.short_call_ids)),
                stream=True,
                stream_options={"include_usage": True} if endpoint.asks_usage else openai.omit,
                tools=tools or openai.omit,
                temperature=openai.omit if llm.temperature is None else llm.temperature,
                # The old name is the only one all compatible servers know; OpenAI's newer models know only the other.
                max_tokens=most if llm.endpoint else openai.omit,
                max_completion_tokens=openai.omit if llm.endpoint else most,
                extra_body=given(llm.options, tools=bool(tools)),
                timeout=timeout_of(llm.timeouts),
            ) as chunks:
                async for chunk in chunks:
                    for delta in answer.take(chunk):
                        yield delta
        except RAISED as error:
            if not answer.complete:  # what breaks after the last word breaks nothing
                raise meant(error, client.api_key) from None  # the library's own text may quote the key
        yield answer.finished()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._clients.aclose()

    def _client(self, llm: Llm) -> openai.AsyncOpenAI:
        return self._clients.of(*self.account(llm), compatible=bool(llm.endpoint))


class CompatibleLlm(OpenAiLlm):
    """Models of the server that ``llm.endpoint`` names; key ``<ENDPOINT>_API_KEY``, address ``<ENDPOINT>_BASE_URL``."""

    capabilities = LlmCapabilities(honours=frozenset({"temperature", "max_tokens"}))
    options: Mapping[str, type] = {
        **OpenAiLlm.options,
        "top_k": int,
        "min_p": float,
        "repetition_penalty": float,
        "enable_thinking": bool,
        "thinking": str,
    }

    def account(self, llm: Llm) -> tuple[str, str]:
        """Return the address of the endpoint, and the key or ``""``. An agent names an endpoint, never an address.

        Raises:
            Misconfigured: there is none.
        """
        return account_of(llm.endpoint, self._environ, "brain")

    def check(self, llm: Llm, tools: tuple[Tool, ...]) -> None:
        """See `LlmProvider.check`.

        Raises:
            Misconfigured: no endpoint, address, key or model; no such option, or one of the wrong type.
        """
        super().check(llm, tools)
        if not llm.model:
            raise Misconfigured("llm.model", "needed: no model is common to all endpoints")


def check_options(options: Mapping[str, Option], known: Mapping[str, type]) -> None:
    """Refuse what is not in `known`, or of another type; a whole number will do for a number.

    Raises:
        Misconfigured: names the option.
    """
    for name, value in options.items():
        if name not in known:
            raise Misconfigured(f"llm.options.{name}", f"no such option; there are {', '.join(sorted(known))}")
        whole_will_do = known[name] is float and type(value) is int
        if type(value) is not known[name] and not whole_will_do:
            raise Misconfigured(f"llm.options.{name}", f"expected {known[name].__name__}")


def given(options: Mapping[str, object], *, tools: bool) -> dict[str, object] | None:
    """Return `options` as members of a request, with `tools` or without: then OpenAI refuses what is about them."""
    members = {name: value for name, value in options.items() if tools or name != "parallel_tool_calls"}
    if "thinking" in members:  # Kimi and DeepSeek; an option of an agent is no object
        members["thinking"] = {"type": members["thinking"]}
    return members or None


def _function(tool: Tool) -> ChatCompletionFunctionToolParam:
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": parameters(tool)},
    }


def _messages(prompt: str, history: list[Turn]) -> list[ChatCompletionMessageParam]:
    messages: list[ChatCompletionMessageParam] = [{"role": "system", "content": prompt}] if prompt else []
    for turn in history:
        if turn.who == "user":
            messages.append({"role": "user", "content": turn.text})
        elif not turn.tools:
            messages.append({"role": "assistant", "content": turn.text})
        else:
            calls: list[ChatCompletionMessageFunctionToolCallParam] = [
                {"id": asked.id, "type": "function", "function": {"name": asked.name, "arguments": asked.arguments}}
                for asked in turn.tools
            ]
            messages.append({"role": "assistant", "content": turn.text or None, "tool_calls": calls})
            messages += [{"role": "tool", "tool_call_id": asked.id, "content": asked.answer} for asked in turn.tools]
    return messages
