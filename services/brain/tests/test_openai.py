"""OpenAI's models and compatible ones through the official SDK, against the emulator; both protocols."""

import asyncio
import contextlib
import json
from typing import NamedTuple

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

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
    llm_providers,
)
from trunkline.brain.providers import openai
from trunkline.proto.agent import Llm, Timeouts, Tool
from trunkline.proto.ids import CallId, ToolCallId, TurnId
from trunkline.providers.errors import Misconfigured, ProviderError, Rejected, Throttled, Transient, Unauthorised
from trunkline.testing.patience import PATIENCE_S, until
from trunkline.testing.providers.content import Reply
from trunkline.testing.providers.openai import OpenAiEmulator
from trunkline.testing.providers.server import Fault

pytestmark = pytest.mark.integration

KEY = "test-key-that-nobody-may-read"
BOTH = pytest.mark.parametrize("provider", ["openai", "openai-responses"])
TWO = (("find_table", '{"people": 4, "at": "eight"}'), ("find_room", '{"nights": 2}'))
TABLE = Tool(name="find_table", description="Look for a table", parameters={"type": "object", "properties": {"n": {}}})
CLOCK = Tool(name="clock")
LONG = Reply("Go on. " * 100)
PATIENT = Timeouts(connect_ms=60_000)


class Talk(NamedTuple):
    emulator: OpenAiEmulator
    provider: object
    llm: Llm

    def stream(self, *messages, llm=None, tools=(), prompt="Be brief."):
        history = messages or (CallerSaid(text="Good evening"),)
        request = LlmRequest(
            call=CallId("c"), turn=TurnId(3), llm=llm or self.llm, prompt=prompt, messages=history, tools=tools
        )
        return self.provider.stream(request)

    async def answer(self, *messages, **asked):
        async with contextlib.aclosing(self.stream(*messages, **asked)) as deltas:
            return [delta async for delta in deltas]

    async def failure(self):
        """Return what was said before it failed, and the failure."""
        said, stream = [], self.stream()
        try:
            async for delta in stream:
                said.append(delta)  # noqa: PERF401 - what came before the failure is wanted
        except ProviderError as error:
            return said, error
        raise AssertionError("nothing failed")


def talking(story, reply=None, *, provider="openai", llm=None, key=KEY, account=KEY, environ=None, **emulated):
    async def run():
        quick = {"mind": lambda _: reply or Reply("Good evening, what can I do?"), "first_s": 0, "tokens_per_s": 0}
        async with OpenAiEmulator(**quick | {"key": account} | emulated) as emulator:
            url = f"{emulator.url}/v1"
            settings = {"OPENAI_API_KEY": key, "OPENAI_BASE_URL": url, "GROQ_BASE_URL": url, "OLLAMA_BASE_URL": url}
            plugins = llm_providers(settings | (environ or {}), [])
            try:
                talk = Talk(
                    emulator,
                    plugins.get(provider),
                    msgspec.structs.replace(llm or Llm(provider=provider), timeouts=PATIENT),
                )
                await asyncio.wait_for(story(talk), 2 * PATIENCE_S)
            finally:
                await plugins.aclose()

    asyncio.run(run())


def text_of(deltas):
    return "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))


# --- answers ----------------------------------------------------------------------------------------------------------


@BOTH
def test_words_come_as_they_are_written_and_end_with_their_cost(provider):
    async def story(talk):
        *words, end = await talk.answer()
        assert text_of(words) == "Good evening, what can I do?"
        assert len(words) == 7
        assert end.reason == "stop"
        assert end.usage.output_tokens == 7
        assert end.usage.input_tokens > 0
        body = talk.emulator.bodies[0]
        assert body["model"] == talk.provider.capabilities.model
        assert "tools" not in body
        assert "temperature" not in body

    talking(story, provider=provider)


@BOTH
def test_two_tools_by_turns_become_two_whole_calls(provider):
    async def story(talk):
        *words, first, second, end = await talk.answer(tools=(TABLE, CLOCK))
        assert text_of(words) == "Let me see."
        assert [(call.name, call.arguments) for call in (first, second)] == list(TWO)
        assert first.id != second.id
        assert end.reason == "tool-calls"
        assert talk.emulator.asked[0].tools == ("find_table", "clock")
        table, clock = (tool.get("function", tool) for tool in talk.emulator.bodies[0]["tools"])
        assert table["parameters"] == TABLE.parameters
        assert clock["parameters"] == {"type": "object", "properties": {}}

    talking(story, Reply("Let me see.", TWO), provider=provider, interleaved=True)


