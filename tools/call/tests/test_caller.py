"""The caller's stories, told without a loop: the agent is a list of stretches in which it is heard."""

import numpy as np
import pytest

from trunkline.audio.g711 import mulaw_to_pcm16, pcm16_to_mulaw
from trunkline.audio.levels import rms_dbfs, silence
from trunkline.call.caller import ScriptedCaller
from trunkline.call.scenario import Scenario, parse_scenario
from trunkline.call.seen import Seen
from trunkline.testing.twilio import FRAME_BYTES, SILENCE, Heard, Uttered

pytestmark = pytest.mark.unit

TONE = pcm16_to_mulaw((3_000 * np.sign(np.sin(np.arange(FRAME_BYTES)))).astype("<i2").tobytes())
A_FRAME = 0.0201
HALF_A_SECOND = np.full(4_000, 8_000, np.int16)


def scenario(*steps: str, max_s: float = 60.0) -> Scenario:
    body = "".join(f"[[steps]]\n{step}\n" for step in steps)
    return parse_scenario(f'name = "test"\nmax_s = {max_s}\n{body}', "test")


class Call:
    """Plays a scenario against an agent heard in `agent`, until the caller hangs up or `until_s`."""

    def __init__(self, played: Scenario, agent: list[tuple[float, float]], until_s: float = 100.0) -> None:
        self.seen: list[Seen] = []
        self.uttered: list[Uttered] = []
        clips = {i: HALF_A_SECOND for i, step in enumerate(played.steps) if step.action in ("say", "barge_in", "wav")}
        self.caller = ScriptedCaller(played, clips, self.seen.append)
        while not (self.uttered and self.uttered[-1].hang_up):
            now_ms = 20 * len(self.uttered)
            if now_ms >= 1_000 * until_s:
                break
            playing = any(1_000 * start_s <= now_ms < 1_000 * end_s for start_s, end_s in agent)
            self.uttered.append(self.caller.tick(Heard(now_ms / 1_000, TONE if playing else SILENCE, playing)))

    @property
    def duration_s(self) -> float:
        return 0.02 * len(self.uttered)

    @property
    def starts_s(self) -> list[float]:
        return [spoken.start_s for spoken in self.caller.spoken]

    def what(self, who: str) -> list[str]:
        return [seen.what for seen in self.seen if seen.who == who]


def test_the_caller_answers_once_the_agent_has_been_quiet() -> None:
    call = Call(scenario("wait_for_agent = { quiet_ms = 500 }", 'say = "hello"'), [(1.0, 2.0), (2.14, 3.0)])

    assert call.starts_s == pytest.approx([3.5], abs=A_FRAME)
    assert call.duration_s == pytest.approx(4.0, abs=2 * A_FRAME)
    assert call.caller.problem is None
    assert call.what("agent") == ["speech-started", "speech-ended"]
    assert call.what("caller") == ["step", "step", "speech-started", "speech-ended", "hung-up"]


def test_an_answer_must_come_after_the_callers_words() -> None:
    call = Call(scenario('say = "a"', "wait_for_agent = {}", 'say = "b"'), [(0.0, 0.4), (2.0, 3.0)])

    assert call.starts_s == pytest.approx([0.0, 3.8], abs=A_FRAME)


def test_an_agent_that_says_nothing_is_given_up_on() -> None:
    call = Call(scenario("wait_for_agent = { timeout_s = 2 }", 'say = "a"'), [])

    assert call.caller.problem == "step 1 (wait_for_agent): the agent said nothing within 2 s"
    assert call.duration_s == pytest.approx(2.02)
    assert [step.action for step in call.caller.missed] == ["say"]


def test_an_agent_that_began_in_time_may_talk_for_long() -> None:
    call = Call(scenario("wait_for_agent = { timeout_s = 2 }"), [(1.0, 9.0)])

    assert call.caller.problem is None


def test_a_barge_in_begins_so_long_after_the_agents_first_sound() -> None:
    call = Call(scenario('barge_in = { after_s = 1.5, say = "no" }'), [(1.0, 4.0)])

    (spoken,) = call.caller.spoken
    assert spoken.barge_in
    assert spoken.start_s == pytest.approx(2.5)
    assert spoken.end_s == pytest.approx(3.0)


def test_a_barge_in_counts_from_the_stretch_that_is_playing() -> None:
    call = Call(scenario("silence_s = 3", 'barge_in = { after_s = 1, say = "no" }'), [(1.0, 9.0)])

    assert call.starts_s == pytest.approx([3.0])


def test_a_barge_in_that_comes_too_late_says_so() -> None:
    call = Call(scenario('barge_in = { after_s = 3, say = "no" }'), [(1.0, 2.0)])

    assert call.caller.problem == "step 1 (barge_in): the agent had finished before 3 s were over"


def test_keys_are_pressed_one_by_one() -> None:
    call = Call(scenario('press = "12#"', "silence_s = 1"), [])

    pressed = [(round(0.02 * i, 2), uttered.digits) for i, uttered in enumerate(call.uttered) if uttered.digits]
    assert pressed == [(0.0, "1"), (0.26, "2"), (0.52, "#")]
    assert call.caller.last_act_s == pytest.approx(0.52)


def test_waiting_for_an_end_that_does_not_come_fails() -> None:
    call = Call(scenario("wait_for_end_s = 2"), [])

    assert call.caller.problem == "step 1 (wait_for_end_s): the agent did not hang up within 2 s"


def test_an_end_that_comes_while_only_waiting_misses_nothing() -> None:
    call = Call(scenario("wait_for_end_s = 5", "hang_up = true"), [], until_s=1)

    assert call.caller.missed == []


def test_an_end_in_the_middle_of_words_misses_them() -> None:
    call = Call(scenario('say = "a long story"', "hang_up = true"), [], until_s=0.2)

    assert [step.action for step in call.caller.missed] == ["say"]


def test_hanging_up_ends_it_whatever_follows() -> None:
    call = Call(scenario("hang_up = true", 'say = "never"'), [])

    assert call.uttered[0].hang_up
    assert call.caller.spoken == []


def test_no_call_is_longer_than_allowed() -> None:
    call = Call(scenario("silence_s = 50", max_s=3), [])

    assert call.caller.problem == "step 1 (silence_s): the call was not over after 3 s"
    assert call.duration_s == pytest.approx(3.02)


def test_the_line_is_never_digitally_silent_and_speech_is_on_top_of_the_noise() -> None:
    call = Call(scenario("silence_s = 1", 'say = "hello"'), [])
    levels = [rms_dbfs(mulaw_to_pcm16(uttered.audio)) for uttered in call.uttered]

    assert all(len(uttered.audio) == FRAME_BYTES for uttered in call.uttered)
    assert levels[:50] == pytest.approx([-60.0] * 50, abs=3.0)
    assert levels[50:75] == pytest.approx([rms_dbfs(HALF_A_SECOND)] * 25, abs=0.5)
    assert len(set(levels[:50])) > 40
    assert rms_dbfs(silence(20, 8_000)) < -100
