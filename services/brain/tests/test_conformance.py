"""Our minds keep the rules of every mind, and the rules catch minds that do not."""

import asyncio

import pytest

from trunkline.brain import conformance
from trunkline.brain.conformance import RULES, NotConformant, check_llm_provider
from trunkline.brain.llm import AgentSaid, Finished, LlmCapabilities, TextDelta, ToolCall, Usage, llm_providers
from trunkline.proto.agent import Llm, Rule, Script, Tool
from trunkline.providers import conformance as shared
from trunkline.providers.conformance import stated
from trunkline.providers.errors import Rejected
from trunkline.testing.patience import PATIENCE_S
from trunkline.testing.providers.anthropic import AnthropicEmulator
from trunkline.testing.providers.content import Reply
from trunkline.testing.providers.google import GoogleEmulator
from trunkline.testing.providers.openai import OpenAiEmulator

pytestmark = pytest.mark.integration

TOOL = Tool(
    name="find_table",
    description="Look for a table",
    parameters={"type": "object", "properties": {"people": {"type": "integer"}}},
)
NOBODY = "http://127.0.0.1:9"
KEYS = {f"{name}_API_KEY": "test-key" for name in ("OPENAI", "GROQ", "ANTHROPIC", "GOOGLE")}
SCRIPT = Script(rules=(Rule(hear="use the tool", tool="find_table"),), fallback="We open at six.")


def test_every_rule_is_stated():
    assert all(stated(rule).endswith(".") for rule in RULES)


def at(url):
    openai = {"OPENAI_BASE_URL": f"{url}/v1", "GROQ_BASE_URL": f"{url}/v1"}
    return openai | {"ANTHROPIC_BASE_URL": url, "GOOGLE_BASE_URL": url}


def mind(asked):
    last = asked.history[-1]
    if TOOL.name in asked.tools and last.who == "caller" and "Use the tool" in last.text:
        return Reply("One moment.", ((TOOL.name, '{"people": 4}'),))
    return Reply("We open at six tomorrow, and the kitchen closes at ten.")


def check(make, llm, **settings):
    asyncio.run(check_llm_provider(make, llm, **settings))


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    """Have the rules about closing and failing catch only who never does: how soon is the machine's business too."""
    for where, limit in ((conformance, "CLOSE_S"), (conformance, "LOST_S"), (shared, "_LINGER_S")):
        monkeypatch.setattr(where, limit, PATIENCE_S)


def conforms(emulator, name, **settings):
    async def run():
        async with emulator(mind=mind, first_s=0.02, tokens_per_s=1e4) as server:
            await check_llm_provider(
                lambda: llm_providers(KEYS | at(server.url), []).get(name),
                Llm(provider=name, **settings),
                tool=TOOL,
                unreachable=lambda: llm_providers(KEYS | at(NOBODY), []).get(name),
            )

    asyncio.run(run())


@pytest.mark.parametrize("name", ["openai", "openai-responses"])
def test_openai_conforms(name):
    conforms(OpenAiEmulator, name)


def test_what_is_compatible_with_openai_conforms():
    conforms(OpenAiEmulator, "openai-compatible", endpoint="groq", model="llama")


def test_claude_conforms():
    conforms(AnthropicEmulator, "anthropic")


def test_gemini_conforms():
    conforms(GoogleEmulator, "google")


def test_a_script_conforms():
    check(lambda: llm_providers({}, []).get("script"), Llm(script=SCRIPT), tool=TOOL)


def test_bench_conforms():
    check(lambda: llm_providers({}, []).get("bench"), Llm(provider="bench"))


# --- minds that break a rule ------------------------------------------------------------------------------------------


class Honest:
    """A mind that does all as it should."""

    capabilities = LlmCapabilities()

    def check(self, llm, tools):
        pass

    async def warm(self, llm):
        pass

    async def aclose(self):
        pass

    async def stream(self, request):
        last = request.messages[-1]
        if request.tools and "Use the tool" in getattr(last, "text", ""):
            yield ToolCall(id="t1", name=TOOL.name, arguments="{}")
            yield Finished(reason="tool-calls", usage=Usage(input_tokens=9, output_tokens=3))
            return
        yield TextDelta("At ")
        await asyncio.sleep(0.01)
        yield TextDelta("six.")
        yield Finished(usage=Usage(input_tokens=9, output_tokens=3))


def changed(change):
    """Return a mind whose deltas go through `change`."""

    class Changed(Honest):
        async def stream(self, request):
            async for delta in super().stream(request):
                for other in change(delta):
                    yield other

    return Changed


class Particular(Honest):
    async def stream(self, request):
        if isinstance(request.messages[0], AgentSaid):
            raise Rejected("the user must speak first")
        async for delta in super().stream(request):
            yield delta


class Clinging(Honest):
    async def stream(self, request):
        try:
            async for delta in super().stream(request):
                yield delta
        finally:
            await asyncio.sleep(1.1)


class Single(Honest):
    """Whoever asks next cuts off the one before."""

    turn = 0

    async def stream(self, request):
        self.turn = turn = self.turn + 1
        async for delta in super().stream(request):
            if turn == self.turn:
                yield delta


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (changed(lambda d: [] if isinstance(d, Finished) else [d]), "answers_in_words_and_finishes_once"),
        (changed(lambda d: [d, d] if isinstance(d, Finished) else [d]), "answers_in_words_and_finishes_once"),
        (changed(lambda d: [TextDelta(""), d]), "answers_in_words_and_finishes_once"),
        (changed(lambda d: [Finished()] if isinstance(d, Finished) else [d]), "tells_what_an_answer_used"),
        (
            changed(lambda d: [ToolCall(id="", name=d.name, arguments="{}")] if isinstance(d, ToolCall) else [d]),
            "asks_for_a_tool_and_takes_its_answer",
        ),
        (
            changed(lambda d: [ToolCall(id="t", name=d.name, arguments='{"a')] if isinstance(d, ToolCall) else [d]),
            "asks_for_a_tool_and_takes_its_answer",
        ),
        (Particular, "takes_every_history"),
        (Clinging, "stops_when_it_is_closed"),
        (Single, "answers_two_at_once"),
    ],
)
def test_a_mind_that_breaks_a_rule_is_caught(broken, rule, monkeypatch):
    monkeypatch.setattr(conformance, "CLOSE_S", 1.0)
    caught(broken, rule)


def test_a_mind_that_answers_for_nobody_is_caught():
    caught(Honest, "says_that_nobody_can_be_reached", unreachable=Honest)


def test_a_mind_that_keeps_all_rules_is_not_caught():
    check(Honest, Llm(), tool=TOOL)


def caught(make, rule, **settings):
    rules = [one for one in RULES if one.__name__ == rule]
    with pytest.raises(NotConformant) as broken:
        check(make, Llm(), tool=TOOL, rules=rules, **settings)
    assert broken.value.rule == rule
