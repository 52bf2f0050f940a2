"""Gemini through the official SDK, against the emulator."""

import asyncio
import json
from contextlib import aclosing

import msgspec
import pytest
from google.genai import errors

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
from trunkline.brain.providers import google
from trunkline.proto.agent import Llm, Timeouts, Tool
from trunkline.providers.errors import Misconfigured, ProviderError, Rejected, Throttled
from trunkline.testing.patience import PATIENCE_S, until
from trunkline.testing.providers.content import Reply, Said
from trunkline.testing.providers.google import GoogleEmulator
from trunkline.testing.providers.server import Fault

pytestmark = pytest.mark.integration

KEY = "AIza-that-nobody-may-read"
PATIENT = Timeouts(connect_ms=60_000)
LLM = Llm(provider="google", timeouts=PATIENT)
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
        async with GoogleEmulator(**quick) as emulator:
            plugins = llm_providers({"GOOGLE_API_KEY": key, "GOOGLE_BASE_URL": emulator.url}, [])
            provider = plugins.get("google")
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
        assert emulator.seen[0].path == "/v1/models/gemini-3.8-flash:streamGenerateContent"
        assert emulator.bodies[0]["generationConfig"] == {"thinkingConfig": {"thinkingLevel": "LOW"}}

    told(story)


def test_what_the_service_has_kept_is_counted_as_cached():
    async def story(_, provider):
        await answer(provider, asking())
        again = await answer(provider, asking())
        assert again[-1].usage == Usage(input_tokens=8, cached_tokens=3, output_tokens=5)

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
        declared = emulator.bodies[0]["tools"][0]["functionDeclarations"]
        assert [tool["parametersJsonSchema"]["type"] for tool in declared] == ["object", "object"]
        assert [book.id, menu.id] == ["g2-1", "g2-2"]

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
        contents = emulator.bodies[0]["contents"]
        assert [content["role"] for content in contents] == ["user", "model", "user", "user"]
        assert emulator.asked[0].history[1:] == (
            Said("caller", "Book it."),
            Said("agent", "One moment,"),
            Said("tool-asked", '{"party": 4}', "book", "t1"),
            Said("tool-asked", '{"text": "no json"}', "menu", "call:2"),
            Said("tool-answered", '{"output": {"ok": true}}', "book", "t1"),
            Said("tool-answered", '{"error": "closed"}', "menu", "call:2"),
            Said("caller", "And?"),
        )

    told(story)


def test_a_call_without_an_id_is_named_by_the_turn_and_its_place_in_the_history():
    async def story(emulator, provider):
        before = (ToolAsked(tool_call="g1-1", name="menu", arguments="{}"), *HELLO)
        for _ in range(2):
            deltas = await answer(provider, asking(*before, tools=[MENU]))
            assert deltas[0] == ToolCall(id="g2-2", name="menu", arguments="{}")
        emulator.call_ids = True
        deltas = await answer(provider, asking(*before, tools=[MENU]))
        assert deltas[0].id == "fc3-0"

    told(story, reply=Reply("", (("menu", "{}"),)))


def test_the_agents_settings_reach_the_service():
    async def story(emulator, provider):
        options = {"top_p": 0.5, "top_k": 3, "thinking_budget": 64}
        llm = Llm(provider="google", model="gemini-2.5-flash", temperature=0.2, max_tokens=50, options=options)
        await answer(provider, asking(llm=llm))
        assert emulator.bodies[0]["generationConfig"] == {
            "temperature": 0.2,
            "maxOutputTokens": 50,
            "topP": 0.5,
            "topK": 3,
            "thinkingConfig": {"thinkingBudget": 64},
        }
        await answer(provider, asking(llm=Llm(model="gemini-2.5-flash")))
        assert emulator.bodies[1]["generationConfig"] == {"thinkingConfig": {"thinkingBudget": 0}}

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
        deltas = await answer(provider, asking(llm=Llm(provider="google", max_tokens=2)))
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
    monkeypatch.setattr(google, "_WARM_S", PATIENCE_S)

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
        emulator.unavailable_after = 2
        with pytest.raises(ProviderError, match="overloaded") as raised:
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
        llm = Llm(provider="google", options={"thinking_level": "minimal"})
        with pytest.raises(Rejected, match="not supported"):
            await answer(provider, asking(llm=llm))

    told(story)


