"""The command a newcomer types first, and what it leaves behind."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from trunkline.audio.levels import rms_dbfs, voiced_spans
from trunkline.audio.wav import read

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(200)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> tuple[subprocess.CompletedProcess[str], Path]:
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "trunkline.cli", "demo", "--out", str(folder)]
    environ = {**os.environ, "NO_COLOR": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environ, timeout=150, check=False), folder


def test_it_succeeds_within_its_time_and_says_so(demo):
    done, _ = demo
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "expectations held" in done.stdout


def test_its_report_tells_of_turns_heard_right_a_barge_in_and_a_goodbye_heard_to_its_end(demo):
    report = msgspec.json.decode((demo[1] / "report.json").read_bytes())
    turns = [turn for turn in report["turns"] if turn["caller"]]
    assert len(turns) >= 4
    assert all(turn["caller"]["wer"] < 0.2 for turn in turns)
    assert report["interrupts"]
    assert all(interrupt["old_generation_audio_after_clear_ms"] == 0 for interrupt in report["interrupts"])
    assert report["ended_reason"] == "assistant-ended-call"
    last = report["turns"][-1]["agent"]
    assert last["heard"] == last["said"]
    assert "Goodbye" in last["heard"]
    kinds = [event["event"]["fact"]["type"] for event in report["events"]]
    assert kinds.count("call.started") == kinds.count("call.ended") == 1
    assert (kinds[0], kinds[-1]) == ("call.started", "call.ended")


def test_both_parties_can_be_heard_in_the_recording(demo):
    wav = read(demo[1] / "call.wav")
    assert wav.rate_hz == 8000
    for channel in (0, 1):
        samples = wav.samples[:, channel]
        spans = voiced_spans(samples, wav.rate_hz)
        assert sum(span.end_ms - span.start_ms for span in spans) > 5_000
        assert rms_dbfs(samples) > -40


def test_the_picture_is_a_picture(demo):
    assert (demo[1] / "timeline.png").read_bytes().startswith(b"\x89PNG")
    assert (demo[1] / "timeline.png").stat().st_size > 50_000
