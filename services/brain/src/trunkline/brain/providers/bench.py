"""The ``bench`` provider: the same twelve words to everything, at once, for load work."""

from collections.abc import Mapping
from typing import Final

from trunkline.brain.llm import Finished, LlmCapabilities, LlmRequest, LlmStream, TextDelta
from trunkline.brain.rest import begun, rest_of
from trunkline.proto.agent import Llm, Tool

ANSWER: Final = "This answer has twelve words and is given to you at once."
_DELTAS: Final = tuple(TextDelta(f" {word}" if at else word) for at, word in enumerate(ANSWER.split()))


class BenchLlm:
    """One sentence, word by word, without waiting."""

    capabilities = LlmCapabilities(tools=False, usage=False, continues=True)

    def __init__(self, environ: Mapping[str, str]) -> None:
        del environ  # there is nothing to set

    def check(self, llm: Llm, tools: tuple[Tool, ...]) -> None:
        """Accept every agent."""

    async def warm(self, llm: Llm) -> None:
        """Need nothing."""

    async def stream(self, request: LlmRequest) -> LlmStream:
        """Answer with the sentence, whatever was said; or with the rest of it."""
        said = begun(request.messages)
        left = len(rest_of(ANSWER, said).split()) if said else len(_DELTAS)
        for delta in _DELTAS[len(_DELTAS) - left :]:
            yield delta
        yield Finished()

    async def aclose(self) -> None:
        """Nothing to free."""
