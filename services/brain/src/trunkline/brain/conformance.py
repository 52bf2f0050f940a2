"""What every language model provider must do, as checks that anybody can run on their own.

Each rule is a function of `RULES`; its docstring states it. They speak to a live service, or to what stands in for it,
and break nothing on purpose; where `unreachable` is given, they also see what happens when nobody answers. Needs no
test framework.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Final

import msgspec

from trunkline.brain.llm import (
    AgentSaid,
    CallerSaid,
    Finished,
    LlmDelta,
    LlmProvider,
    LlmRequest,
    LlmStream,
    Message,
    SystemNote,
    TextDelta,
    ToolAnswered,
    ToolAsked,
    ToolCall,
)
from trunkline.proto.agent import Llm, Tool
from trunkline.proto.ids import CallId, ToolCallId, TurnId
from trunkline.providers.conformance import Broken, NotConformant, keeps, nothing_left, require, within
from trunkline.providers.errors import ProviderError, Transient

__all__ = ["RULES", "NotConformant", "check_llm_provider"]

ANSWER_S: Final = 30.0
"""How long an answer is waited for; the limits of a call are the service's business."""
CLOSE_S: Final = 1.0
LOST_S: Final = 5.0
PROMPT: Final = "You answer the telephone of a restaurant. Answer with one full sentence."
HELLO: Final = CallerSaid(text="Good evening, what time do you open tomorrow?")


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules are tried on; see `check_llm_provider`."""

    make: Callable[[], LlmProvider]
    llm: Llm
    tool: Tool | None
    unreachable: Callable[[], LlmProvider] | None

    @property
    def tools(self) -> tuple[Tool, ...]:
        """What a model may ask for."""
        return (self.tool,) if self.tool is not None else ()


Rule = Callable[[Asked], Awaitable[None]]


async def check_llm_provider(
    make: Callable[[], LlmProvider],
    llm: Llm,
    *,
    tool: Tool | None = None,
    unreachable: Callable[[], LlmProvider] | None = None,
    rules: Sequence[Rule] | None = None,
) -> None:
    """Try `RULES` on a provider.

    Args:
        make: makes it, as a process would; called anew for every rule.
        llm: what an agent asks of it.
        tool: one that the model asks for when a caller says "Use the tool …", with its name; None: none is tried.
        unreachable: makes one whose service does not answer: its address is a closed port.
        rules: others than `RULES`, or some of them.

    Raises:
        NotConformant: a rule is broken.
    """
    await keeps(RULES if rules is None else rules, Asked(make=make, llm=llm, tool=tool, unreachable=unreachable))


@asynccontextmanager
async def _provider(asked: Asked, make: Callable[[], LlmProvider] | None = None) -> AsyncIterator[LlmProvider]:
    provider = (make or asked.make)()
    try:
        provider.check(asked.llm, asked.tools)
        yield provider
    finally:
        await provider.aclose()


def _stream(asked: Asked, provider: LlmProvider, *messages: Message, tools: tuple[Tool, ...] = ()) -> LlmStream:
    history = messages or (HELLO,)
    return provider.stream(
        LlmRequest(
            call=CallId("conformance"), turn=TurnId(1), llm=asked.llm, prompt=PROMPT, messages=history, tools=tools
        )
    )


async def _answer(
    asked: Asked, provider: LlmProvider, *messages: Message, tools: tuple[Tool, ...] = ()
) -> list[LlmDelta]:
    """Return a whole answer, which ends as it must."""

    async def whole() -> list[LlmDelta]:
        async with aclosing(_stream(asked, provider, *messages, tools=tools)) as deltas:
            return [delta async for delta in deltas]

    answer = await within(ANSWER_S, whole(), "an answer")
    finished = [at for at, delta in enumerate(answer) if isinstance(delta, Finished)]
    require(finished == [len(answer) - 1], f"Finished is not once and last: {answer[-3:]}")
    return answer


def _has_words(answer: list[LlmDelta]) -> None:
    require("".join(delta.text for delta in answer if isinstance(delta, TextDelta)).strip(), f"no words: {answer[:3]}")


# --- the rules --------------------------------------------------------------------------------------------------------


async def answers_in_words_and_finishes_once(asked: Asked) -> None:
    """An answer is `TextDelta`s, none of them empty, then exactly one `Finished`, last."""
    async with _provider(asked) as provider:
        answer = await _answer(asked, provider)
        _has_words(answer)
        require(all(delta.text for delta in answer if isinstance(delta, TextDelta)), "an empty TextDelta")
        require(not any(isinstance(delta, ToolCall) for delta in answer), "a tool, though none was offered")


async def tells_what_an_answer_used(asked: Asked) -> None:
    """With `usage`, `Finished` counts the tokens that went in and came out, and no more cached ones than went in."""
    async with _provider(asked) as provider:
        if not provider.capabilities.usage:
            return
        last = (await _answer(asked, provider))[-1]
        used = last.usage if isinstance(last, Finished) else None
        fine = used is not None and used.input_tokens > 0 and used.output_tokens > 0
        require(fine and used is not None and 0 <= used.cached_tokens <= used.input_tokens, f"usage is {used}")


async def asks_for_a_tool_and_takes_its_answer(asked: Asked) -> None:
    """A `ToolCall` has an id, the tool's name and a JSON object; its answer, or its failure, is taken with it."""
    async with _provider(asked) as provider:
        if asked.tool is None or not provider.capabilities.tools:
            return
        order = CallerSaid(text=f"Use the tool {asked.tool.name}.")
        answer = await _answer(asked, provider, order, tools=asked.tools)
        calls = [delta for delta in answer if isinstance(delta, ToolCall)]
        require(calls, f"no ToolCall: {answer[:3]}")
        require(all(call.id for call in calls), "a ToolCall without an id")
        require(len({call.id for call in calls}) == len(calls), "two ToolCalls of one id")
        require(all(call.name == asked.tool.name for call in calls), f"called {[call.name for call in calls]}")
        require(all(_is_object(call.arguments) for call in calls), f"arguments are no JSON object: {calls}")
        last = answer[-1]
        require(isinstance(last, Finished) and last.reason == "tool-calls", f"the last delta is {last}")
        wanted = [ToolAsked(tool_call=call.id, name=call.name, arguments=call.arguments) for call in calls]
        for result, error in (('{"ok": true}', ""), ("", "the booking system does not answer")):
            given = [ToolAnswered(tool_call=call.id, name=call.name, result=result, error=error) for call in calls]
            await _answer(asked, provider, order, *wanted, *given, tools=asked.tools)
            await _answer(asked, provider, order, *wanted, *given)


