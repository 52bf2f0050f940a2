"""Asking one of several: who answers, what is recorded, and what is never done twice."""

import asyncio
import time

import pytest
from prometheus_client import CollectorRegistry

from trunkline.proto.agent import Llm, Timeouts
from trunkline.providers.attempts import AllFailed, Attempts, BrokeOff, Candidate
from trunkline.providers.breaker import BreakerRules
from trunkline.providers.course import RetryRules
from trunkline.providers.errors import ProviderError, Rejected, Transient
from trunkline.providers.health import Health
from trunkline.testing.patience import PATIENCE_S, until

pytestmark = pytest.mark.integration  # real time-outs, some tens of milliseconds each

QUICK = Timeouts(connect_ms=50, first_ms=60, stall_ms=60)
SLOW = Timeouts(connect_ms=60_000, first_ms=60_000, stall_ms=60_000)
RULES = RetryRules(tries=2, backoff_s=0.01, give_up_s=60.0)
NEVER = 600.0


class Stage:
    """One call's requests to providers that do as they are told."""

    def __init__(self, rules=None, breaker=None):
        self.registry = CollectorRegistry()
        self.health = Health("brain", breaker or BreakerRules(), time.monotonic, self.registry)
        self.facts = []
        self.asked = []
        self.attempts = Attempts("brain", self.health, rules or RULES, time.monotonic, self.facts.append)

    def candidate(self, name, *script, timeouts=SLOW, owing_since=lambda: 0.0):
        async def start():
            self.asked.append(name)
            for step in script:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, float):
                    await asyncio.sleep(step)
                else:
                    yield step

        return Candidate(Llm(provider=name), timeouts, start, owing_since)

    def answer(self, *candidates, **options):
        async def collect():
            got = []
            try:
                async with asyncio.timeout(PATIENCE_S):
                    async for thing in self.attempts.stream(candidates, **options):
                        got += [thing]
            except ProviderError as error:
                return got, error
            return got, None

        return asyncio.run(collect())

    def count(self, name, **labels):
        return self.registry.get_sample_value(name, labels)


def test_the_first_that_answers_is_the_only_one_asked():
    stage = Stage()
    assert stage.answer(stage.candidate("a", "x", "y"), stage.candidate("b", "z")) == ([(0, "x"), (0, "y")], None)
    assert stage.asked == ["a"]
    assert stage.facts == []
    assert stage.count("trunkline_brain_provider_attempts_total", provider="a", outcome="answered") == 1


def test_who_is_silent_is_left_for_the_next_and_the_record_says_so():
    stage = Stage()
    got, error = stage.answer(stage.candidate("a", NEVER, timeouts=QUICK), stage.candidate("b", "z"))
    assert (got, error) == ([(1, "z")], None)
    (fact,) = stage.facts
    assert (fact.provider, fact.kind, fact.attempt, fact.then, fact.to) == ("a", "first-byte", 1, "fallback", "b")
    assert stage.count("trunkline_brain_provider_failures_total", provider="a", kind="first-byte") == 1


def test_what_broke_quickly_is_tried_again_at_the_same_place():
    stage = Stage()
    got, error = stage.answer(stage.candidate("a", Transient("reset", "connect")), stage.candidate("b", "z"))
    assert (got, error) == ([(1, "z")], None)
    assert stage.asked == ["a", "a", "b"]
    assert [(fact.attempt, fact.then) for fact in stage.facts] == [(1, "retry"), (2, "fallback")]


def test_after_the_first_word_nothing_is_repeated():
    stage = Stage()
    got, error = stage.answer(stage.candidate("a", "x", Transient("reset", "dropped")), stage.candidate("b", "z"))
    assert got == [(0, "x")]
    assert isinstance(error, BrokeOff)
    assert (error.kind, error.candidate) == ("dropped", 0)
    assert stage.asked == ["a"]
    assert stage.count("trunkline_brain_provider_attempts_total", provider="a", outcome="broke-off") == 1


def test_a_stream_that_stalls_in_its_midst_broke_off():
    stage = Stage()
    got, error = stage.answer(stage.candidate("a", "x", NEVER, timeouts=QUICK))
    assert got == [(0, "x")]
    assert (type(error), error.kind) == (BrokeOff, "stall")


def test_a_provider_that_waits_for_us_is_not_blamed_for_its_silence():
    stage = Stage()
    waits = stage.candidate("a", 0.15, "x", 0.15, "y", timeouts=QUICK, owing_since=lambda: None)
    got, error = stage.answer(waits)
    assert (got, error) == ([(0, "x"), (0, "y")], None)


def test_things_that_are_no_answer_do_not_end_the_repairs():
    stage = Stage()
    got, error = stage.answer(
        stage.candidate("a", "-", Rejected("no")), stage.candidate("b", "z"), counts=lambda thing: thing != "-"
    )
    assert (got, error) == ([(0, "-"), (1, "z")], None)


def test_when_nobody_answers_it_is_given_up_in_time():
    stage = Stage(rules=RetryRules(tries=2, backoff_s=0.01, give_up_s=0.3))
    got, error = stage.answer(stage.candidate("a", NEVER, timeouts=QUICK), stage.candidate("b", NEVER))
    assert got == []
    assert isinstance(error, AllFailed)
    assert stage.facts[-1].then == "apology"


