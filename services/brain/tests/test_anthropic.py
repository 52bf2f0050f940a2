"""Claude through the official SDK, against the emulator."""

import asyncio
import json
from contextlib import aclosing

import msgspec
import pytest

from trunkline.brain.llm import (
    AgentSaid,
    CallerSaid,
    Finished,
    LlmRequest,
    SystemNote,
    TextDelta,
    ToolAnswered,
    ToolAsked,
    ToolCall,
    Usage,
    llm_providers,
)
from trunkline.brain.providers import anthropic
from trunkline.proto.agent import Llm, Timeouts, Tool
from trunkline.providers.errors import Misconfigured, ProviderError, Rejected, Throttled
from trunkline.testing.patience import PATIENCE_S, until
from trunkline.testing.providers.anthropic import AnthropicEmulator
from trunkline.testing.providers.content import Reply, Said
from trunkline.testing.providers.server import Fault

pytestmark = pytest.mark.integration

KEY = "sk-ant-that-nobody-may-read"
PATIENT = Timeouts(connect_ms=60_000)
LLM = Llm(provider="anthropic", timeouts=PATIENT)
BOOK = Tool(
    name="book", description="Books.", parameters={"type": "object", "properties": {"party": {"type": "integer"}}}
)
MENU = Tool(name="menu")
HELLO = (CallerSaid(text="A table for four, please."),)
WORDS = Reply("Certainly, a table for four.")
LONG = Reply(" ".join(["Certainly."] * 100))


def asking(*messages, llm=LLM, tools=(), prompt="You take bookings."):
    llm = msgspec.structs.replace(llm, timeouts=PATIENT)
    return LlmRequest(call="c1", turn=2, llm=llm, prompt=prompt, messages=tuple(messages) or HELLO, tools=tuple(tools))


async def answer(provider, request):
    async with aclosing(provider.stream(request)) as deltas:
        return [delta async for delta in deltas]


def text_of(deltas):
    return "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))


def told(story, *, reply=WORDS, key=KEY, **emulated):
    """Run `story` with a quick emulator and the provider."""

    async def run():
        quick = {"first_s": 0, "tokens_per_s": 0, "key": KEY, "mind": lambda _: reply} | emulated
        async with AnthropicEmulator(**quick) as emulator:
            plugins = llm_providers({"ANTHROPIC_API_KEY": key, "ANTHROPIC_BASE_URL": emulator.url}, [])
            provider = plugins.get("anthropic")
            try:
                await asyncio.wait_for(story(emulator, provider), 2 * PATIENCE_S)
            finally:
                await plugins.aclose()

    asyncio.run(run())


def test_words_come_as_they_are_thought_and_then_what_they_cost():
    async def story(emulator, provider):
        deltas = await answer(provider, asking())
        assert text_of(deltas) == WORDS.text
        assert len(deltas) == 6
        assert deltas[-1] == Finished(reason="stop", usage=Usage(input_tokens=8, output_tokens=5))
        body = emulator.bodies[0]
        assert (body["model"], body["max_tokens"], body["thinking"]) == (
            "claude-haiku-5-5",
            1_024,
            {"type": "disabled"},
        )

    told(story)


def test_what_the_service_has_kept_is_counted_as_cached():
    async def story(_, provider):
        await answer(provider, asking())
        again = await answer(provider, asking())
        assert again[-1].usage == Usage(input_tokens=8, cached_tokens=3, output_tokens=5)
        apart = await answer(provider, asking(llm=Llm(provider="anthropic", options={"cache": False})))
        assert apart[-1].usage == Usage(input_tokens=8, output_tokens=5)

    told(story)


def test_several_tools_are_asked_for_after_the_words():
    async def story(emulator, provider):
        deltas = await answer(provider, asking(tools=[BOOK, MENU]))
        assert text_of(deltas) == "One moment."
        book, menu = [delta for delta in deltas if isinstance(delta, ToolCall)]
        assert (book.name, json.loads(book.arguments)) == ("book", {"party": 4})
        assert (menu.name, json.loads(menu.arguments)) == ("menu", {})
        assert book.id != menu.id
        assert deltas[-1].reason == "tool-calls"
        assert [tool["input_schema"]["type"] for tool in emulator.bodies[0]["tools"]] == ["object", "object"]

    told(story, reply=Reply("One moment.", (("book", '{"party": 4}'), ("menu", ""))))


