"""What callers hear while providers fail: every adapter under every fault, through the whole deployment.

Nothing is read from logs: what a caller heard is read back, word by word, from the sound at the caller's ear.
"""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from trunkline.call import CallResult, Target, parse_scenario, prepare_speech
from trunkline.devserver.devserver import Devserver, run_dev
from trunkline.devserver.journal import Journal
from trunkline.devserver.settings import Plan
from trunkline.proto.events import CallBilled, CallEnded, Event, Fact, ProviderFailed
from trunkline.testing.patience import PATIENCE_S
from trunkline.testing.providers.server import Fault

from .faults import chords
from .faults.cast import PHRASE, Cast, playing
from .faults.chords import Word
from .faults.matrix import (
    ADAPTERS,
    FIRST_SOUND_S,
    LONGEST_SILENCE_S,
    SPARE,
    TOGETHER,
    Cell,
    Verdict,
    cells,
    judge,
    table,
    write,
    write_agent,
)
from .served import call_until_served

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

AT_ONCE = 12
OUT = Path(__file__).parents[2] / "out"
RESULTS = Path(__file__).parents[2] / "tools" / "bench" / "results" / "provider_faults.json"
PATIENT = "{quiet_ms = 2500, timeout_s = 12.0}"
"""Silences that are too long are for the judge to find, so the caller bears longer ones."""