@pytest.mark.parametrize(
    ("llm", "tools", "setting"),
    [
        (Llm(options={"topP": 0.5}), (), "llm.options.topP"),
        (Llm(options={"top_k": 0.5}), (), "llm.options.top_k"),
        (Llm(options={"thinking_budget": True}), (), "llm.options.thinking_budget"),
        (Llm(options={"thinking_level": "much"}), (), "llm.options.thinking_level"),
        (Llm(options={"thinking_level": "low", "thinking_budget": 0}), (), "llm.options.thinking_budget"),
        (Llm(endpoint="vertex"), (), "llm.endpoint"),
        (LLM, (Tool(name="book", parameters={"type": "string"}),), "tools.book.parameters"),
    ],
)
def test_what_cannot_be_honoured_is_told_before_any_call(llm, tools, setting):
    provider = llm_providers({"GOOGLE_API_KEY": KEY}, []).get("google")
    with pytest.raises(Misconfigured) as raised:
        provider.check(llm, tools)
    assert raised.value.setting == setting


def test_a_missing_key_and_a_bad_address_are_named():
    with pytest.raises(Misconfigured, match="GOOGLE_API_KEY"):
        llm_providers({}, []).get("google").check(LLM, ())
    environ = {"GOOGLE_API_KEY": KEY, "GOOGLE_BASE_URL": "ftp://there"}
    with pytest.raises(Misconfigured, match="GOOGLE_BASE_URL"):
        llm_providers(environ, []).get("google").check(LLM, ())


def test_the_key_may_go_by_its_other_name():
    llm_providers({"GEMINI_API_KEY": KEY}, []).get("google").check(LLM, ())


def test_a_wait_told_in_the_details_of_a_refusal_is_heeded():
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7.5s"}, "no object"]
    error = errors.APIError(429, {"error": {"code": 429, "message": f"Too many for {KEY}", "details": details}})
    meant = google._meant(error, KEY)
    assert isinstance(meant, Throttled)
    assert (meant.retry_after_s, str(meant)) == (7.5, "HTTP 429: Too many for ***")


class Strange(GoogleEmulator):
    """Malformed here is what can be read and makes no sense."""

    piece = ""

    def malformed(self):
        return f"data: {self.piece}\n\n"


@pytest.mark.parametrize(
    "piece",
    [
        "5",
        '{"candidates": {"content": 5}}',
        '{"candidates": [{"content": {"parts": [{"text": 5}]}}]}',
        '{"candidates": [{"content": {"parts": [{"functionCall": {"args": {}}}]}}]}',
        '{"candidates": [{"content": {"parts": ["text"]}}]}',
        '{"candidates": [{"content": {"parts": [{"text": "\\ud800"}]}}]}',
        '{"candidates": [{"content": {"parts": [{"functionCall": {"name": "a", "args": {"b": "\\ud800"}}}]}}]}',
        '{"error": "no object"}',
        '{"error": {"code": "x"}}',
    ],
)
def test_a_piece_of_a_strange_shape_is_a_malformed_answer(piece):
    async def story():
        async with Strange(mind=lambda _: WORDS, first_s=0, tokens_per_s=0) as emulator:
            emulator.piece = piece
            await emulator.inject(Fault.MALFORMED)
            plugins = llm_providers({"GOOGLE_API_KEY": "test-key", "GOOGLE_BASE_URL": emulator.url}, [])
            with pytest.raises(ProviderError) as raised:
                await answer(plugins.get("google"), asking())
            assert raised.value.kind == "malformed"
            await plugins.aclose()

    asyncio.run(story())