async def takes_every_history(asked: Asked) -> None:
    """Histories that vendors may refuse are put right.

    The agent speaks first or twice, a note is last or alone, nobody heard what was said, a tool has no answer.
    """
    tool = asked.tool.name if asked.tool is not None else "find_table"
    wanted = ToolAsked(tool_call=ToolCallId("t1"), name=tool, arguments="{}")
    greeting = AgentSaid(text="Hello, how can I help?", heard="Hello, how can I help?")
    histories: dict[str, tuple[Message, ...]] = {
        "that begins with the agent": (greeting, HELLO),
        "that ends with a note": (HELLO, greeting, SystemNote(text="The caller has been silent for 8 s.")),
        "that is a note only": (SystemNote(text="The call has begun."),),
        "with an unanswered tool": (HELLO, wanted, CallerSaid(text="Are you still there?")),
        "that ends with an unanswered tool": (HELLO, wanted),
        "with what nobody heard": (HELLO, AgentSaid(text="We open at six.", heard=""), CallerSaid(text="Pardon?")),
        "with two of the agent's in a row": (HELLO, greeting, greeting, CallerSaid(text="Hello?")),
        "with a caller who said no words": (greeting, CallerSaid(text="")),
    }
    async with _provider(asked) as provider:
        for kind, history in histories.items():
            for tools in [asked.tools, ()] if asked.tools else [()]:
                try:
                    await _answer(asked, provider, *history, tools=tools)
                except ProviderError as error:
                    raise Broken(f"a history {kind} is refused: {error}") from error


async def stops_when_it_is_closed(asked: Asked) -> None:
    """Closing or cancelling an answer takes a second at most, and the provider then answers as ever."""
    async with _provider(asked) as provider:
        await within(CLOSE_S, _stream(asked, provider).aclose(), "closing what has not begun")
        begun = _stream(asked, provider)
        await within(ANSWER_S, anext(begun), "the first delta")
        await within(CLOSE_S, begun.aclose(), "closing an answer")
        waited = _stream(asked, provider)
        waiting = asyncio.ensure_future(anext(waited))
        await asyncio.sleep(0)
        waiting.cancel()
        await within(CLOSE_S, asyncio.wait({waiting}), "cancelling whoever waits")
        await within(CLOSE_S, waited.aclose(), "closing what was cancelled")
        _has_words(await _answer(asked, provider))


async def answers_two_at_once(asked: Asked) -> None:
    """Two answers stream at the same time; closing one leaves the other whole."""
    async with _provider(asked) as provider:
        begun = _stream(asked, provider)
        await within(ANSWER_S, anext(begun), "the first delta")
        answers = asyncio.gather(_answer(asked, provider), _answer(asked, provider))
        await begun.aclose()
        for answer in await answers:
            _has_words(answer)


async def leaves_nothing_running(asked: Asked) -> None:
    """When answers and provider are closed, no task of theirs runs on."""
    async with nothing_left(), _provider(asked) as provider:
        await provider.warm(asked.llm)
        await _answer(asked, provider)
        begun = _stream(asked, provider)
        await within(ANSWER_S, anext(begun), "the first delta")
        await begun.aclose()


async def says_that_nobody_can_be_reached(asked: Asked) -> None:
    """When its service cannot be reached it raises `Transient` within 5 s, once asked; `warm` raises nothing."""
    if asked.unreachable is None:
        return
    async with nothing_left(), _provider(asked, asked.unreachable) as provider:
        await within(LOST_S, provider.warm(asked.llm), "warm")
        stream = _stream(asked, provider)
        try:
            delta = await within(LOST_S, anext(stream), "failing")
        except Transient:
            return
        finally:
            await stream.aclose()
        raise Broken(f"answered without a service: {delta}")


def _is_object(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except msgspec.DecodeError:
        return False


RULES: Final[tuple[Rule, ...]] = (
    answers_in_words_and_finishes_once,
    tells_what_an_answer_used,
    asks_for_a_tool_and_takes_its_answer,
    takes_every_history,
    stops_when_it_is_closed,
    answers_two_at_once,
    leaves_nothing_running,
    says_that_nobody_can_be_reached,
)
"""In the order they are tried."""