class Stage(NamedTuple):
    """A running deployment and its vendors."""

    dev: Devserver
    cast: Cast

    def facts(self) -> dict[str, list[Fact]]:
        """Return what the events service wrote, by call."""
        events = [msgspec.json.decode(line, type=Event) for line in self.dev.events_file.read_bytes().splitlines()]
        found: dict[str, list[Fact]] = {}
        for event in events:
            found.setdefault(event.call, []).append(event.fact)
        return found

    async def facts_of(self, calls: Sequence[str]) -> dict[str, list[Fact]]:
        """Return the same, once all `calls` have ended for the events service as well."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = self.facts()
                if all(any(isinstance(fact, CallEnded) for fact in found.get(call, ())) for call in calls):
                    return found
                await asyncio.sleep(0.2)


@asynccontextmanager
async def staged(agents: Path, lines: list[str], **more: str) -> AsyncIterator[Stage]:
    """Run the services against emulated vendors, two workers for each stage, all breakers as good as off."""
    async with playing() as cast:
        environ = {
            **os.environ,
            **cast.environ,
            "TRUNKLINE_STT_BREAKER_FAILURES": "1000",
            "TRUNKLINE_BRAIN_BREAKER_FAILURES": "1000",
            "TRUNKLINE_TTS_BREAKER_FAILURES": "1000",
            **more,
        }
        workers = {"stt": 2, "brain": 2, "tts": 2}
        plan = Plan(port=0, note=False, workers=workers, agents=agents, drain_s=1.0, environ=environ)
        async with run_dev(plan, Journal(lines.append, [], colour=False)) as dev:
            yield Stage(dev, cast)


def scenario(*steps: str):
    text = 'name = "faults"\nmax_s = 40.0\n' + "".join(f"[[steps]]\n{step}\n" for step in steps)
    return parse_scenario(text, "faults")


AFTER_THE_GREETING = scenario(
    "wait_for_agent = {quiet_ms = 300}", f'say = "{PHRASE}"', f"wait_for_agent = {PATIENT}", "hang_up = true"
)
FIRST = scenario("silence_s = 0.5", f'say = "{PHRASE}"', f"wait_for_agent = {PATIENT}", "hang_up = true")

UNTIL_THE_END = scenario("wait_for_agent = {quiet_ms = 300}", f'say = "{PHRASE}"', "wait_for_end_s = 15.0")
HEALTHY = {"stt": {"provider": "bench"}, "llm": {"provider": "script", "script": {"fallback": chords.ANSWER}}}
HEALTHY["tts"] = dict(SPARE["tts"])
DEAD = {
    "stt": {"provider": "deepgram", "model": "nova-3"},
    "llm": {"provider": "openai", "model": "gpt-4.1-mini"},
    "tts": {"provider": "deepgram", "voice": "aura-2-thalia-en"},
}


@pytest.fixture
def lines(request):
    """The log of every service, kept in a file named after the test."""
    written: list[str] = []
    yield written
    OUT.mkdir(exist_ok=True)
    (OUT / f"{request.node.name}.log").write_text("\n".join(written))


MOST_AGAIN = 8
"""Calls that may be played a second time."""


async def play(stage: Stage, chosen: Sequence[Cell]) -> list[Verdict]:
    """Place a call for every cell, `AT_ONCE` at a time, and judge each."""
    spoken = {name: (one, await prepare_speech(one)) for name, one in (("first", FIRST), ("", AFTER_THE_GREETING))}
    free = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, cell: Cell) -> CallResult:
        await asyncio.sleep(number % AT_ONCE * 0.15)  # callers do not begin in step
        async with free:
            script, clips = spoken["first" if cell.adapter.stage == "tts" else ""]
            target = Target(url=stage.dev.edge_url, agent=cell.agent)
            return await call_until_served(stage.dev, target, script, clips=clips)

    results = await asyncio.gather(*(one(number, cell) for number, cell in enumerate(chosen)))
    facts = await stage.facts_of([result.call for result in results])
    return [judge(cell, result, facts[result.call]) for cell, result in zip(chosen, results, strict=True)]


def wanted() -> dict[Fault | None, list[Cell]]:
    """Return the cells of the matrix in parts to be played one after the other.

    ``TRUNKLINE_FAULTS`` picks them: ``all``, or ``stt deepgram,tts fish/stall,drop``. Without it every adapter meets
    three faults, and every fault four adapters or so; ``make faults`` plays all.
    """
    pick = os.environ.get("TRUNKLINE_FAULTS", "")
    names, _, faults = pick.removeprefix("all").partition("/")
    adapters = [one for one in ADAPTERS if not names or f"{one.stage} {one.name}" in names.split(",")]
    columns = [fault for fault in (None, *Fault) if not faults or str(fault or "none") in faults.split(",")]
    found = list(cells(adapters, columns))
    if not pick:
        met = {
            (adapter.name, adapter.stage, [*Fault][(at + step) % len(Fault)])
            for at, adapter in enumerate(ADAPTERS)
            for step in (0, 4, 8)
        }
        found = [cell for cell in found if (cell.adapter.name, cell.adapter.stage, cell.fault) in met]
    apart = {fault: [cell for cell in found if cell.fault is fault] for fault in TOGETHER}
    return {
        None: [cell for cell in found if cell.fault not in TOGETHER],
        **{fault: part for fault, part in apart.items() if part},
    }


def test_no_fault_of_any_provider_is_heard_as_silence(tmp_path, lines):
    parts = wanted()
    for cell in itertools.chain(*parts.values()):
        write_agent(tmp_path, cell)

    async def story() -> list[Verdict]:
        verdicts = []
        async with staged(tmp_path, lines) as stage:
            for fault, part in parts.items():
                if fault is Fault.REFUSE:
                    for emulator in stage.cast.vendors.values():
                        await emulator.inject(Fault.REFUSE)
                heard = await play(stage, part)
                # A machine that does other things as well may be late for once: what was wrong is played again, alone.
                again = [cell for cell, verdict in zip(part, heard, strict=True) if verdict.wrong]
                heard = [verdict for verdict in heard if not verdict.wrong]
                for cell in again[:MOST_AGAIN]:
                    heard += await play(stage, [cell])
                verdicts += heard
                assert len(again) <= MOST_AGAIN, f"{len(again)} calls of {len(part)} went wrong"
                for emulator in stage.cast.vendors.values():
                    await emulator.heal()
        return verdicts

    verdicts = asyncio.run(story())
    OUT.mkdir(exist_ok=True)
    (OUT / "provider_faults.md").write_text(table(verdicts) + "\n")
    (OUT / "provider_faults.json").write_bytes(msgspec.json.format(msgspec.json.encode(verdicts)))
    if os.environ.get("TRUNKLINE_WRITE_RESULTS"):
        RESULTS.write_bytes((OUT / "provider_faults.json").read_bytes())
    wrong = [verdict for verdict in verdicts if verdict.wrong]
    told = "\n".join(f"{v.adapter} / {v.fault} ({v.call}): {'; '.join(v.wrong)}\n    {v.heard}" for v in wrong)
    assert not wrong, f"{len(wrong)} of {len(verdicts)} calls\n{table(verdicts)}\n{told}"


# --- nobody left ------------------------------------------------------------------------------------------------------

TWICE = scenario(
    "wait_for_agent = {quiet_ms = 300}",
    f'say = "{PHRASE}"',
    f"wait_for_agent = {PATIENT}",
    f'say = "{PHRASE}"',
    "wait_for_end_s = 15.0",
)


@pytest.mark.parametrize("dead", ["stt", "llm", "tts"])
def test_a_caller_whom_nobody_can_serve_hears_an_apology_and_then_a_farewell(dead, tmp_path, lines):
    stages = {**HEALTHY, dead: DEAD[dead]}
    write(tmp_path, "alone", stages, {})

    async def story() -> tuple[CallResult, list[Fact]]:
        async with staged(tmp_path, lines, TRUNKLINE_TTS_CLIPS_AFTER_MS="0") as stage:
            clips = await prepare_speech(TWICE)
            target = Target(url=stage.dev.edge_url, agent="alone")
            if dead == "tts":  # what is said without a voice was said by it before, and kept
                await call_until_served(stage.dev, target, FIRST, clips=await prepare_speech(FIRST))
                await asyncio.sleep(2.0)
            await stage.cast.vendors["deepgram" if dead != "llm" else "openai"].inject(Fault.REFUSE)
            result = await call_until_served(stage.dev, target, TWICE, clips=clips)
            return result, (await stage.facts_of([result.call]))[result.call]

    result, facts = asyncio.run(story())
    assert result.problem is None, explained(result, facts)
    heard = chords.listen(result.right)
    first, second = result.spoken
    after_first = [word for word in heard.after(first.end_s) if word.start_s < second.start_s]
    after_second = heard.after(second.end_s)
    assert spoken_in(after_first) == chords.words_of(chords.APOLOGY), explained(result, facts)
    # TTS does not know that this failure is one too many: it apologises, and then the brain says farewell.
    sorry, farewell = chords.words_of(chords.APOLOGY), chords.words_of(chords.FAREWELL)
    assert spoken_in(after_second) in (farewell, [*sorry, *farewell]), explained(result, facts)
    for words, since_s in ((after_first, first.end_s), (after_second, second.end_s)):
        gaps = chords.gaps_s(words, since_s)
        assert gaps[0] < FIRST_SOUND_S, explained(result, facts)
        assert max(gaps) < LONGEST_SILENCE_S, explained(result, facts)
    assert ended(facts) == "providers-failed", explained(result, facts)
    failures = [fact for fact in facts if isinstance(fact, ProviderFailed)]
    assert any(failure.then == "apology" for failure in failures), explained(result, facts)


# --- money ------------------------------------------------------------------------------------------------------------

PRICES = """
as_of = "2025-01-01"

