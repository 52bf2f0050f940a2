"""The emulator as the official SDK sees it."""

import asyncio

import anthropic
import httpx2
import pytest

from trunkline.testing.providers.anthropic import AnthropicEmulator
from trunkline.testing.providers.content import Asked, Reply, Said
from trunkline.testing.providers.server import Fault

pytestmark = pytest.mark.integration

ASK = {"model": "claude-haiku-5-5", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello there"}]}
TOOL = {"name": "book", "input_schema": {"type": "object"}}
USE = {"type": "tool_use", "id": "toolu_1", "name": "book", "input": {"party": 4}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "done"}


def told(story, *, mind=lambda _: Reply("It is done."), **settings):
    """Run `story` with a quick emulator and a client."""

    async def run():
        async with (
            AnthropicEmulator(**({"mind": mind, "first_s": 0, "tokens_per_s": 0} | settings)) as emulator,
            anthropic.AsyncAnthropic(base_url=emulator.url, api_key="test-key", max_retries=0) as client,
        ):
            await story(emulator, client)

    asyncio.run(run())


async def message_of(client, **fields):
    async with client.messages.stream(**(ASK | fields)) as stream:
        return await stream.get_final_message()


def test_text_and_tools_are_put_together_by_the_sdk():
    async def story(_, client):
        message = await message_of(client, tools=[TOOL])
        text, first, second = message.content
        assert text.text == "One moment."
        assert (first.name, first.input, second.input) == ("book", {"party": 4, "name": "Ann Lee"}, {})
        assert first.id != second.id
        assert message.stop_reason == "tool_use"

    arguments = '{"party": 4, "name": "Ann Lee"}'
    told(story, mind=lambda _: Reply("One moment.", (("book", arguments), ("book", "{}"))))


def test_events_come_in_the_order_of_the_documentation():
    async def story(_, client):
        async with client.messages.with_streaming_response.create(**ASK, stream=True) as response:
            events = [sse.event async for sse in anthropic.AsyncStream.raw_events(response.http_response)]
        deltas = ["content_block_delta"] * 3
        assert events == [
            *("message_start", "ping", "content_block_start"),
            *deltas,
            *("content_block_stop", "message_delta", "message_stop"),
        ]

    told(story)


def test_the_mind_is_shown_who_said_what():
    async def story(emulator, client):
        messages = [
            {"role": "user", "content": "Book it"},
            {"role": "assistant", "content": [{"type": "text", "text": "One moment"}, USE]},
            {"role": "user", "content": [RESULT, {"type": "text", "text": "And?"}]},
        ]
        await message_of(client, messages=messages, system="Be kind.", tools=[TOOL])
        assert emulator.asked == [
            Asked(
                "claude-haiku-5-5",
                (
                    Said("system", "Be kind."),
                    Said("caller", "Book it"),
                    Said("agent", "One moment"),
                    Said("tool-asked", '{"party": 4}', "book", "toolu_1"),
                    Said("tool-answered", "done", "book", "toolu_1"),
                    Said("caller", "And?"),
                ),
                ("book",),
            )
        ]

    told(story)


def test_a_marked_system_prompt_is_written_to_the_cache_once_and_then_read():
    async def story(_, client):
        system = [{"type": "text", "text": "Be kind to them.", "cache_control": {"type": "ephemeral"}}]
        usages = [(await message_of(client, system=system)).usage for _ in range(2)]
        assert [(u.input_tokens, u.cache_creation_input_tokens, u.cache_read_input_tokens) for u in usages] == [
            (2, 4, 0),
            (2, 0, 4),
        ]
        assert usages[0].output_tokens == 3

    told(story)


def test_an_answer_ends_at_max_tokens():
    async def story(_, client):
        message = await message_of(client, max_tokens=2)
        assert (message.content[0].text, message.stop_reason) == ("It is", "max_tokens")

    told(story)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "assistant", "content": "Hello"}]}, "first message"),
        ({"messages": [*ASK["messages"], {"role": "assistant", "content": "It is"}]}, "prefill"),
        ({"messages": [{"role": "user", "content": " "}]}, "non-whitespace"),
        ({"messages": [{"role": "user", "content": [RESULT]}]}, "corresponding `tool_use`"),
        (
            {"messages": [*ASK["messages"], {"role": "assistant", "content": [USE]}, *ASK["messages"]]},
            "without `tool_result`",
        ),
        ({"tools": [{"name": "book", "input_schema": {}}]}, "input_schema.type"),
        ({"extra_body": {"temperature": 0.5}}, "temperature"),
        ({"extra_body": {"max_tokens": None}}, "max_tokens: Field required"),
    ],
)
def test_what_the_api_refuses_is_refused(fields, problem):
    async def story(_, client):
        with pytest.raises(anthropic.BadRequestError, match=problem) as raised:
            await message_of(client, **fields)
        assert raised.value.type == "invalid_request_error"

    told(story)


def test_both_ways_to_authenticate_are_taken():
    async def story(emulator, _):
        async with httpx2.AsyncClient() as http:
            headers = {"x-api-key": "test-key", "anthropic-version": "2026-10-21"}
            answer = await http.post(f"{emulator.url}/v1/messages", headers=headers, json=ASK | {"stream": True})
            assert answer.status_code == 200
            answer = await http.post(f"{emulator.url}/v1/messages", headers={"x-api-key": "no"}, json=ASK)
            assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authentication_error")

    told(story)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.UNAUTHORISED, anthropic.AuthenticationError),
        (Fault.THROTTLED, anthropic.RateLimitError),
        (Fault.SERVER_ERROR, anthropic.OverloadedError),
        (Fault.REFUSE, anthropic.APIConnectionError),
        (Fault.DROP, httpx2.TransportError),
        (Fault.MALFORMED, ValueError),
    ],
)
def test_a_fault_is_what_the_sdk_takes_it_for(fault, error):
    async def story(emulator, client):
        await emulator.inject(fault)
        with pytest.raises(error):
            await message_of(client)

    told(story)


def test_an_answer_can_break_off_as_overloaded():
    async def story(emulator, client):
        emulator.overloaded_after = 4
        with pytest.raises(anthropic.APIStatusError) as raised:
            await message_of(client)
        assert raised.value.type == "overloaded_error"

    told(story)


def test_words_come_at_the_pace_that_was_asked_for():
    async def story(_, client):
        loop = asyncio.get_running_loop()
        began = loop.time()
        await message_of(client)
        assert loop.time() - began >= 0.1 + 2 / 50

    told(story, first_s=0.1, tokens_per_s=50)
