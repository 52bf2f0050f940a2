"""One call's mind, whoever lends it: an answer from the first provider of the agent's list that gives one.

It counts what answers cost and records every failure. What may be done about an answer that breaks off is not decided
here: that depends on what the caller has heard.
"""

import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from trunkline.brain.llm import Finished, LlmDelta, LlmProvider, LlmRequest, TextDelta, Usage
from trunkline.brain.rest import hint
from trunkline.proto.agent import Llm
from trunkline.proto.events import ProviderFailed
from trunkline.proto.messages import Used
from trunkline.providers.attempts import Attempts, Candidate
from trunkline.providers.course import RetryRules
from trunkline.providers.health import Health
from trunkline.providers.prices import Quantities
from trunkline.providers.usage import Meter

_MOST_TOKENS: Final = 10_000_000
_CHARACTERS_PER_TOKEN: Final = 4
"""For answers nobody waited for: providers charge for them, but do not say how much. English text has about as many."""


class Mind(NamedTuple):
    """A provider that may be asked, and how."""

    choice: Llm
    provider: LlmProvider


class Thinker:
    """Thinks for one call.

    Args:
        minds: in the agent's order of preference; not empty.
        health: of the process.
        rules: when to try again, and when to give up.
        now: monotonic seconds.
        meter: of the call.
        failed: is told every failure, as a fact.
        used: is told what has been used, each time that changes.
    """

    def __init__(
        self,
        minds: Sequence[Mind],
        health: Health,
        rules: RetryRules,
        now: Callable[[], float],
        meter: Meter,
        failed: Callable[[ProviderFailed], None],
        used: Callable[[list[Used]], None],
    ) -> None:
        self._minds = tuple(minds)
        self._meter = meter
        self._used = used
        self._attempts: Attempts[LlmDelta] = Attempts("brain", health, rules, now, failed)

    async def stream(self, request: LlmRequest) -> AsyncGenerator[LlmDelta, None]:
        """Answer `request`, as `LlmProvider.stream` does; `request.llm` is that of whoever is asked.

        Raises:
            AllFailed: nobody answered.
            BrokeOff: the answer ended in its midst.
        """
        candidates = [Candidate(mind.choice, mind.choice.timeouts, self._start(mind, request)) for mind in self._minds]
        async for _, delta in self._attempts.stream(candidates):
            yield delta

    def _start(self, mind: Mind, request: LlmRequest) -> Callable[[], AsyncGenerator[LlmDelta, None]]:
        asked = msgspec.structs.replace(request, llm=mind.choice)
        if not mind.provider.capabilities.continues and (note := hint(request.messages)) is not None:
            asked = msgspec.structs.replace(asked, messages=(*request.messages, note))

        async def attempt() -> AsyncGenerator[LlmDelta, None]:
            written = 0
            told = False
            try:
                async with contextlib.aclosing(mind.provider.stream(asked)) as deltas:
                    async for delta in deltas:
                        match delta:
                            case Finished(usage=usage) if mind.provider.capabilities.usage:
                                told = True
                                self._count(mind, _quantities(usage))
                            case TextDelta(text=text):
                                written += len(text)
                            case _:
                                pass
                        yield delta
            finally:
                if not told and written:
                    read = len(msgspec.json.encode((asked.prompt, asked.messages, asked.tools)))
                    self._count(
                        mind,
                        Quantities(
                            input_tokens=read // _CHARACTERS_PER_TOKEN,
                            output_tokens=-(-written // _CHARACTERS_PER_TOKEN),
                        ),
                        estimated=True,
                    )

        return attempt

    def _count(self, mind: Mind, used: Quantities, *, estimated: bool = False) -> None:
        self._meter.add(mind.choice, used, model=mind.provider.capabilities.model, estimated=estimated)
        self._used(self._meter.used())


def _quantities(usage: Usage) -> Quantities:
    return Quantities(
        input_tokens=_believable(usage.input_tokens),
        cached_tokens=_believable(usage.cached_tokens),
        output_tokens=_believable(usage.output_tokens),
    )


def _believable(tokens: int) -> int:
    """Return a provider's figure, within what one answer can have."""
    return max(0, min(tokens, _MOST_TOKENS))