def test_the_only_one_there_is_gets_all_the_time():
    stage = Stage()
    slow = stage.candidate("a", 0.2, "slow but sure", timeouts=QUICK)
    assert stage.answer(slow) == ([(0, "slow but sure")], None)


def test_a_dead_provider_is_not_stormed_by_many_calls():
    stage = Stage()

    async def calls():
        async def one():
            attempts = Attempts("brain", stage.health, RULES, time.monotonic, stage.facts.append)
            dead, good = stage.candidate("dead", Transient("refused", "connect")), stage.candidate("good", "z")
            return [thing async for thing in attempts.stream([dead, good])]

        return [await one() for _ in range(100)]

    assert asyncio.run(calls()) == [[(1, "z")]] * 100
    assert stage.asked.count("dead") == 3
    assert dict(stage.health.states()) == {"dead": "open", "good": "closed"}
    assert stage.count("trunkline_brain_provider_breaker", provider="dead") == 2


def test_all_breakers_open_is_told_at_once():
    stage = Stage()
    for _ in range(3):
        stage.health.began("a")
        stage.health.failed("a", Transient("x"))
    got, error = stage.answer(stage.candidate("a", "x"))
    assert (got, error.kind, stage.asked) == ([], "breaker-open", [])
    assert [(fact.kind, fact.then) for fact in stage.facts] == [("breaker-open", "apology")]


def test_an_adapter_that_breaks_is_a_failure_like_others():
    stage = Stage()
    got, error = stage.answer(stage.candidate("a", ValueError("oops")), stage.candidate("b", "z"))
    assert (got, error) == ([(1, "z")], None)
    assert stage.facts[0].kind == "internal"


def test_whoever_stops_listening_ends_the_attempt_and_blames_nobody():
    stage = Stage()
    closed = []

    async def start():
        try:
            yield "x"
            await asyncio.sleep(NEVER)
        finally:
            closed.append(True)

    async def leave():
        stream = stage.attempts.stream([Candidate(Llm(provider="a"), SLOW, start)])
        assert await anext(stream) == (0, "x")
        await stream.aclose()
        await until(lambda: len(asyncio.all_tasks()) == 1)

    asyncio.run(leave())
    assert closed == [True]
    assert stage.count("trunkline_brain_provider_attempts_total", provider="a", outcome="abandoned") == 1
    assert dict(stage.health.states()) == {"a": "closed"}


def test_an_attempt_that_is_slow_to_end_does_not_keep_the_next_one_waiting():
    stage, next_is_asked = Stage(), asyncio.Event()

    async def stubborn():
        try:
            await asyncio.sleep(NEVER)
            yield "never"
        finally:
            await next_is_asked.wait()

    async def answer():
        next_is_asked.set()
        yield "z"

    first, second = (Candidate(Llm(provider="a"), QUICK, stubborn), Candidate(Llm(provider="b"), SLOW, answer))
    assert stage.answer(first, second) == ([(1, "z")], None)
    assert stage.facts[0].kind == "first-byte"


def test_an_adapter_that_cancels_itself_has_failed_and_nobody_else_is_cancelled():
    stage = Stage()

    async def suicidal():
        raise asyncio.CancelledError
        yield

    got, error = stage.answer(Candidate(Llm(provider="a"), SLOW, suicidal), stage.candidate("b", "z"))
    assert (got, error) == ([(1, "z")], None)
    assert stage.facts[0].kind == "internal"


def test_a_time_out_of_the_library_may_stand_around_many_things():
    stage = Stage()

    async def timed():
        async with asyncio.timeout(0.05):
            for thing in "ab":
                yield thing
            await asyncio.sleep(NEVER)

    got, error = stage.answer(Candidate(Llm(provider="a"), SLOW, timed))
    assert [thing for _, thing in got] == ["a", "b"]
    assert isinstance(error, BrokeOff)


def test_only_one_of_many_calls_finds_out_whether_a_provider_is_back():
    stage = Stage(breaker=BreakerRules(failures=1, open_s=0.02, successes=1))
    stage.health.began("a")
    stage.health.failed("a", Transient("x"))

    async def calls():
        await asyncio.sleep(0.03)

        async def one():
            attempts = Attempts("brain", stage.health, RULES, time.monotonic, stage.facts.append)
            slow, good = stage.candidate("a", 0.01, "x"), stage.candidate("b", "z")
            return [number async for number, _ in attempts.stream([slow, good])]

        return await asyncio.gather(*(one() for _ in range(20)))

    answered = asyncio.run(calls())
    assert answered.count([0]) == 1
    assert answered.count([1]) == 19


@pytest.mark.parametrize(("error", "key"), [(Rejected("you said: secret"), "pii.text"), (Transient("reset"), "text")])
def test_what_a_provider_may_quote_is_logged_as_somebodys_words(caplog, error, key):
    stage = Stage()
    stage.answer(stage.candidate("a", error), stage.candidate("b", "z"))
    with caplog.at_level("WARNING"):
        stage.health.record("call", "default", stage.facts[0])
    record = next(record for record in caplog.records if record.message == "provider failed")
    assert vars(record)[key] == str(error)
    assert ("text" in vars(record)) == (key == "text")
