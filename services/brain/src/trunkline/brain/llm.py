"""The seam to language models: what one is asked, what it streams back, and where providers are found.

It knows no vendor, no wire format and nothing of calls but their ids. A provider turns `LlmRequest` into its own
format and its own stream into `LlmDelta`; whoever asks cannot tell which one answers.
"""

from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Final, Literal, Protocol

import msgspec

from trunkline.proto.agent import Llm, Tool
from trunkline.proto.ids import CallId, ToolCallId, TurnId
from trunkline.runtime.plugins import Found, Plugins

# --- what has been said ----------------------------------------------------------------------------------------------


class CallerSaid(msgspec.Struct, frozen=True, kw_only=True, tag="caller"):
    """What the caller said, as transcribed. Empty when there was sound but no words."""

    text: str


class AgentSaid(msgspec.Struct, frozen=True, kw_only=True, tag="agent"):
    """What the agent meant to say, without markers, and how much of it the caller heard.

    A model is shown `heard`, so that it does not believe it said what nobody heard.
    """

    text: str
    heard: str


class ToolAsked(msgspec.Struct, frozen=True, kw_only=True, tag="tool-asked"):
    """The model asked for a tool. `arguments` is the JSON text as the model wrote it."""

    tool_call: ToolCallId
    name: str
    arguments: str


class ToolAnswered(msgspec.Struct, frozen=True, kw_only=True, tag="tool-answered"):
    """The tool's `result` (JSON text), or why there is none (`error`)."""

    tool_call: ToolCallId
    name: str
    result: str = ""
    error: str = ""


class SystemNote(msgspec.Struct, frozen=True, kw_only=True, tag="note"):
    """Something the model should know that nobody said: a key pressed, a long silence, a transfer that failed."""

    text: str


Message = CallerSaid | AgentSaid | ToolAsked | ToolAnswered | SystemNote
"""One entry of the history. Tagged, so that a history can be stored and read back."""


class LlmRequest(msgspec.Struct, frozen=True, kw_only=True):
    """All that an answer depends on: a provider keeps nothing between requests.

    `messages` are in the order in which things were decided, the oldest first: what the agent said before it asked
    for a tool comes before the `ToolAsked`. `tools` is empty when none may be asked for any more.
    """

    call: CallId
    turn: TurnId
    llm: Llm
    prompt: str = ""
    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()
    tenant: str = "default"


# --- what comes back -------------------------------------------------------------------------------------------------


class TextDelta(msgspec.Struct, frozen=True):
    """The next piece of what is to be said: some characters, cut anywhere. May hold markers, whole or in part."""

    text: str


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A tool is wanted. Whole: an adapter collects the pieces, because nothing can start before the last one.

    `arguments` is JSON text; nobody has checked it yet.
    """

    id: ToolCallId
    name: str
    arguments: str


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer cost, in the provider's tokens."""

    input_tokens: int = 0
    cached_tokens: int = 0
    """Those of the input that were cheaper because the provider had seen them."""
    output_tokens: int = 0


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """The answer is complete. The last delta of every stream that is not closed early."""

    reason: Literal["stop", "tool-calls", "length", "refused"] = "stop"
    usage: Usage = Usage()


LlmDelta = TextDelta | ToolCall | Finished
LlmStream = AsyncGenerator[LlmDelta, None]


class LlmCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider can do, as data, so that nobody asks for its name."""

    model: str = ""
    """The one that is asked where the agent names none; what is used of it is priced by this name."""
    tools: bool = True
    usage: bool = True
    """`Finished.usage` is filled in by the provider's own figures."""
    continues: bool = False
    """Given a history that ends with the beginning of its answer, it answers with the rest; others are told to."""
    honours: frozenset[str] = frozenset()
    """Which of the agent's settings `temperature` and `max_tokens` it heeds."""


class LlmProvider(Protocol):
    """A source of answers. One instance serves every call of a process."""

    @property
    def capabilities(self) -> LlmCapabilities:
        """What this provider can do."""
        ...

    def check(self, llm: Llm, tools: tuple[Tool, ...]) -> None:
        """Say before any call what would go wrong in one. Does no I/O.

        Raises:
            Misconfigured: `llm` lacks a setting or has a wrong one, or a key is missing; names the setting.
        """
        ...

    async def warm(self, llm: Llm) -> None:
        """A call as `llm` describes is about to come: open what can be opened beforehand. Never raises."""
        ...

    def stream(self, request: LlmRequest) -> LlmStream:
        """Answer `request`: any number of `TextDelta` and `ToolCall` in the order meant, then one `Finished`.

        Nothing is sent before the first step, once. Time-outs, retries and other providers are not its business.
        Closing the stream (``aclose``), or cancelling whoever waits for its next delta, cancels the request and frees
        what it held, within a second.

        Raises:
            ProviderError: while iterating; what has been streamed before stands.
        """
        ...

    async def aclose(self) -> None:
        """Free connections. No stream is open any more."""
        ...


# --- where providers are found ---------------------------------------------------------------------------------------

_OURS: Final = {
    "script": "trunkline.brain.providers.script:ScriptLlm",
    "bench": "trunkline.brain.providers.bench:BenchLlm",
    "openai": "trunkline.brain.providers.openai:OpenAiLlm",
    "openai-responses": "trunkline.brain.providers.openai_responses:ResponsesLlm",
    "openai-compatible": "trunkline.brain.providers.openai:CompatibleLlm",
    "anthropic": "trunkline.brain.providers.anthropic:AnthropicLlm",
    "google": "trunkline.brain.providers.google:GoogleLlm",
}


def llm_providers(environ: Mapping[str, str], installed: Iterable[Found] | None = None) -> Plugins[LlmProvider]:
    """Return the providers of a process; others come as entry points of the group ``trunkline.llm_providers``."""
    return Plugins("llm.provider", "trunkline.llm_providers", _OURS, environ, installed)
