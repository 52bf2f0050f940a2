"""One question to a mind, and its answer, told as it comes."""

import contextlib
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from typing import Literal, Protocol

from trunkline.brain.llm import Finished, LlmDelta, LlmRequest, TextDelta, ToolCall
from trunkline.brain.moves import ThoughtCame, ThoughtEnded, ToolWanted
from trunkline.providers.attempts import BrokeOff
from trunkline.providers.errors import ProviderError

log = logging.getLogger("trunkline.brain.asking")


class Mind(Protocol):
    """Whoever answers."""

    def stream(self, request: LlmRequest) -> AsyncGenerator[LlmDelta, None]:
        """Answer, as `LlmProvider.stream` does."""
        ...


async def ask(
    mind: Mind,
    request: LlmRequest,
    thought: int,
    tell: Callable[[ThoughtCame | ToolWanted | ThoughtEnded], None],
    counts: Counter[str],
) -> None:
    """Ask `mind`, and `tell` what it answers to thought number `thought`; its end too, unless this is cancelled."""
    failure: Literal["", "nobody", "broke-off"] = ""
    try:
        async with contextlib.aclosing(mind.stream(request)) as stream:
            async for delta in stream:
                match delta:
                    case TextDelta(text):
                        tell(ThoughtCame(thought, text))
                    case ToolCall():
                        tell(ToolWanted(thought, delta))
                    case Finished():
                        pass
    except ProviderError as error:
        failure = "broke-off" if isinstance(error, BrokeOff) else "nobody"
        counts["llm_failed"] += 1
        log.warning("no answer", extra={"call": request.call, "turn": request.turn, "error": str(error)})
    except Exception:
        failure = "nobody"
        counts["llm_failed"] += 1
        log.exception("provider broke", extra={"call": request.call, "turn": request.turn})
    tell(ThoughtEnded(thought, failure))
