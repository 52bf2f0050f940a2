"""Any sequence of faults and interrupts: the words of a sentence come in order, none twice, one voice at a time."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from trunkline.proto.agent import Agent, Timeouts, Tts
from trunkline.proto.frame import Flag
from trunkline.proto.messages import Interrupt, Say
from trunkline.providers.attempts import AllFailed, Attempts
from trunkline.providers.breaker import BreakerRules
from trunkline.providers.course import RetryRules
from trunkline.providers.health import Health
from trunkline.providers.prices import Prices
from trunkline.providers.usage import Meter
from trunkline.runtime.clock import SYSTEM
from trunkline.tts.feed import Bell
from trunkline.tts.floor import Floor
from trunkline.tts.metrics import TtsMetrics
from trunkline.tts.saying import Means, Memory, Saying
from trunkline.tts.voices import CallVoice, Opened

pytestmark = pytest.mark.integration

SHORT = Timeouts(first_ms=20, stall_ms=20)
COUNT = 9
SENTENCE = " ".join(f"w{number}" for number in range(1, COUNT + 1))


class NoClips:
    """No clip is there, ever."""

    def find(self, _tts, _text):
        return None

    find_any = find


async def said(words_in, all_voices, pieces, interrupt_after):
    """Return what was published: the words and whether it ended with LAST; and whether it was void before that."""
    now = SYSTEM.monotonic
    health = Health("tts", BreakerRules(failures=1_000), now, CollectorRegistry())
    meter = Meter("tts", 1, Prices(as_of="2026-01-01"))
    floor, bell, out, facts = Floor(0), Bell(), [], []

    async def open_voice(tts):
        provider = next(each for each in all_voices if each.name == tts.provider)
        return Opened(await provider.open(tts), provider.capabilities)

    async def publish(sentence, payload, flags):
        if not floor.stands(sentence):
            return
        out.append((payload, flags))
        assert sum(provider.speaking for provider in all_voices) <= 1
        if len(out) == interrupt_after:
            floor.interrupt(Interrupt(epoch=1, generation=2, reason="barge-in"))
            task.cancel()

    async def tell(_message):
        pass

    agent = Agent(name="a", tts=Tts(provider="one"))
    voices = [CallVoice(Tts(provider=each.name, timeouts=SHORT), open_voice, meter) for each in all_voices]
    saying = None

    def failed(fact):
        saying.failure(fact)

    rules = RetryRules(backoff_s=0.001, longest_backoff_s=0.002, give_up_s=0.3)
    attempts = Attempts("tts", health, rules, now, failed)
    metrics = TtsMetrics(CollectorRegistry())
    means = Means(
        agent, {}, voices, attempts, NoClips(), Memory(), bell, SYSTEM, metrics, 1.0, publish, tell, facts.append
    )  # fmt: skip
    for number, piece in enumerate(pieces):
        goes_on = number + 1 < len(pieces)
        floor.take(Say(epoch=1, generation=1, utterance=1, text=piece, goes_on=goes_on))
    saying = Saying(floor.next(), means)

    async def run():
        try:
            await saying.run()
        except AllFailed:
            await saying.fail()

    task = asyncio.create_task(run())
    await asyncio.wait({task})
    void = not floor.stands(saying.sentence)
    if not void:
        task.result()
    await asyncio.gather(*(voice.aclose() for voice in voices))
    assert not any(provider.speaking for provider in all_voices)
    return words_in(b"".join(payload for payload, _ in out)), [flags for _, flags in out], void, facts


faults = st.lists(
    st.tuples(st.sampled_from(["", "refuse", "break", "break", "stall", "hang"]), st.integers(0, COUNT)), max_size=5
)
cuts = st.lists(st.integers(1, len(SENTENCE) - 1), max_size=3, unique=True).map(sorted)
kinds = st.tuples(st.booleans(), st.booleans())


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    first=faults,
    second=faults,
    cuts=cuts,
    kind=kinds,
    interrupt_after=st.integers(0, 12),
)
def test_words_come_in_order_none_twice_one_voice_at_a_time(
    readable, words_in, first, second, cuts, kind, interrupt_after
):
    points, streams = kind
    one = readable(1, "one", word_times=points, streams_text=streams)
    other = readable(2, "two", word_times=points)
    one.faults, other.faults = list(first), list(second)
    pieces = [SENTENCE[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]

    words, flags, void, facts = asyncio.run(said(words_in, [one, other], pieces, interrupt_after))

    numbers = [number for _, number, _ in words]
    assert numbers == sorted(set(numbers))
    assert Flag.LAST not in flags[:-1]
    if interrupt_after and len(flags) >= interrupt_after and flags[-1] is not Flag.LAST:
        assert void
        assert len(flags) == interrupt_after  # nothing after the interrupt
    else:
        assert flags[-1] is Flag.LAST
    whole = not facts and not void
    assert not whole or numbers == list(range(1, COUNT + 1))
    if points and not void and all(fact.kind in {"dropped", "stall"} and fact.then != "apology" for fact in facts):
        assert numbers == list(range(1, COUNT + 1))  # those begun are half heard, and none is lost