@BOTH
def test_what_a_tool_answered_goes_back_with_its_question(provider):
    def mind(asked):
        answered = [said for said in asked.history if said.who == "tool-answered"]
        return Reply(f"It says {answered[-1].text} to {answered[-1].tool}.") if answered else Reply("", TWO[:1])

    async def story(talk):
        call, end = await talk.answer(tools=(TABLE,))
        assert isinstance(call, ToolCall)
        assert end.reason == "tool-calls"
        asked = ToolAsked(tool_call=call.id, name=call.name, arguments=call.arguments)
        answered = ToolAnswered(tool_call=call.id, name=call.name, result='"free"')
        deltas = await talk.answer(CallerSaid(text="A table"), asked, answered, tools=(TABLE,))
        assert text_of(deltas) == 'It says "free" to find_table.'

    talking(story, provider=provider, mind=mind)


@BOTH
def test_the_model_is_shown_what_was_heard_and_questions_are_never_without_an_answer(provider):
    def asked(own, name="find_table", arguments='{"n": 4}'):
        return ToolAsked(tool_call=ToolCallId(own), name=name, arguments=arguments)

    history = (
        AgentSaid(text="Welcome to the Rose.", heard="Welcome to"),
        CallerSaid(text="A table and a room"),
        AgentSaid(text="One moment.", heard="One moment."),
        asked("a"),
        asked("b" * 90, name="find room!", arguments="{not json"),
        CallerSaid(text=""),
        ToolAnswered(tool_call=ToolCallId("a"), name="find_table", result="4"),
        ToolAnswered(tool_call=ToolCallId("nobody asked"), name="x", result="5"),
        AgentSaid(text="Sorry?", heard=""),
        asked("c"),
        ToolAnswered(tool_call=ToolCallId("c"), name="find_table", error="no table"),
        SystemNote(text="The caller pressed 5"),
    )

    async def story(talk):
        await talk.answer(*history)
        told = talk.emulator.asked[0].history
        assert [(said.who, said.text) for said in told] == [
            ("system", "Be brief."),
            ("agent", "Welcome to"),
            ("caller", "A table and a room"),
            ("agent", "One moment."),
            ("tool-asked", '{"n": 4}'),
            ("tool-asked", "{}"),
            ("tool-answered", "4"),
            ("tool-answered", '{"error":"no answer yet"}'),
            ("caller", "[unintelligible]"),
            ("tool-asked", '{"n": 4}'),
            ("tool-answered", '{"error":"no table"}'),
            ("caller", "[The caller pressed 5]"),
        ]
        assert told[5].tool == "find_room_"
        assert all(len(said.tool_call) <= 40 for said in told)

    talking(story, provider=provider)


@BOTH
def test_a_tool_asked_for_after_an_answer_is_not_shown_as_asked_for_before_it(provider):
    def asked(own):
        return ToolAsked(tool_call=ToolCallId(own), name=own, arguments="{}")

    def answered(own):
        return ToolAnswered(tool_call=ToolCallId(own), name=own, result="1")

    unheard = AgentSaid(text="One moment.", heard="")
    history = (CallerSaid(text="A table"), asked("a"), answered("a"), unheard, asked("b"), answered("b"))

    async def story(talk):
        await talk.answer(*history)
        told = talk.emulator.asked[0].history[2:]
        assert [(said.who, said.tool) for said in told] == [
            ("tool-asked", "a"),
            ("tool-answered", "a"),
            ("tool-asked", "b"),
            ("tool-answered", "b"),
        ]

    talking(story, provider=provider)


@BOTH
@pytest.mark.parametrize("prompt", ["Be brief.", ""])
def test_a_model_can_be_asked_before_anybody_was_heard(provider, prompt):
    async def story(talk):
        unheard = AgentSaid(text="Welcome", heard="")
        assert text_of(await talk.answer(unheard, prompt=prompt))
        assert talk.emulator.asked[0].history[-1].who == "caller"

    talking(story, provider=provider)


