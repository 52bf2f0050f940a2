"""Twelve calls whose voice dies under them: what each caller hears is read back from the sound at their ear."""

import asyncio
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import aiohttp
import msgspec
import pytest

from trunkline.call import CallResult, Target, parse_scenario, prepare_speech
from trunkline.devserver.devserver import Devserver, run_dev
from trunkline.devserver.journal import Journal
from trunkline.devserver.settings import Plan
from trunkline.proto.events import CallEnded, Event
from trunkline.testing.patience import until
from trunkline.testing.providers.server import Fault

from .faults import chords
from .faults.cast import PHRASE, playing
from .faults.matrix import SPARE, write
from .served import call_until_served

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(150)]

CALLS = 12
TURNS = 2
OPEN_S = 3
FAILURES = 3
DIES_AFTER_S = 5.0
JUST_NOW_S = 1.5
"""What is being said when the provider dies may still be in its voice."""
ANSWER = chords.words_of(chords.ANSWER)
TALK = parse_scenario(
    'name = "dying"\nmax_s = 40.0\n[[steps]]\nsilence_s = 0.5\n'
    + TURNS * f'[[steps]]\nsay = "{PHRASE}"\n[[steps]]\nwait_for_agent = {{quiet_ms = 800}}\n'
    + "[[steps]]\nhang_up = true\n",
    "dying",
)
FIRST = {"provider": "deepgram", "voice": "aura-2-thalia-en", "fallbacks": [SPARE["tts"]]}


class Story(NamedTuple):
    """What came of it."""

    results: Sequence[CallResult]
    died_at: float
    failed: int
    """Attempts at the dead provider that failed, in their midst or before."""
    dead_s: float
    reasons: dict[str, str]


async def failed_attempts(dev: Devserver) -> int:
    """Return how many attempts at the first voice failed, by the workers' own count."""
    found = 0
    async with aiohttp.ClientSession() as http:
        for name, url in dev.stats_urls():
            if name.startswith("tts"):
                async with http.get(url.removesuffix("/stats") + "/metrics") as response:
                    text = await response.text()
                counted = re.findall(r"^trunkline_tts_provider_attempts_total\{(.*)\} (\S+)$", text, re.MULTILINE)
                found += sum(
                    int(float(count))
                    for labels, count in counted
                    if '"deepgram"' in labels and ('"failed"' in labels or '"broke-off"' in labels)
                )
    return found


def ends(dev: Devserver) -> dict[str, str]:
    """Return why each call ended."""
    events = [msgspec.json.decode(line, type=Event) for line in dev.events_file.read_bytes().splitlines()]
    return {event.call: event.fact.reason for event in events if isinstance(event.fact, CallEnded)}


async def play(folder: Path, lines: list[str]) -> Story:
    """Have `CALLS` calls talk, and the first voice die under them."""
    async with playing() as cast:
        environ = {**os.environ, **cast.environ, "TRUNKLINE_TTS_BREAKER_OPEN_S": str(OPEN_S)}
        plan = Plan(port=0, note=False, agents=folder, drain_s=1.0, environ=environ)
        async with run_dev(plan, Journal(lines.append, [], colour=False)) as dev:
            clips = await prepare_speech(TALK)

            async def one(number: int) -> CallResult:
                await asyncio.sleep(number * 0.25)  # callers do not begin in step
                return await call_until_served(dev, Target(url=dev.edge_url, agent="dying"), TALK, clips=clips)

            calls = asyncio.gather(*(one(number) for number in range(CALLS)))
            await asyncio.sleep(DIES_AFTER_S)
            died_at = time.time()
            await cast.vendors["deepgram"].inject(Fault.REFUSE)
            results = await calls
            dead_s = time.time() - died_at
            await until(lambda: len(ends(dev)) == CALLS)
            return Story(results, died_at, await failed_attempts(dev), dead_s, ends(dev))


def test_twelve_calls_go_on_when_the_voice_they_hear_dies_under_them(tmp_path):
    stages = {
        "stt": {"provider": "bench"},
        "llm": {"provider": "script", "script": {"fallback": chords.ANSWER}},
        "tts": FIRST,
    }
    write(
        tmp_path,
        "dying",
        stages,
        {"greeting": "", "farewell": "", "spent": "", "resumed": "", "apology": ""},
        fillers=(),
    )
    lines: list[str] = []
    story = asyncio.run(play(tmp_path, lines))

    wrong: list[str] = []
    voices: list[str] = []
    for result in story.results:
        told = f"{result.call}: {chords.told(chords.listen(result.right).words)}"
        if result.problem or result.ended_by != "caller" or len(result.spoken) != TURNS:
            wrong.append(f"{result.problem or result.ended_by}, {told}")
            continue
        heard = chords.listen(result.right)
        until = [*(spoken.start_s for spoken in result.spoken[1:]), result.duration_s]
        for spoken, until_s in zip(result.spoken, until, strict=True):
            words = [word for word in heard.after(spoken.end_s) if word.start_s < until_s]
            said = [word.text for word in chords.mended(words)]
            # A voice that breaks off may take the word with it that it was about to say: none is said twice instead.
            lost = [at for at in range(len(ANSWER)) if said == ANSWER[:at] + ANSWER[at + 1 :]]
            changed = len({word.voice for word in words}) > 1
            if said != ANSWER and not (changed and lost):
                wrong.append(f"heard {said}, {told}")
            late = [word for word in words if result.started_at + word.start_s > story.died_at + JUST_NOW_S]
            if any(word.voice != "spare" for word in late):
                wrong.append(f"not the other voice: {told}")
            voices += {word.voice for word in words}
    assert not wrong, "\n".join(wrong)
    assert set(voices) == {"deepgram", "spare"}
    assert set(story.reasons.values()) == {"customer-ended-call"}
    # Whoever was being served fails once, and is perhaps tried again; then the breaker lets one through at a time.
    trials = int(story.dead_s / OPEN_S) + 1
    most = CALLS + FAILURES + trials
    assert FAILURES <= story.failed <= most, f"{story.failed} attempts failed; {most} may"
