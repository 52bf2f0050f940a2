"""Where the time of a turn goes when the agent's providers are services: through the official SDKs, against emulators.

    python tools/bench/turn_latency.py [--calls 12] [--at-once 2] [--out FILE.json]

The same calls three times in one run. First the emulators take the time the providers publish (Deepgram's final words
250 ms after the last sound, 350 ms to a GPT-class model's first token and 80 tokens a second after it, 100 ms to
ElevenLabs Flash's first byte). Then they answer at once: what is left beyond the endpointing silence is five services,
the bus, the SDKs, and the emulators' own HTTP on the same cores. Last, the in-process ``bench`` providers take the
place of SDKs and emulators: what is left is Trunkline's own. Nothing here asserts.
"""

import argparse
import asyncio
import contextlib
import json
import platform
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trunkline.call import Scenario, Target, place_call, prepare_speech
from trunkline.call.scenario import Step, Voice, WaitForAgent
from trunkline.devserver.devserver import run_dev
from trunkline.devserver.journal import Journal
from trunkline.devserver.settings import Plan
from trunkline.proto.events import Event, TurnMeasured
from trunkline.testing.providers import Asked, Reply, tones
from trunkline.testing.providers.deepgram import DeepgramEmulator
from trunkline.testing.providers.elevenlabs import ElevenLabsEmulator
from trunkline.testing.providers.openai import OpenAiEmulator
from trunkline.testing.providers.phrases import Phrases

ENDPOINT_MS: Final = 200
LINES: Final = ("yes please", "tell me more", "on friday", "for two people", "that is fine", "what about parking")
ANSWER: Final = "Of course, that can be arranged for you at any time. "
AGENT: Final = f"""
name = "latency"
greeting = "Hello."
prompt = "Answer in one short sentence."
[stt]
provider = "%s"
[llm]
provider = "%s"
[tts]
provider = "%s"
[turns]
endpoint_silence_ms = {ENDPOINT_MS}
fillers = []
"""
PARTS: Final = ("endpoint_delay", "stt_final", "llm_ttft", "first_sentence", "tts_ttfb", "edge", "turn_latency")


class Pace(NamedTuple):
    """How fast the emulated providers are."""

    name: str
    final_s: float
    llm_first_s: float
    tokens_per_s: float
    tts_first_s: float
    providers: tuple[str, str, str] = ("deepgram", "openai", "elevenlabs")


PUBLISHED: Final = Pace("published speeds", 0.25, 0.35, 80.0, 0.1)
INSTANT: Final = Pace("instant, through the SDKs", 0.0, 0.0, 1e6, 0.0)
IN_PROCESS: Final = Pace("instant, in process", 0.0, 0.0, 1e6, 0.0, ("bench", "bench", "bench"))


def scenario() -> Scenario:
    """Return a caller who says each line once and waits for the answer."""
    steps: list[Step] = [Step(wait_for_agent=WaitForAgent())]
    for line in LINES:
        steps += [Step(say=line), Step(wait_for_agent=WaitForAgent())]
    return Scenario(name="latency", agent="latency", steps=(*steps, Step(hang_up=True)), caller=Voice())


def mind(asked: Asked) -> Reply:
    """Answer anything with one sentence."""
    del asked
    return Reply(ANSWER)


@contextlib.asynccontextmanager
async def emulators(pace: Pace, sounds: Mapping[str, NDArray[np.int16]]) -> AsyncIterator[dict[str, str]]:
    """Run the providers; yield the environment that points the services to them."""
    deepgram = DeepgramEmulator(ear=Phrases(sounds), final_s=pace.final_s)
    openai = OpenAiEmulator(mind=mind, first_s=pace.llm_first_s, tokens_per_s=pace.tokens_per_s)
    elevenlabs = ElevenLabsEmulator(voice=tones(300), first_s=pace.tts_first_s)
    async with deepgram, openai, elevenlabs:
        yield {
            "DEEPGRAM_API_KEY": deepgram.key,
            "DEEPGRAM_BASE_URL": deepgram.url,
            "OPENAI_API_KEY": openai.key,
            "OPENAI_BASE_URL": f"{openai.url}/v1",
            "ELEVENLABS_API_KEY": elevenlabs.key,
            "ELEVENLABS_BASE_URL": elevenlabs.url,
        }


async def measure(pace: Pace, calls: int, at_once: int) -> list[TurnMeasured]:
    """Place `calls` calls, `at_once` at a time; return every turn's breakdown."""
    tale = scenario()
    clips = await prepare_speech(tale)
    sounds = {str(step.say): clips[number] for number, step in enumerate(tale.steps) if step.say is not None}
    turns: list[TurnMeasured] = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "latency.toml").write_text(AGENT % pace.providers)
        async with emulators(pace, sounds) as environ:
            plan = Plan(port=0, agents=Path(folder), note=False, drain_s=1.0, environ=environ)
            async with run_dev(plan, Journal(lambda _: None, ("edge",), colour=False)) as dev:
                target = Target(url=dev.edge_url, nats_url=dev.nats_url)
                room = asyncio.Semaphore(at_once)

                async def one(number: int) -> None:
                    async with room:
                        result = await place_call(target, tale, clips=clips)
                        facts = [seen.message.fact for seen in result.log if isinstance(seen.message, Event)]
                        turns.extend(fact for fact in facts if isinstance(fact, TurnMeasured))
                        print(f"  {pace.name}: call {number + 1} of {calls}", end="\r", file=sys.stderr)

                await asyncio.gather(*(one(number) for number in range(calls)))
    print(file=sys.stderr)
    return turns


def table(turns: Sequence[TurnMeasured]) -> dict[str, dict[str, float]]:
    """Return p50, p95 and p99 of every part, ms."""
    out = {}
    for part in PARTS:
        values = [getattr(turn, f"{part}_ms") for turn in turns]
        out[part] = {f"p{q}": round(float(np.percentile(values, q)), 2) for q in (50, 95, 99)}
    own = [turn.turn_latency_ms - turn.endpoint_delay_ms for turn in turns]
    out["all but endpointing"] = {f"p{q}": round(float(np.percentile(own, q)), 2) for q in (50, 95, 99)}
    return out


def show(name: str, rows: Mapping[str, Mapping[str, float]], turns: int) -> None:
    """Print a table."""
    print(f"\n{name} ({turns} turns), ms")
    print(f"  {'':<22}{'p50':>9}{'p95':>9}{'p99':>9}")
    for part, row in rows.items():
        print(f"  {part.replace('_', ' '):<22}" + "".join(f"{value:>9.1f}" for value in row.values()))


async def main(options: argparse.Namespace) -> None:
    """Measure and report."""
    report: dict[str, object] = {
        "command": "python " + " ".join(["tools/bench/turn_latency.py", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "endpoint_silence_ms": ENDPOINT_MS,
    }
    for pace in (PUBLISHED, INSTANT, IN_PROCESS):
        turns = await measure(pace, options.calls, options.at_once)
        rows = table(turns)
        show(pace.name, rows, len(turns))
        report[pace.name] = {"pace": pace._asdict(), "turns": len(turns), "ms": rows}
    if options.out is not None:
        options.out.write_text(json.dumps(report, indent=1) + "\n")
        print(f"\nwritten to {options.out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=12, help="calls per pace, six turns each (default: %(default)s)")
    parser.add_argument("--at-once", type=int, default=2, help="of them at a time (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "turn_latency.json")
    asyncio.run(main(parser.parse_args()))