@BOTH
def test_tools_side_by_side_are_only_spoken_of_where_there_are_tools(provider):
    llm = Llm(provider=provider, options={"parallel_tool_calls": False})

    async def story(talk):
        await talk.answer(tools=(CLOCK,))
        assert talk.emulator.bodies[0]["parallel_tool_calls"] is False
        assert text_of(await talk.answer())
        assert "parallel_tool_calls" not in talk.emulator.bodies[1]

    talking(story, provider=provider, llm=llm)


@BOTH
def test_an_answer_may_be_empty(provider):
    async def story(talk):
        assert [type(delta) for delta in await talk.answer()] == [Finished]

    talking(story, Reply(""), provider=provider, mind=lambda _: Reply(""))


@BOTH
def test_what_was_cached_is_told_apart(provider):
    async def story(talk):
        long = "You answer the telephone of a restaurant. " * 20
        first, second = [(await talk.answer(prompt=long))[-1].usage for _ in range(2)]
        assert first.cached_tokens == 0
        assert 100 < second.cached_tokens <= second.input_tokens

    talking(story, provider=provider)


@BOTH
def test_settings_of_the_agent_are_sent(provider):
    llm = Llm(
        provider=provider,
        model="gpt-6-luna",
        temperature=0.2,
        max_tokens=2,
        options={"top_p": 1, "reasoning_effort": "none", "verbosity": "low"},
    )

    async def story(talk):
        talk.provider.check(llm, ())
        *words, end = await talk.answer()
        assert text_of(words) == "Good eve"
        assert end.reason == "length"
        body = talk.emulator.bodies[0]
        assert (body["model"], body["temperature"], body["top_p"]) == ("gpt-6-luna", 0.2, 1)
        if provider == "openai":
            assert (body["max_completion_tokens"], body["reasoning_effort"], body["verbosity"]) == (2, "none", "low")
            assert "max_tokens" not in body
        else:
            assert (body["max_output_tokens"], body["store"]) == (2, False)
            assert (body["reasoning"], body["text"]) == ({"effort": "none"}, {"verbosity": "low"})

    talking(story, provider=provider, llm=llm)


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("llm", "setting"),
    [
        (Llm(provider="openai", options={"temprature": 1.0}), "llm.options.temprature"),
        (Llm(provider="openai", options={"top_p": "high"}), "llm.options.top_p"),
        (Llm(provider="openai", options={"seed": True}), "llm.options.seed"),
        (Llm(provider="openai", options={"top_k": 4}), "llm.options.top_k"),
        (Llm(provider="openai", options={"thinking": "disabled"}), "llm.options.thinking"),
        (Llm(provider="openai", endpoint="groq"), "llm.endpoint"),
        (Llm(provider="openai-responses", options={"seed": 4}), "llm.options.seed"),
        (Llm(provider="openai-responses", endpoint="groq"), "llm.endpoint"),
        (Llm(provider="openai-compatible", model="m"), "llm.endpoint"),
        (Llm(provider="openai-compatible", model="m", endpoint="nowhere"), "NOWHERE_BASE_URL"),
        (Llm(provider="openai-compatible", model="m", endpoint="groq"), "GROQ_API_KEY"),
        (Llm(provider="openai-compatible", endpoint="ollama"), "llm.model"),
    ],
)
def test_what_would_fail_in_a_call_is_told_before_any(llm, setting):
    async def story(talk):
        with pytest.raises(Misconfigured) as caught:
            talk.provider.check(llm, ())
        assert caught.value.setting == setting

    talking(story, provider=llm.provider)


@BOTH
def test_a_missing_key_costs_no_other_agent_anything(provider):
    async def story(talk):
        with pytest.raises(Misconfigured) as caught:
            talk.provider.check(talk.llm, ())
        assert caught.value.setting == "OPENAI_API_KEY"
        await talk.provider.warm(talk.llm)

    talking(story, provider=provider, key="")