def test_what_tools_answered_goes_back_beside_the_question():
    async def story(emulator, provider):
        await answer(
            provider,
            asking(
                CallerSaid(text="Book it."),
                AgentSaid(text="One moment, please.", heard="One moment,"),
                ToolAsked(tool_call="t1", name="book", arguments='{"party": 4}'),
                ToolAsked(tool_call="call:2", name="menu", arguments="no json"),
                ToolAnswered(tool_call="t1", name="book", result='{"ok": true}'),
                ToolAnswered(tool_call="call:2", name="menu", error="closed"),
                CallerSaid(text="And?"),
            ),
        )
        roles = [message["role"] for message in emulator.bodies[0]["messages"]]
        assert roles == ["user", "assistant", "user"]
        assert emulator.asked[0].history[1:] == (
            Said("caller", "Book it."),
            Said("agent", "One moment,"),
            Said("tool-asked", '{"party": 4}', "book", "t1"),
            Said("tool-asked", '{"text": "no json"}', "menu", "call_2"),
            Said("tool-answered", '{"ok": true}', "book", "t1"),
            Said("tool-answered", "closed", "menu", "call_2"),
            Said("caller", "And?"),
        )
        assert emulator.bodies[0]["messages"][2]["content"][1]["is_error"] is True
        assert emulator.asked[0].tools == ("book", "menu")
        assert emulator.bodies[0]["tool_choice"] == {"type": "none"}

    told(story)


@pytest.mark.parametrize(
    "messages",
    [
        (),
        (AgentSaid(text="Hello, who is there?", heard="Hello,"), CallerSaid(text="Me.")),
        (AgentSaid(text="Hello", heard=""), AgentSaid(text="Still there?", heard="Still there?")),
        (CallerSaid(text=""), SystemNote(text="The caller pressed 1.")),
        (CallerSaid(text="Book."), ToolAsked(tool_call="t1", name="book", arguments="{}"), CallerSaid(text="Wait.")),
        (
            ToolAsked(tool_call="t1", name="book", arguments="[]"),
            ToolAnswered(tool_call="t1", name="book", result="1"),
            ToolAsked(tool_call="t2", name="book", arguments=""),
            ToolAnswered(tool_call="t2", name="book", result="2"),
            AgentSaid(text="Done.", heard="Done."),
        ),
        (ToolAnswered(tool_call="t9", name="book", result="late"),),
        (SystemNote(text="silence"), AgentSaid(text=" ", heard=" ")),
    ],
)
def test_whatever_has_happened_is_a_history_that_the_service_takes(messages):
    async def story(_, provider):
        request = LlmRequest(call="c1", turn=1, llm=LLM, messages=messages)
        assert text_of(await answer(provider, request)) == WORDS.text

    told(story)


def test_a_greeting_that_was_heard_is_known_to_the_model():
    async def story(emulator, provider):
        await answer(provider, asking(AgentSaid(text="Hello, there", heard="Hello,"), CallerSaid(text="Hi.")))
        said = [(said.who, said.text) for said in emulator.asked[0].history]
        assert said == [
            ("system", "You take bookings."),
            ("caller", "(the call begins)"),
            ("agent", "Hello,"),
            ("caller", "Hi."),
        ]

    told(story)


def test_an_answer_that_grows_too_long_says_so():
    async def story(_, provider):
        deltas = await answer(provider, asking(llm=Llm(provider="anthropic", max_tokens=2)))
        assert text_of(deltas) == "Certainly, a"
        assert deltas[-1].reason == "length"

    told(story)


def test_an_answer_closed_early_stops_at_the_service_at_once_and_the_next_is_heard():
    async def story(emulator, provider):
        async with aclosing(provider.stream(asking())) as deltas:
            assert await anext(deltas)
        await until(lambda: emulator.left == 1)
        emulator._token_s = 0
        assert text_of(await answer(provider, asking())) == LONG.text

    told(story, reply=LONG, tokens_per_s=20)


def test_whoever_stops_waiting_for_the_first_word_stops_the_request():
    async def story(emulator, provider):
        waiting = asyncio.ensure_future(answer(provider, asking()))
        await until(lambda: emulator.asked)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        emulator._first_s = 0
        assert text_of(await answer(provider, asking())) == WORDS.text

    told(story, first_s=600)


def test_a_warmed_connection_is_used_by_the_answers_that_follow(monkeypatch):
    monkeypatch.setattr(anthropic, "_WARM_S", PATIENCE_S)

    async def story(emulator, provider):
        await provider.warm(LLM)
        await answer(provider, asking())
        await answer(provider, asking())
        assert [seen.method for seen in emulator.seen] == ["GET", "POST", "POST"]
        assert len(emulator._runner.server.connections) == 1

    told(story)


