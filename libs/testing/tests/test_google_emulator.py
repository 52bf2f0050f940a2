"""The emulator as the official SDK sees it."""

import asyncio

import httpx2
import pytest
from google.genai import Client, errors, types

from trunkline.testing.providers.content import Asked, Reply, Said
from trunkline.testing.providers.google import GoogleEmulator
from trunkline.testing.providers.server import Fault

pytestmark = pytest.mark.integration

HELLO = {"role": "user", "parts": [{"text": "Hello there"}]}
CALL = {
    "role": "model",
    "parts": [{"function_call": {"id": "f1", "name": "book", "args": {"party_size": 4}}, "thought_signature": b"s"}],
}
RESPONSE = {"role": "user", "parts": [{"function_response": {"id": "f1", "name": "book", "response": {"output": 1}}}]}
BOOK = {"function_declarations": [{"name": "book", "parameters_json_schema": {"type": "object"}}]}


def told(story, *, mind=lambda _: Reply("It is done."), key="test-key", **settings):
    """Run `story` with a quick emulator and what asks it."""

    async def run():
        async with (
            GoogleEmulator(**({"mind": mind, "first_s": 0, "tokens_per_s": 0} | settings)) as emulator,
            httpx2.AsyncClient() as http,
        ):
            options = types.HttpOptions(base_url=emulator.url, httpx_async_client=http)
            client = Client(api_key=key, vertexai=False, http_options=options)

            async def ask(*contents, model="gemini-3.8-flash", **config):
                chunks = await client.aio.models.generate_content_stream(
                    model=model, contents=list(contents) or [HELLO], config=config
                )
                return [chunk async for chunk in chunks]

            await story(emulator, ask)

    asyncio.run(run())


def test_text_comes_in_pieces_and_the_last_says_why_it_is_the_last():
    async def story(emulator, ask):
        chunks = await ask()
        assert [chunk.text for chunk in chunks] == ["It", " is", " done."]
        reasons = [chunk.candidates[0].finish_reason for chunk in chunks]
        assert reasons == [None, None, types.FinishReason.STOP]
        usage = chunks[-1].usage_metadata
        assert (usage.prompt_token_count, usage.candidates_token_count, usage.total_token_count) == (2, 3, 5)
        assert emulator.seen[0].query == {"alt": "sse"}

    told(story)


def test_functions_are_called_with_their_arguments():
    async def story(emulator, ask):
        calls = (await ask(tools=[BOOK]))[-1].function_calls
        assert [(call.id, call.name, call.args) for call in calls] == [
            (None, "book", {"party_size": 4}),
            (None, "book", {}),
        ]
        emulator.call_ids = True
        first, second = (await ask(tools=[BOOK]))[-1].function_calls
        assert first.id != second.id

    told(story, mind=lambda _: Reply("One moment.", (("book", '{"party_size": 4}'), ("book", ""))))


def test_the_mind_is_shown_who_said_what():
    async def story(emulator, ask):
        await ask(HELLO, CALL, RESPONSE, tools=[BOOK], system_instruction="Be kind.")
        assert emulator.asked == [
            Asked(
                "gemini-3.8-flash",
                (
                    Said("system", "Be kind."),
                    Said("caller", "Hello there"),
                    Said("tool-asked", '{"party_size": 4}', "book", "f1"),
                    Said("tool-answered", '{"output": 1}', "book", "f1"),
                ),
                ("book",),
            )
        ]

    told(story)


def test_a_system_instruction_is_cached_once_it_was_seen():
    async def story(_, ask):
        counts = [
            (await ask(system_instruction="Be kind to them."))[-1].usage_metadata.cached_content_token_count
            for _ in range(2)
        ]
        assert counts == [None, 4]

    told(story)


def test_an_answer_ends_at_max_output_tokens():
    async def story(_, ask):
        chunks = await ask(max_output_tokens=2)
        assert "".join(chunk.text for chunk in chunks) == "It is"
        assert chunks[-1].candidates[0].finish_reason == types.FinishReason.MAX_TOKENS

    told(story)


@pytest.mark.parametrize(
    ("contents", "config", "problem"),
    [
        ((HELLO, CALL), {}, "ends with a user turn"),
        ((CALL, RESPONSE), {}, "function call turn comes immediately after"),
        ((HELLO, RESPONSE), {}, "function response turn comes immediately after"),
        ((HELLO, CALL, HELLO), {}, "number of function response parts"),
        (
            (HELLO, {"role": "model", "parts": [{"function_call": {"name": "book"}}]}, RESPONSE),
            {},
            "missing a thought_signature",
        ),
        ((HELLO,), {"thinking_config": {"thinking_level": "MINIMAL"}}, "not supported"),
        ((HELLO,), {"thinking_config": {"thinking_level": "LOW", "thinking_budget": 0}}, "only one"),
    ],
)
def test_what_the_api_refuses_is_refused(contents, config, problem):
    async def story(_, ask):
        with pytest.raises(errors.ClientError, match=problem) as raised:
            await ask(*contents, **config)
        assert (raised.value.code, raised.value.status) == (400, "INVALID_ARGUMENT")

    told(story)


def test_a_wrong_key_is_an_invalid_argument():
    async def story(_, ask):
        with pytest.raises(errors.ClientError, match="API_KEY_INVALID") as raised:
            await ask()
        assert raised.value.code == 400

    told(story, key="another-key")


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.THROTTLED, errors.ClientError),
        (Fault.SERVER_ERROR, errors.ServerError),
        (Fault.REFUSE, httpx2.ConnectError),
        (Fault.DROP, httpx2.TransportError),
        (Fault.MALFORMED, errors.UnknownApiResponseError),
    ],
)
def test_a_fault_is_what_the_sdk_takes_it_for(fault, error):
    async def story(emulator, ask):
        await emulator.inject(fault)
        with pytest.raises(error):
            await ask()

    told(story)


def test_an_answer_can_break_off_as_unavailable():
    async def story(emulator, ask):
        emulator.unavailable_after = 1
        with pytest.raises(errors.ServerError) as raised:
            await ask()
        assert raised.value.status == "UNAVAILABLE"

    told(story)


def test_words_come_at_the_pace_that_was_asked_for():
    async def story(_, ask):
        loop = asyncio.get_running_loop()
        began = loop.time()
        await ask()
        assert loop.time() - began >= 0.1 + 2 / 50

    told(story, first_s=0.1, tokens_per_s=50)
