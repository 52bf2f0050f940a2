"""A made-up booking call with everything in it: a report and the recording it is about."""

import numpy as np
import pytest

from trunkline.call import Verdict
from trunkline.demo.report import (
    AgentPart,
    BargeIn,
    CallerPart,
    Latency,
    Level,
    Partial,
    Recording,
    Report,
    Sentence,
    ToolUse,
    Totals,
    Turn,
)

RATE_HZ = 8_000
LINES = [
    (None, ["Hello, this is Sophie at Casa Lucia.", "How can I help you?"], None),
    (
        "i would like to book a table for two please",
        ["With pleasure.", "For which day would you like the table?"],
        None,
    ),
    (
        "on friday evening",
        [
            "Friday it is.",
            "We are open from six until eleven, and the kitchen closes at ten.",
            "At what time may I expect you?",
        ],
        "at half past seven",
    ),
    ("at half past seven", ["One moment.", "Half past seven on Friday for two is free.", "Under which name?"], None),
    ("my name is miller", ["Thank you, Miss Miller.", "Shall I book it?"], None),
    ("yes please that would be lovely", ["It is booked.", "We look forward to seeing you. Goodbye!"], None),
]


def _voice(samples, start_ms, end_ms, level, seed):
    rng = np.random.default_rng(seed)
    start, end = start_ms * 8, end_ms * 8
    time_s = np.arange(end - start) / RATE_HZ
    syllables = 0.25 + 0.75 * np.abs(np.sin(2 * np.pi * 2.1 * time_s + seed)) ** 1.5
    buzz = np.sin(2 * np.pi * 140 * time_s) * 0.6 + rng.normal(0, 0.35, time_s.size)
    fade = np.minimum(1, np.minimum(time_s, time_s[::-1]) / 0.03)
    samples[start:end] += buzz * syllables * fade * level * 32_767


def make_call(lines=LINES):
    """Return a report and its two channels, as float arrays of int16 range."""
    length = 60_000 * 8
    left, right = np.zeros(length), np.zeros(length)
    now, utterance = 600, 0
    turns, tools, interrupts = [], [], []
    for number, (caller_words, sentences, cutting) in enumerate(lines):
        caller = latency = None
        if caller_words is not None:
            onset = interrupts[-1].at_ms if interrupts and interrupts[-1].turn == number - 1 else now + 700
            offset = onset + 62 * len(caller_words)
            _voice(left, onset, offset, 0.22, number)
            words = caller_words.split()
            partials = tuple(
                Partial(at_ms=onset + (offset - onset) * (i + 1) // len(words) + 90, text=" ".join(words[: i + 1]))
                for i in range(0, len(words), 2)
            )
            parts = [600.0, 22.0 + 5 * number, 3.0 + 4 * number, 4.0, 38.0 + 7 * number, 9.0]
            if number == 3:
                parts[2] += 210.0
            total = sum(parts)
            latency = Latency(
                endpoint_delay_ms=parts[0],
                stt_final_ms=parts[1],
                llm_ttft_ms=parts[2],
                first_sentence_ms=parts[3],
                tts_ttfb_ms=parts[4],
                edge_ms=parts[5],
                turn_latency_ms=total,
                measured_ms=round(total) + 24,
            )
            caller = CallerPart(
                said_by_scenario=caller_words,
                transcript=caller_words,
                wer=0.0,
                partials=partials,
                final_ms=offset + 622,
                onset_ms=onset,
                offset_ms=offset,
            )
            now = offset + latency.measured_ms
            if number in (3, 5):
                name = "check_availability" if number == 3 else "book_table"
                called = offset + 640
                tools.append(
                    ToolUse(
                        turn=number,
                        name=name,
                        called_ms=called,
                        took_ms=12.0,
                        arguments={"day": "friday", "time": "19:30", "people": 2},
                        result={"free": True},
                        error="",
                    )
                )
        starts = now
        said = []
        cut_at = None
        for place, text in enumerate(sentences):
            utterance += 1
            length_ms = 60 * len(text)
            if cutting is not None and place == 1:
                onset = now + 1_500
                cleared = onset + 210
                cut_at = cleared
                interrupts.append(
                    BargeIn(
                        turn=number,
                        at_ms=onset,
                        cleared_ms=cleared,
                        stopped_after_ms=224,
                        generation=number + 1,
                        old_generation_audio_after_clear_ms=0,
                    )
                )
                _voice(right, now, cleared + 14, 0.3, 20 + utterance)
                said.append(_sentence(utterance, number, text, now, cleared + 14, now + length_ms - cleared))
                now = cleared
            elif cut_at is not None:
                said.append(_sentence(utterance, number, text, cut_at, cut_at, length_ms))
            else:
                _voice(right, now, now + length_ms, 0.3, 20 + utterance)
                said.append(_sentence(utterance, number, text, now, now + length_ms, 0))
                now += length_ms + 60
        agent = AgentPart(
            said=" ".join(sentences),
            heard=" ".join(sentences) if cut_at is None else "Friday it is. We are open from six until",
            interrupted=cut_at is not None,
            starts_ms=starts,
            ends_ms=now,
            sentences=tuple(said),
        )
        turns.append(Turn(turn=number, caller=caller, agent=agent, latency=latency))
    end = (now + 900) * 8
    noise = np.random.default_rng(1).normal(0, 30, end)
    report = Report(
        cost=None,
        failures=(),
        call="q3v7h2k5m8n4p6r9s2t5u7w3xz",
        agent="restaurant",
        scenario="booking",
        started_at="2026-11-21T09:30:00.000+00:00",
        ended_at="2026-11-21T09:30:45.000+00:00",
        duration_s=end / RATE_HZ,
        ended_reason="agent-hung-up",
        recording=Recording(
            file="call.wav",
            sample_rate_hz=RATE_HZ,
            duration_ms=end // 8,
            caller=Level(rms_dbfs=-21.0, peak_dbfs=-6.0, voiced_ms=9_000),
            agent=Level(rms_dbfs=-18.0, peak_dbfs=-4.0, voiced_ms=22_000),
        ),
        turns=tuple(turns),
        interrupts=tuple(interrupts),
        tools=tuple(tools),
        verdicts=(Verdict(name="one barge-in", expected="1", found="1", passed=True),),
        totals=Totals(
            caller_turns=len(turns) - 1,
            barge_ins=len(interrupts),
            tool_calls=len(tools),
            mean_wer=0.02,
            worst_wer=0.1,
            p50_turn_latency_ms=704.0,
            worst_turn_latency_ms=934.0,
            p50_measured_latency_ms=728.0,
        ),
        events=(),
    )
    return report, (left[:end] + noise).astype(np.int16), right[:end].astype(np.int16)


def _sentence(utterance, generation, text, starts, ends, unheard):
    return Sentence(
        utterance=utterance, generation=generation, text=text, starts_ms=starts, ends_ms=ends, unheard_ms=unheard
    )


@pytest.fixture
def call():
    return make_call()


@pytest.fixture
def make():
    return make_call
