"""The ``script`` provider: streams what the agent's script answers, word by word, as a model would."""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from trunkline.brain.llm import Finished, LlmCapabilities, LlmRequest, LlmStream, TextDelta, ToolAsked, ToolCall
from trunkline.brain.rest import begun, rest_of
from trunkline.brain.script import Reply, answer, validate
from trunkline.proto.agent import Llm, Tool
from trunkline.proto.ids import ToolCallId
from trunkline.providers.errors import Misconfigured

_WORD: Final = re.compile(r"\s*\S+")


class ScriptLlm:
    """A dialogue in the agent file instead of a model. Keeps nothing: the history is all it needs."""

    capabilities = LlmCapabilities(tools=True, usage=False, continues=True)

    def __init__(self, environ: Mapping[str, str]) -> None:
        del environ  # there is nothing to set

    def check(self, llm: Llm, tools: tuple[Tool, ...]) -> None:
        """Refuse an agent whose script is missing or could fail in a call."""
        if llm.script is None:
            raise Misconfigured("llm.script", "the provider 'script' needs a script")
        problems = validate(llm.script, tools)
        if problems:
            first, *others = problems
            more = "".join(f"; {problem.path}: {problem.text}" for problem in others)
            raise Misconfigured(first.path, first.text + more)

    async def warm(self, llm: Llm) -> None:
        """Need nothing."""

    async def stream(self, request: LlmRequest) -> LlmStream:
        """Answer the last words or the last result of the history; if that answer has begun, the rest of it."""
        script = request.llm.script
        if script is None:
            raise Misconfigured("llm.script", "the provider 'script' needs a script")
        reply: Reply = answer(script, request.messages, {tool.name for tool in request.tools})
        for word in _WORD.findall(rest_of(reply.say, begun(request.messages))):
            yield TextDelta(word)
        if reply.tool is None:
            yield Finished()
            return
        # The same history names the call the same, so that a worker that takes over does not act twice.
        asked = sum(isinstance(message, ToolAsked) for message in request.messages)
        yield ToolCall(
            id=ToolCallId(f"t{request.turn}-{asked + 1}"),
            name=reply.tool.name,
            arguments=msgspec.json.encode(reply.tool.arguments).decode(),
        )
        yield Finished(reason="tool-calls")

    async def aclose(self) -> None:
        """Nothing to free."""
