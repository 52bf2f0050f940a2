"""How soon an interruption is believed in, and what else is taken for one: Trunkline and Pipecat, on the same clips.

    python tools/bench/peers/false_alarms.py [--out FILE.json]

Both listen with the same network (Silero VAD), and differ in what they do with its answers. Pipecat is asked twice:
with the threshold and the times of an agent here, and with its own, which are later and more careful.
"""

import argparse
import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tools.bench.peers import pipecat_env
from tools.bench.peers.clips import Clip, noises, speech
from tools.bench.peers.tones import RATE_HZ
from trunkline.bench.report import command, machine, today
from trunkline.proto.agent import TurnTaking
from trunkline.proto.ids import Seq
from trunkline.stt.endpointing import End, Endpointing, Onset, Rules
from trunkline.stt.intake import FRAME_SAMPLES
from trunkline.stt.vad import VoiceDetector

TURNS: Final = TurnTaking()
QUANTILES: Final = ("p50", "p95", "p100")
SAME: Final = {
    "confidence": TURNS.vad_threshold,
    "start_secs": TURNS.min_speech_ms / 1_000,
    "stop_secs": TURNS.endpoint_silence_ms / 1_000,
    "min_volume": 0.0,
}


class Heard(msgspec.Struct, frozen=True):
    """What one listener made of all clips."""

    who: str
    missed: int
    """Interruptions that were not noticed before they were over."""
    onset_ms: dict[str, float]
    """First sound to belief, percentiles."""
    false_alarms: dict[str, int]
    """By kind of noise."""
    noise_s: float

    @property
    def per_minute(self) -> float:
        """False alarms in a minute of noise."""
        return 60 * sum(self.false_alarms.values()) / self.noise_s


class Outcome(msgspec.Struct, frozen=True):
    """What is written."""

    date: str
    command: str
    machine: str
    speech: int
    heard: list[Heard]


def ours(clip: Clip, rules: Rules) -> list[int]:
    """Return after how many samples each onset was told."""
    detector, endpointing = VoiceDetector(1), Endpointing(rules)
    row, found = detector.join(), []
    for seq in range(len(clip.samples) // FRAME_SAMPLES):
        frame = clip.samples[seq * FRAME_SAMPLES : (seq + 1) * FRAME_SAMPLES].astype("<i2").tobytes()
        (probability,) = detector.probabilities([row], [frame])
        match endpointing.hear(Seq(seq), probability):
            case Onset():
                found.append((seq + 1) * FRAME_SAMPLES)
            case End():
                detector.reset(row)  # as `CallHearing` does
            case None:
                pass
    return found


def theirs(clips: Sequence[Clip], settings: dict[str, float], python: Path) -> list[list[int]]:
    """Return the same of Pipecat, clip by clip.

    Raises:
        subprocess.CalledProcessError: it did not come to the end.
    """
    pieces = [clip.samples.astype("<i2").tobytes() for clip in clips]
    done = subprocess.run(  # noqa: S603 - our own
        [str(python), "-m", "tools.bench.peers.pipecat_alarms", json.dumps(settings)],
        input=b"".join(len(pcm).to_bytes(4, "little") + pcm for pcm in pieces),
        cwd=pipecat_env.ROOT,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"[")]


def judged(who: str, clips: Sequence[Clip], onsets: Sequence[Sequence[int]]) -> Heard:
    """Return what `onsets`, of each clip, are worth."""
    waits_ms, missed = [], 0
    alarms = {clip.kind: 0 for clip in clips if clip.first is None}
    alarms["before speech"] = 0
    noise_s = 0.0
    for clip, found in zip(clips, onsets, strict=True):
        if clip.first is None:
            alarms[clip.kind] += len(found)
            noise_s += clip.seconds
            continue
        noise_s += clip.first / RATE_HZ
        early = [at for at in found if at <= clip.first]
        alarms["before speech"] += len(early)
        if len(found) == len(early):
            missed += 1
        else:
            waits_ms.append(1_000 * (found[len(early)] - clip.first) / RATE_HZ)
    at = {q: round(float(np.percentile(waits_ms, float(q[1:]))), 1) for q in QUANTILES} if waits_ms else {}
    return Heard(who, missed, at, alarms, noise_s)


def show(found: Outcome) -> None:
    """Print a column for each listener."""
    kinds = list(found.heard[0].false_alarms)
    rows = [
        ("", [heard.who for heard in found.heard]),
        (f"missed, of {found.speech}", [str(heard.missed) for heard in found.heard]),
        *(
            (f"believed after, ms, {q}", [f"{heard.onset_ms.get(q, np.nan):.0f}" for heard in found.heard])
            for q in QUANTILES
        ),
        *((f"false alarms, {kind}", [str(heard.false_alarms[kind]) for heard in found.heard]) for kind in kinds),
        ("false alarms a minute", [f"{heard.per_minute:.1f}" for heard in found.heard]),
    ]
    for title, cells in rows:
        print(f"{title:<32}" + "".join(f"{cell:>26}" for cell in cells))


def main(argv: Sequence[str] | None = None) -> None:
    """Have all listen to everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file for the results")
    options = parser.parse_args(argv)
    python = pipecat_env.install()
    spoken = asyncio.run(speech())
    clips = [*spoken, *noises()]
    rules = Rules.of(TURNS)
    peer = f"Pipecat {pipecat_env.VERSION}"
    outcome = Outcome(
        today(),
        command(),
        machine(),
        len(spoken),
        [
            judged("Trunkline", clips, [ours(clip, rules) for clip in clips]),
            judged(f"{peer}, as here", clips, theirs(clips, SAME, python)),
            judged(f"{peer}, its own", clips, theirs(clips, {}, python)),
        ],
    )
    show(outcome)
    if options.out is not None:
        options.out.write_bytes(msgspec.json.format(msgspec.json.encode(outcome), indent=1) + b"\n")


if __name__ == "__main__":
    main()
