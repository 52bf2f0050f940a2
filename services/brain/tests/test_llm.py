import asyncio
from collections.abc import Mapping
from importlib.metadata import EntryPoint

import msgspec
import pytest

from trunkline.brain.llm import (
    AgentSaid,
    CallerSaid,
    Finished,
    LlmCapabilities,
    LlmDelta,
    LlmProvider,
    LlmRequest,
    LlmStream,
    Message,
    TextDelta,
    ToolAnswered,
    ToolAsked,
    ToolCall,
    llm_providers,
)
from trunkline.proto.agent import Agent, Llm, Rule, Script, Slot, Tool
from trunkline.proto.ids import CallId, ToolCallId, TurnId
from trunkline.providers.errors import Misconfigured
from trunkline.runtime.plugins import PluginError, Plugins

pytestmark = pytest.mark.unit

SCRIPT = Script(
    slots={"day": Slot(hear="friday|sunday")},
    rules=(
        Rule(after="look", say="There you are."),
        Rule(known=("day",), say="Let me see.", tool="look", arguments={"day": "{day}"}),
    ),
    fallback="Which day?",
)
AGENT = Agent(name="a", llm=Llm(script=SCRIPT), tools=(Tool(name="look"),))


def provider_of(agent: Agent, providers: Plugins[LlmProvider]) -> LlmProvider:
    provider = providers.get(agent.llm.provider)
    provider.check(agent.llm, agent.tools)
    return provider


def request(agent: Agent, *messages: Message, tools: bool = True) -> LlmRequest:
    return LlmRequest(
        call=CallId("c"), turn=TurnId(2), llm=agent.llm, messages=messages, tools=agent.tools if tools else ()
    )


def deltas(agent: Agent, *messages: Message, tools: bool = True) -> list[LlmDelta]:
    async def collect() -> list[LlmDelta]:
        providers = llm_providers({})
        stream = provider_of(agent, providers).stream(request(agent, *messages, tools=tools))
        found = [delta async for delta in stream]
        await providers.aclose()
        return found

    return asyncio.run(collect())


def test_a_script_streams_its_reply_word_by_word() -> None:
    assert deltas(AGENT, CallerSaid(text="hello")) == [TextDelta("Which"), TextDelta(" day?"), Finished()]


def test_a_tool_call_comes_whole_behind_the_words_and_is_named_the_same_again() -> None:
    said = deltas(AGENT, CallerSaid(text="On Friday!"))
    assert said == [
        TextDelta("Let"),
        TextDelta(" me"),
        TextDelta(" see."),
        ToolCall(id=ToolCallId("t2-1"), name="look", arguments='{"day":"friday"}'),
        Finished(reason="tool-calls"),
    ]
    assert deltas(AGENT, CallerSaid(text="On Friday!")) == said


def test_a_result_is_answered() -> None:
    asked = ToolAsked(tool_call=ToolCallId("t2-1"), name="look", arguments="{}")
    answered = ToolAnswered(tool_call=ToolCallId("t2-1"), name="look", result="{}")
    found = deltas(AGENT, CallerSaid(text="friday"), asked, answered)
    assert "".join(d.text for d in found if isinstance(d, TextDelta)) == "There you are."


def test_without_tools_none_is_asked_for() -> None:
    assert deltas(AGENT, CallerSaid(text="friday"), tools=False)[-1] == Finished()


def test_the_bench_says_one_sentence_of_twelve_words() -> None:
    *words, last = deltas(Agent(name="bench", llm=Llm(provider="bench")), CallerSaid(text="hello"))
    text = "".join(word.text for word in words if isinstance(word, TextDelta))
    assert (len(words), len(text.split()), text.count("."), last) == (12, 12, 1, Finished())


def test_closing_the_stream_early_is_all_it_takes_to_cancel() -> None:
    async def first() -> LlmDelta:
        stream = provider_of(AGENT, llm_providers({})).stream(request(AGENT, CallerSaid(text="friday")))
        delta = await anext(stream)
        await stream.aclose()
        return delta

    assert asyncio.run(first()) == TextDelta("Let")


class Parrot:
    """A provider as a third party would install it."""

    capabilities = LlmCapabilities(tools=False)

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.word = environ["PARROT"]

    def check(self, llm: Llm, tools: tuple[Tool, ...]) -> None:
        del tools
        if not llm.model:
            raise Misconfigured("llm.model", "a parrot needs a model")

    async def warm(self, llm: Llm) -> None:
        del llm

    async def stream(self, request: LlmRequest) -> LlmStream:
        del request
        yield TextDelta(self.word)
        yield Finished()

    async def aclose(self) -> None:
        self.word = ""


def parrots(environ: Mapping[str, str]) -> Plugins[LlmProvider]:
    # The module of a test has no name that could be imported, so the entry point comes loaded.
    class Loaded(EntryPoint):
        def load(self) -> type[Parrot]:
            return Parrot

    return llm_providers(environ, [Loaded("parrot", "parrots:Parrot", "trunkline.llm_providers")])


def test_an_installed_provider_is_made_once_and_reads_the_environment() -> None:
    providers = parrots({"PARROT": "squawk"})
    agent = Agent(name="a", llm=Llm(provider="parrot", model="grey"))
    provider = provider_of(agent, providers)
    assert provider is provider_of(agent, providers)
    assert isinstance(provider, Parrot)
    assert provider.word == "squawk"
    asyncio.run(providers.aclose())
    assert provider.word == ""


@pytest.mark.parametrize(
    ("llm", "text"),
    [
        (Llm(provider="nobody"), "llm.provider: no provider 'nobody' here; expected one of anthropic, bench, google"),
        (Llm(provider="parrot", model="grey"), "llm.provider: 'parrot' cannot be made: 'PARROT'"),
        (Llm(provider="script"), "llm.script: the provider 'script' needs a script"),
        (
            Llm(script=Script(rules=(Rule(say="{day}"), Rule(hear="(")))),
            (
                "llm.script.rules[0].say: {day} may be unknown here; list it under `known`; "
                "llm.script.rules[1].hear: no regular expression"
            ),
        ),
    ],
)
def test_what_is_wrong_with_an_agent_is_named_with_its_path(llm: Llm, text: str) -> None:
    with pytest.raises((Misconfigured, PluginError)) as raised:
        provider_of(Agent(name="a", llm=llm), parrots({}))
    assert str(raised.value).startswith(text)


def test_a_history_can_be_stored_and_read_back() -> None:
    history: tuple[Message, ...] = (
        CallerSaid(text="friday"),
        AgentSaid(text="Let me see.", heard="Let me"),
        ToolAsked(tool_call=ToolCallId("t"), name="look", arguments="{}"),
        ToolAnswered(tool_call=ToolCallId("t"), name="look", error="It took too long."),
    )
    assert msgspec.json.decode(msgspec.json.encode(history), type=tuple[Message, ...]) == history