def test_a_compatible_server_has_a_key_of_its_own(monkeypatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-ours")  # the SDK looks there by itself
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer of-ours\nx-ours: of-ours")
    llm = Llm(provider="openai-compatible", endpoint="groq", model="llama", max_tokens=50, options={"top_k": 4})

    async def story(talk):
        talk.provider.check(llm, ())
        assert text_of(await talk.answer())
        seen = talk.emulator.seen[0].headers
        assert seen["authorization"] == "Bearer groq-key"
        assert "openai-organization" not in seen
        assert "x-ours" not in seen
        body = talk.emulator.bodies[0]
        assert (body["model"], body["max_tokens"], body["top_k"]) == ("llama", 50, 4)
        assert "max_completion_tokens" not in body

    talking(story, provider="openai-compatible", llm=llm, environ={"GROQ_API_KEY": "groq-key"}, account="groq-key")


def test_a_compatible_server_without_a_key_is_not_sent_ours():
    llm = Llm(provider="openai-compatible", endpoint="ollama", model="qwen")

    async def story(talk):
        talk.provider.check(llm, ())
        _, failure = await talk.failure()
        assert isinstance(failure, Unauthorised)
        assert KEY not in talk.emulator.seen[0].headers["authorization"]

    talking(story, provider="openai-compatible", llm=llm)


def test_kimi_can_be_told_not_to_think():
    llm = Llm(provider="openai-compatible", endpoint="ollama", model="kimi", options={"thinking": "disabled"})

    async def story(talk):
        talk.provider.check(llm, ())
        assert text_of(await talk.answer())
        assert talk.emulator.bodies[0]["thinking"] == {"type": "disabled"}

    talking(story, provider="openai-compatible", llm=llm, environ={"OLLAMA_API_KEY": KEY})


def test_mistral_is_asked_without_what_it_refuses():
    llm = Llm(provider="openai-compatible", endpoint="mistral", model="small")

    async def story(talk):
        environ = {"MISTRAL_API_KEY": KEY, "MISTRAL_BASE_URL": f"{talk.emulator.url}/v1"}
        plugins = llm_providers(environ, [])
        asked = ToolAsked(tool_call=ToolCallId("t1-1"), name="clock", arguments="{}")
        mistral = Talk(talk.emulator, plugins.get("openai-compatible"), llm)
        assert text_of(await mistral.answer(CallerSaid(text="Time?"), asked))
        assert "stream_options" not in talk.emulator.bodies[0]
        assert len(talk.emulator.asked[0].history[-1].tool_call) == 9
        await plugins.aclose()

    talking(story)


# --- failures ---------------------------------------------------------------------------------------------------------


@BOTH
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
def test_every_failure_has_its_kind_and_the_next_request_works(provider, fault, kind):
    async def story(talk):
        await talk.emulator.inject(fault, after=6)
        said, failure = await talk.failure()
        assert failure.kind == kind
        assert KEY not in str(failure)
        assert bool(said) == (kind in {"dropped", "malformed"})
        if isinstance(failure, Throttled):
            assert failure.retry_after_s == 7
        await talk.emulator.heal()
        assert text_of(await talk.answer()) == "Good evening, what can I do?"

    talking(story, provider=provider)


@BOTH
@pytest.mark.parametrize(
    ("fault", "kind"), [(Fault.DROP, "dropped"), (Fault.HALF_CLOSE, "dropped"), (Fault.MALFORMED, "malformed")]
)
def test_an_answer_can_fail_before_its_first_word(provider, fault, kind):
    async def story(talk):
        await talk.emulator.inject(fault, after=0)
        said, failure = await talk.failure()
        assert (said, failure.kind) == ([], kind)

    talking(story, provider=provider)


@BOTH
@pytest.mark.parametrize("fault", [Fault.HANG, Fault.STALL, Fault.SLOW_LORIS])
def test_a_silent_server_is_waited_for_until_somebody_gives_up(provider, fault):
    async def story(talk):
        await talk.emulator.inject(fault)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await talk.answer()
        await talk.emulator.heal()
        assert text_of(await talk.answer())

    talking(story, provider=provider)


@BOTH
def test_an_event_nobody_knows_is_harmless(provider):
    async def story(talk):
        await talk.emulator.inject(Fault.UNKNOWN_TYPE, after=1)
        deltas = await talk.answer()
        assert text_of(deltas) == "Good evening, what can I do?"
        assert isinstance(deltas[-1], Finished)

    talking(story, provider=provider)


@BOTH
def test_a_refused_key_is_not_repeated(provider):
    async def story(talk):
        _, failure = await talk.failure()
        assert isinstance(failure, Unauthorised)
        assert "wrong-key-of-mine" not in str(failure)

    talking(story, provider=provider, key="wrong-key-of-mine")


@BOTH
def test_who_leaves_early_is_gone_at_once(provider):
    async def story(talk):
        async with contextlib.aclosing(talk.stream()) as deltas:
            await anext(deltas)
        await until(lambda: talk.emulator.left)
        talk.emulator._token_s = 0
        assert text_of(await talk.answer(CallerSaid(text="Go on")))

    talking(story, LONG, provider=provider, tokens_per_s=20)


@BOTH
def test_who_is_cancelled_leaves_too(provider):
    async def story(talk):
        asking = asyncio.create_task(talk.answer())
        await until(lambda: talk.emulator.asked)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until(lambda: talk.emulator.left)

    talking(story, LONG, provider=provider, tokens_per_s=20)


@BOTH
def test_a_warm_connection_is_used_for_the_answer(monkeypatch, provider):
    monkeypatch.setattr(openai, "WARM_S", PATIENCE_S)

    async def story(talk):
        await talk.provider.warm(talk.llm)
        assert talk.emulator.seen[0].path == f"/v1/models/{talk.provider.capabilities.model}"
        await talk.answer()
        await talk.answer()
        assert len(talk.emulator._runner.server.connections) == 1
        await talk.emulator.inject(Fault.REFUSE)
        await talk.provider.warm(talk.llm)
        await talk.emulator.heal()
        assert text_of(await talk.answer())

    talking(story, provider=provider)


def test_an_address_where_nobody_is_costs_the_connection_time_of_the_agent():
    llm = Llm(provider="openai", timeouts=Timeouts(connect_ms=100))

    async def story(talk):
        plugins = llm_providers({"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "http://192.0.2.1/v1"}, [])
        async with asyncio.timeout(PATIENCE_S):  # the adapter's own is ten minutes
            _, failure = await Talk(talk.emulator, plugins.get("openai"), llm).failure()
        assert failure.kind == "connect"
        await plugins.aclose()

    talking(story)


# --- servers that are not OpenAI's ------------------------------------------------------------------------------------


def serving(events, story, provider="openai", content_type="text/event-stream", status=200):
    """Have every answer be `events`, word for word."""

    async def answer(_):
        return web.Response(status=status, body="".join(events), content_type=content_type)

    async def run():
        app = web.Application()
        app.router.add_post("/v1/{path:.+}", answer)
        async with TestServer(app) as server:
            environ = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": str(server.make_url("/v1"))}
            plugins = llm_providers(environ, [])
            talk = Talk(None, plugins.get(provider), Llm(provider=provider, timeouts=PATIENT))
            await asyncio.wait_for(story(talk), 2 * PATIENCE_S)
            await plugins.aclose()

    asyncio.run(run())


def sse(*values):
    return [f"data: {json.dumps(value)}\n\n" for value in values]


def chunk(finish=None, **delta):
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def part(name, arguments, **members):
    return {"function": {"name": name, "arguments": arguments}, **members}


@pytest.mark.parametrize(
    "calls",
    [
        [part("a", '{"x"', index=0, id="1"), part(None, ":1}", index=0, id="1"), part("b", "{}", index=1, id="2")],
        [part("a", '{"x":1}', index=0, id="1"), part("b", "{}", index=0, id="2")],
        [part("a", '{"x":1}', id="1"), part("b", "{}", id="2")],
        [part("a", '{"x"', id="1"), part(None, ":1}"), part("b", None, id="2")],
        [part("a", '{"x":1}', index=0), part("b", "", index=1)],
    ],
)
def test_tools_are_understood_from_servers_that_number_them_otherwise(calls):
    async def story(talk):
        first, second, end = await talk.answer()
        assert [(call.name, call.arguments) for call in (first, second)] == [("a", '{"x":1}'), ("b", "{}")]
        assert first.id
        assert first.id != second.id
        assert end.reason == "tool-calls"

    serving(sse(*(chunk(tool_calls=[call]) for call in calls), chunk("stop")), story)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": f"no {KEY}", "type": "server_error", "code": None}, Transient),
        ({"message": "slow down", "code": "rate_limit_exceeded"}, Throttled),
        ({"message": "slow down", "code": 429}, Throttled),
        ({"message": "bad gateway", "code": 502}, Transient),
        ({"message": "pay", "code": "insufficient_quota"}, Unauthorised),
        ({"message": "too long", "code": "context_length_exceeded"}, Rejected),
        ({"message": ["odd"], "code": {}}, Transient),
        ("in words", Transient),
    ],
)
def test_an_error_in_the_midst_of_an_answer_is_of_its_own_kind(error, kind):
    async def story(talk):
        said, failure = await talk.failure()
        assert text_of(said) == "Well"
        assert type(failure) is kind
        assert KEY not in str(failure)

    serving(sse(chunk(content="Well"), {"error": error}), story)


def test_an_account_without_money_is_not_asked_again_as_if_it_were_busy():
    async def story(talk):
        _, failure = await talk.failure()
        assert type(failure) is Unauthorised

    error = {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": "insufficient_quota"}
    serving([json.dumps({"error": error})], story, content_type="application/json", status=429)


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        ([{"type": "error", "code": "rate_limit_exceeded", "message": "slow"}], "throttled"),
        ([{"type": "response.failed", "response": {"error": {"code": "server_error", "message": "no"}}}], "server"),
        ([{"type": "response.failed", "response": {}}], "server"),
        ([{"type": "response.output_text.delta", "delta": 5}], "malformed"),
        ([{"type": "response.output_item.done", "item": {"type": "function_call", "name": "x"}}], "malformed"),
        ([{"type": "response.completed", "response": 5}], "malformed"),
        ([{"type": "response.output_text.delta", "delta": "x" * 600_000}] * 2, "malformed"),
        ([{"type": "response.output_text.delta", "delta": "\ud800"}], "malformed"),
        ([{"type": "response.created"}], "dropped"),
        ([], "dropped"),
        ([5], "malformed"),
    ],
)
def test_responses_that_fail_or_make_no_sense(events, kind):
    async def story(talk):
        _, failure = await talk.failure()
        assert failure.kind == kind

    serving(sse(*events), story, "openai-responses")


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        (sse(chunk(content="Well")), "dropped"),
        ([*sse(chunk(content="Well")), "data: [DONE]\n\n"], "dropped"),
        (["<html>Welcome</html>"], "dropped"),
        (sse(5), "malformed"),
        (sse(None), "malformed"),
        (sse(["x"]), "malformed"),
        (sse({"choices": 5}), "malformed"),
        (sse({"choices": [None]}), "malformed"),
        (sse(chunk(content=5)), "malformed"),
        (sse(chunk(tool_calls={"index": 0})), "malformed"),
        (sse(chunk(tool_calls=[part("", "{}", index=0)]), chunk("tool_calls")), "malformed"),
        (sse(*[chunk(content="x" * 600_000)] * 2), "malformed"),
        (sse(*[chunk(tool_calls=[part("x", "{}", index=at)]) for at in range(200)]), "malformed"),
        (["data: " + "[" * 100_000 + "\n\n"], "malformed"),
        (sse(chunk("error")), "server"),
        (sse(chunk(content="\ud800")), "malformed"),
        (["data: \udcff\n\n".encode("utf-8", "surrogateescape").decode("latin-1")], "malformed"),
    ],
)
def test_chunks_that_make_no_sense(events, kind):
    async def story(talk):
        _, failure = await talk.failure()
        assert failure.kind == kind

    serving(events, story)


def test_figures_beyond_reason_are_cut():
    async def story(talk):
        usage = (await talk.answer())[-1].usage
        assert (usage.input_tokens, usage.output_tokens) == (100_000_000, 0)

    serving(sse(chunk("stop"), {"usage": {"prompt_tokens": 10**17, "completion_tokens": -4}}), story)


def test_what_breaks_after_the_last_word_breaks_nothing():
    async def story(talk):
        word, end = await talk.answer()
        assert (word.text, end.reason, end.usage.input_tokens) == ("Well", "refused", 0)

    serving([*sse(chunk(content="Well"), chunk("content_filter"), {"usage": "much"}), "data: {broken\n\n"], story)
