"""The emulator of OpenAI's text endpoints, as the official SDK reads it."""

import asyncio

import openai
import pytest

from trunkline.testing.patience import PATIENCE_S
from trunkline.testing.providers.content import Reply
from trunkline.testing.providers.openai import OpenAiEmulator

pytestmark = pytest.mark.integration

TWO = (("find_table", '{"people": 4}'), ("find_room", '{"nights": 2}'))
GREETING = Reply("Good evening, what can I do?")
CALLER = {"role": "user", "content": "Good evening"}


def asking(story, reply=GREETING, **emulated):
    async def run():
        async with OpenAiEmulator(**{"mind": lambda _: reply, "first_s": 0, "tokens_per_s": 0} | emulated) as emulator:
            client = openai.AsyncOpenAI(api_key="test-key", base_url=f"{emulator.url}/v1", max_retries=0)
            async with client:
                await asyncio.wait_for(story(emulator, client), PATIENCE_S)

    asyncio.run(run())


async def chunks_of(client, **members):
    stream = await client.chat.completions.create(
        model="m", messages=[CALLER], stream=True, stream_options={"include_usage": True}, **members
    )
    return [chunk async for chunk in stream]


def test_a_chat_answer_begins_with_its_role_and_ends_with_its_usage():
    async def story(_, client):
        first, *words, finish, usage = await chunks_of(client)
        assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
        assert [chunk.choices[0].delta.content for chunk in words][:3] == ["Good", " eve", "ning"]
        assert finish.choices[0].finish_reason == "stop"
        assert usage.choices == []
        assert usage.usage.completion_tokens == 7

    asking(story)


@pytest.mark.parametrize("interleaved", [False, True])
def test_tools_are_told_apart_by_their_index(interleaved):
    async def story(_, client):
        deltas = [
            call
            for chunk in await chunks_of(client)
            for choice in chunk.choices
            for call in choice.delta.tool_calls or ()
        ]
        for index, (name, arguments) in enumerate(TWO):
            head, *rest = [delta for delta in deltas if delta.index == index]
            assert (head.function.name, bool(head.id)) == (name, True)
            assert all(delta.id is None for delta in rest)
            assert "".join(delta.function.arguments for delta in rest) == arguments
        order = [delta.index for delta in deltas]
        assert (order == sorted(order)) is not interleaved

    asking(story, Reply("", TWO), interleaved=interleaved)


def test_an_answer_can_come_whole():
    async def story(_, client):
        whole = await client.chat.completions.create(model="m", messages=[CALLER])
        assert whole.choices[0].message.content == "Let me see."
        assert [call.function.name for call in whole.choices[0].message.tool_calls] == ["find_table", "find_room"]
        assert whole.choices[0].finish_reason == "tool_calls"
        response = await client.responses.create(model="m", input="Good evening")
        assert response.output_text == "Let me see."

    asking(story, Reply("Let me see.", TWO))


def test_responses_tell_the_same_in_events():
    async def story(_, client):
        events = [event async for event in await client.responses.create(model="m", input="Hello", stream=True)]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "Let me see."
        done = [event.item for event in events if event.type == "response.output_item.done"]
        assert [item.type for item in done] == ["message", "function_call", "function_call"]
        assert done[1].call_id.startswith("call_")
        assert events[-1].type == "response.completed"
        assert events[-1].response.output_text == "Let me see."

    asking(story, Reply("Let me see.", TWO))


def test_both_protocols_ask_the_mind_the_same():
    async def story(emulator, client):
        call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
        await client.chat.completions.create(
            model="m",
            messages=[
                {"role": "system", "content": "Be brief."},
                CALLER,
                {"role": "assistant", "content": "Well,", "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c1", "content": "none"},
            ],
        )
        await client.responses.create(
            model="m",
            instructions="Be brief.",
            input=[
                CALLER,
                {"role": "assistant", "content": "Well,"},
                {"type": "function_call", "call_id": "c1", "name": "find", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "none"},
            ],
        )
        assert emulator.asked[0] == emulator.asked[1]
        assert [said.who for said in emulator.asked[0].history] == [
            "system",
            "caller",
            "agent",
            "tool-asked",
            "tool-answered",
        ]

    asking(story)


def test_a_tool_without_an_answer_is_a_bad_request():
    async def story(_, client):
        call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
        with pytest.raises(openai.BadRequestError, match="c1"):
            await client.chat.completions.create(
                model="m", messages=[{"role": "assistant", "tool_calls": [call]}, CALLER]
            )
        item = {"type": "function_call", "call_id": "c1", "name": "find", "arguments": "{}"}
        with pytest.raises(openai.BadRequestError, match="c1"):
            await client.responses.create(model="m", input=[item])

    asking(story)


def test_tools_side_by_side_without_any_tool_are_a_bad_request():
    async def story(_, client):
        with pytest.raises(openai.BadRequestError, match="parallel_tool_calls"):
            await client.chat.completions.create(model="m", messages=[CALLER], parallel_tool_calls=False)

    asking(story)


def test_what_was_read_before_is_cached():
    async def story(_, client):
        long = [{"role": "system", "content": "You answer the telephone. " * 20}, CALLER]
        first = await client.chat.completions.create(model="m", messages=long)
        second = await client.chat.completions.create(model="m", messages=[*long, CALLER])
        assert first.usage.prompt_tokens_details.cached_tokens == 0
        assert 100 < second.usage.prompt_tokens_details.cached_tokens < second.usage.prompt_tokens

    asking(story)


def test_an_answer_is_cut_where_the_caller_of_the_interface_says():
    async def story(_, client):
        whole = await client.chat.completions.create(model="m", messages=[CALLER], max_completion_tokens=2)
        assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == ("Good eve", "length")
        response = await client.responses.create(model="m", input="Hello", max_output_tokens=2)
        assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")

    asking(story)


def test_keys_are_checked_and_models_listed():
    async def story(_, client):
        assert "gpt-5.4-mini" in [model.id async for model in client.models.list()]
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.with_options(api_key="wrong").models.list()
        assert caught.value.code == "invalid_api_key"

    asking(story)
