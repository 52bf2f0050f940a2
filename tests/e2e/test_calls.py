"""Whole calls through five processes and a bus, with real audio over Twilio's wire protocol."""

import asyncio
from pathlib import Path

import httpx
import msgspec
import pytest

from trunkline.call import CallResult, Target, find_scenario, load_scenario, place_call, prepare_speech
from trunkline.call.scenario import Scenario
from trunkline.proto.events import AgentSpoke, CallEnded, CallerSpoke, CallStarted, Event, StageAssigned, ToolCalled
from trunkline.testing.patience import until

from .served import call_until_served

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def short_booking() -> Scenario:
    return load_scenario(Path(__file__).with_name("short_booking.toml"))


def target(dev, agent: str | None = None) -> Target:
    return Target(url=dev.edge_url, agent=agent, nats_url=dev.nats_url)


def explain(results: list[CallResult]) -> str:
    return "\n".join(
        f"{r.call} ended_by={r.ended_by} problem={r.problem}: " + "; ".join(f"{v}" for v in r.verdicts if not v.passed)
        for r in results
        if not r.passed
    )


def facts_of(dev, call: str) -> list:
    lines = dev.events_file.read_bytes().splitlines()
    events = [msgspec.json.decode(line, type=Event) for line in lines]
    return [event.fact for event in events if event.call == call]


async def place_many(dev, scenario: Scenario, calls: int) -> list[CallResult]:
    clips = await prepare_speech(scenario)

    async def one(number: int) -> CallResult:
        await asyncio.sleep(number * 0.1)
        return await call_until_served(dev, target(dev), scenario, clips=clips)

    return await asyncio.gather(*(one(number) for number in range(calls)))


async def until_ended(dev, calls: list[str]) -> None:
    await until(lambda: all(any(isinstance(f, CallEnded) for f in facts_of(dev, call)) for call in calls))


def test_twenty_calls_at_once_are_each_told_and_heard_right(deployment):
    async def story() -> None:
        async with deployment.running() as dev:
            results = await place_many(dev, short_booking(), 20)
            assert all(result.passed for result in results), explain(results)
            await until_ended(dev, [result.call for result in results])
            for result in results:
                facts = facts_of(dev, result.call)
                assert isinstance(facts[0], CallStarted)
                assert isinstance(facts[-1], CallEnded)
                assert sum(isinstance(fact, CallStarted | CallEnded) for fact in facts) == 2
                assert sum(isinstance(fact, StageAssigned) for fact in facts) == 3
                assert [fact.name for fact in facts if isinstance(fact, ToolCalled)] == ["check_table"]
                assert sum(isinstance(fact, CallerSpoke) for fact in facts) == 3

    asyncio.run(story())


def test_callers_of_every_kind_are_served_side_by_side(deployment):
    async def story() -> None:
        async with deployment.running() as dev:
            kinds = (("restaurant", "silent"), ("bench", "digits"), ("bench", "barge-in"), ("bench", "hello"))
            results = await asyncio.gather(
                *(call_until_served(dev, target(dev, agent), find_scenario(name)) for agent, name in kinds)
            )
            assert all(result.passed for result in results), explain(list(results))
            silent = results[0].call
            await until_ended(dev, [silent])
            said = [fact.said for fact in facts_of(dev, silent) if isinstance(fact, AgentSpoke)]
            assert said[1] == said[2] == "Are you still there?"
            assert facts_of(dev, silent)[-1].reason == "silence-timed-out"

    asyncio.run(story())


def test_a_worker_that_dies_costs_the_call_no_word(deployment):
    async def story() -> None:
        async with deployment.running(stt=2) as dev:
            call = asyncio.create_task(place_call(target(dev), short_booking()))
            await asyncio.sleep(4.0)
            lines = await holders(dev)
            lines[0].kill()
            result = await call
            assert result.passed, explain([result])

    asyncio.run(story())


async def holders(dev) -> list:
    """Return the stt processes that hold a call, those with one first."""
    async with httpx.AsyncClient() as client:
        pages = [(await client.get(f"http://127.0.0.1:{child.port}/stats")).text for child in dev.processes("stt")]
    return [child for child, page in zip(dev.processes("stt"), pages, strict=True) if "frames" in page]