[[price]]
provider = "openai"
model = "whisper-1"
audio_minute = 6.0

[[price]]
provider = "openai"
model = "gpt-4.1-mini"
million_input = 1000.0
million_cached = 100.0
million_output = 10000.0

[[price]]
provider = "openai"
model = "gpt-4o-mini-tts"
million_characters = 20000.0

[[price]]
provider = "deepgram"
model = "aura-2"
million_characters = 30000.0

[[price]]
provider = "script"
model = ""
"""


@pytest.fixture
def prices(tmp_path) -> str:
    path = tmp_path / "prices" / "prices.toml"
    path.parent.mkdir()
    path.write_text(PRICES)
    return str(path)


def test_the_bill_of_a_call_is_what_its_providers_counted_times_the_price_table(tmp_path, lines, prices):
    stages = {**HEALTHY, "stt": {"provider": "openai", "model": "whisper-1"}, "tts": DEAD["tts"]}
    write(tmp_path, "metered", stages, {"greeting": "", "farewell": ""})

    async def story():
        async with staged(tmp_path, lines, TRUNKLINE_PRICES=prices, TRUNKLINE_TTS_CLIPS_AFTER_MS="60000") as stage:
            target = Target(url=stage.dev.edge_url, agent="metered")
            result = await call_until_served(stage.dev, target, FIRST, clips=await prepare_speech(FIRST))
            vendors = stage.cast.vendors
            facts = (await stage.facts_of([result.call]))[result.call]
            return result, facts, vendors["openai"].parts[1].heard, vendors["deepgram"].texts

    result, facts, heard, texts = asyncio.run(story())
    (bill,) = [fact for fact in facts if isinstance(fact, CallBilled)]
    items = {(item.stage, item.provider): item for item in bill.items}
    (recording,) = heard
    audio_s = round(len(recording.samples) / recording.rate_hz, 2)
    hearing, speaking = items["stt", "openai"], items["tts", "deepgram"]
    assert hearing.audio_s == pytest.approx(audio_s, abs=0.01), explained(result, facts)
    assert hearing.usd == pytest.approx(audio_s * 0.1, abs=0.001), explained(result, facts)
    assert speaking.characters == sum(map(len, texts)) == len(chords.ANSWER) - 1, explained(result, facts)
    assert speaking.usd == pytest.approx(speaking.characters * 0.03), explained(result, facts)
    assert bill.usd == pytest.approx(sum(item.usd for item in bill.items)), explained(result, facts)
    assert bill.complete, explained(result, facts)


def test_a_call_that_has_cost_enough_is_ended_politely(tmp_path, lines, prices):
    stages = {**HEALTHY, "stt": {"provider": "openai", "model": "whisper-1"}, "tts": DEAD["tts"]}
    write(tmp_path, "capped", stages, {"limits": {"max_cost_usd": 0.01}})

    async def story():
        async with staged(tmp_path, lines, TRUNKLINE_PRICES=prices) as stage:
            target = Target(url=stage.dev.edge_url, agent="capped")
            result = await call_until_served(
                stage.dev, target, UNTIL_THE_END, clips=await prepare_speech(UNTIL_THE_END)
            )
            return result, (await stage.facts_of([result.call]))[result.call]

    result, facts = asyncio.run(story())
    assert result.problem is None, explained(result, facts)
    assert ended(facts) == "exceeded-max-cost", explained(result, facts)
    said = [word.text for word in chords.mended(chords.listen(result.right).words)]
    assert said[-1:] == chords.words_of(chords.SPENT), explained(result, facts)


def spoken_in(words: Sequence[Word]) -> list[str]:
    """Return what was said, but for fillers."""
    fillers = chords.words_of(" ".join(chords.FILLERS))
    return [word.text for word in chords.mended([word for word in words if word.text not in fillers])]


def ended(facts: Sequence[Fact]) -> str:
    """Return why the call ended."""
    return next(fact.reason for fact in facts if isinstance(fact, CallEnded))


def explained(result: CallResult, facts: Sequence[Fact]) -> str:
    """Return what is needed to see why a call went wrong."""
    heard = chords.told(chords.listen(result.right).words)
    said = [f"{spoken.start_s:.2f}-{spoken.end_s:.2f}" for spoken in result.spoken]
    return "\n".join((result.problem or "", f"caller {said}", f"heard {heard}", *(f"  {fact}" for fact in facts)))