@pytest.mark.parametrize("fault", [Fault.REFUSE, Fault.SERVER_ERROR, Fault.UNAUTHORISED])
def test_warming_what_does_not_answer_says_nothing(fault):
    async def story(emulator, provider):
        await emulator.inject(fault)
        await provider.warm(LLM)

    told(story)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.REFUSE, "connect"),
        (Fault.UNAUTHORISED, "unauthorised"),
        (Fault.THROTTLED, "throttled"),
        (Fault.SERVER_ERROR, "server"),
        (Fault.DROP, "dropped"),
        (Fault.HALF_CLOSE, "dropped"),
        (Fault.MALFORMED, "malformed"),
    ],
)
@pytest.mark.parametrize("after", [0, 4])
def test_every_failure_is_of_its_kind_and_the_next_answer_is_heard(fault, kind, after):
    async def story(emulator, provider):
        await emulator.inject(fault, after=after)
        with pytest.raises(ProviderError) as raised:
            await answer(provider, asking())
        assert raised.value.kind == kind
        assert KEY not in str(raised.value)
        if isinstance(raised.value, Throttled):
            assert raised.value.retry_after_s == 7
        await emulator.heal()
        assert text_of(await answer(provider, asking())) == WORDS.text

    told(story)


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.STALL, Fault.SLOW_LORIS])
def test_what_never_comes_is_waited_for_by_whoever_asks(fault):
    async def story(emulator, provider):
        await emulator.inject(fault)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await answer(provider, asking())
        await until(lambda: not emulator._runner.server.connections)
        await emulator.heal()
        assert text_of(await answer(provider, asking())) == WORDS.text

    told(story)


def test_an_event_nobody_knows_does_no_harm():
    async def story(emulator, provider):
        await emulator.inject(Fault.UNKNOWN_TYPE)
        deltas = await answer(provider, asking())
        assert text_of(deltas) == WORDS.text
        assert deltas[-1].reason == "stop"

    told(story)


def test_a_service_that_is_overloaded_in_the_midst_of_an_answer_is_a_passing_failure():
    async def story(emulator, provider):
        emulator.overloaded_after = 5
        with pytest.raises(ProviderError, match="Overloaded") as raised:
            await answer(provider, asking())
        assert raised.value.kind == "server"

    told(story)


def test_a_wrong_key_is_refused_without_being_quoted():
    async def story(_, provider):
        with pytest.raises(ProviderError) as raised:
            await answer(provider, asking())
        assert raised.value.kind == "unauthorised"
        assert "another" not in str(raised.value)

    told(story, key="another-key")


def test_a_request_the_service_does_not_understand_is_refused():
    async def story(_, provider):
        llm = Llm(provider="anthropic", model="claude-opus-5-5", options={"thinking": "disabled"})
        with pytest.raises(Rejected, match="not supported"):
            await answer(provider, asking(llm=llm))
        await answer(provider, asking(llm=Llm(provider="anthropic", model="claude-opus-5-5")))

    told(story)


@pytest.mark.parametrize(
    ("llm", "tools", "setting"),
    [
        (Llm(options={"top_p": 0.5}), (), "llm.options.top_p"),
        (Llm(options={"thinking": True}), (), "llm.options.thinking"),
        (Llm(options={"cache": "yes"}), (), "llm.options.cache"),
        (Llm(endpoint="bedrock"), (), "llm.endpoint"),
        (LLM, (Tool(name="book", parameters={"type": "string"}),), "tools.book.parameters"),
    ],
)
def test_what_cannot_be_honoured_is_told_before_any_call(llm, tools, setting):
    provider = llm_providers({"ANTHROPIC_API_KEY": KEY}, []).get("anthropic")
    with pytest.raises(Misconfigured) as raised:
        provider.check(llm, tools)
    assert raised.value.setting == setting


def test_a_missing_key_and_a_bad_address_are_named():
    with pytest.raises(Misconfigured, match="ANTHROPIC_API_KEY"):
        llm_providers({}, []).get("anthropic").check(LLM, ())
    environ = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": "ftp://there"}
    with pytest.raises(Misconfigured, match="ANTHROPIC_BASE_URL"):
        llm_providers(environ, []).get("anthropic").check(LLM, ())


TWO = (
    '{"type": "content_block_start", "index": 9, "content_block": {"type": "tool_use"}}\n\n'
    'data: {"type": "content_block_stop", "index": 9}'
)


class Strange(AnthropicEmulator):
    """Malformed here is what can be read and makes no sense."""

    piece = ""

    def malformed(self):
        return f"event: message_delta\ndata: {self.piece}\n\n"


@pytest.mark.parametrize(
    "piece",
    [
        "[]",
        "5",
        '{"type": 5}',
        '{"type": "message_start", "message": {"usage": {"input_tokens": "many"}}}',
        '{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": 5}}',
        '{"type": "content_block_delta", "index": "first", "delta": {"type": "text_delta", "text": "a"}}',
        TWO,
        '{"type": "message_delta", "delta": {"stop_reason": []}}',
        '{"type": "error", "error": "no object"}',
    ],
)
def test_an_event_of_a_strange_shape_is_a_malformed_answer(piece):
    async def story():
        async with Strange(mind=lambda _: WORDS, first_s=0, tokens_per_s=0) as emulator:
            emulator.piece = piece
            await emulator.inject(Fault.MALFORMED)
            plugins = llm_providers({"ANTHROPIC_API_KEY": "test-key", "ANTHROPIC_BASE_URL": emulator.url}, [])
            with pytest.raises(ProviderError) as raised:
                await answer(plugins.get("anthropic"), asking())
            assert raised.value.kind == "malformed"
            await plugins.aclose()

    asyncio.run(story())
