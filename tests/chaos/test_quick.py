"""One fault of every kind during live calls: no word is lost, none is said twice, and every call ends as it should."""

import asyncio
import sys

import pytest

from trunkline.chaos.run import Settings, run_row

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.timeout(300)]

FAULTS = 5


def test_calls_outlive_a_kill_of_every_part(tmp_path):
    lines = []
    settings = Settings(
        row="quick", repeats=FAULTS, calls=6, questions=3, seed=7, stagger_s=1.0, folder=tmp_path / "run"
    )
    result, _ = asyncio.run(run_row(settings, lines.append))
    # Shown by pytest when the test fails.
    sys.stderr.write("\n".join([*lines, (tmp_path / "run" / "processes.log").read_text()[-20_000:]]))
    assert result.findings.vacuous == ()
    told = [f"{broken.rule} in {broken.call}: {broken.text}" for broken in result.findings.violations]
    assert told == []
    assert result.faults == FAULTS
    assert {cost.service for cost in result.costs} == {"stt", "brain", "tts", "edge", "nats"}
    assert result.findings.counts["tool effects"] > 0
