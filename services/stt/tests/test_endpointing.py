import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.proto.agent import TurnTaking
from trunkline.stt.endpointing import End, Endpointing, Onset, Rules, frames_of

pytestmark = pytest.mark.unit

RULES = Rules(threshold=0.5, min_speech_ms=96, silence_ms=320, max_utterance_ms=3_200)
VOICE, DOUBT, SILENCE = 0.9, 0.4, 0.05


def hear(probabilities, rules=RULES, start=0):
    machine = Endpointing(rules)
    verdicts = [machine.hear(start + n, p) for n, p in enumerate(probabilities)]
    return [verdict for verdict in verdicts if verdict is not None]


def test_a_cough_shorter_than_min_speech_is_no_speech():
    assert hear([SILENCE] * 3 + [VOICE] * 2 + [SILENCE] * 20) == []


def test_speech_is_told_after_96_ms_and_named_after_its_first_voiced_frame():
    assert hear([SILENCE] * 10 + [VOICE] * 2) == []
    assert hear([SILENCE] * 10 + [VOICE] * 3) == [Onset(10, 10)]


def test_one_frame_is_enough_where_the_agent_says_so():
    rules = Rules(min_speech_ms=32)
    assert hear([VOICE], rules) == [Onset(0, 0)]


def test_a_pause_shorter_than_the_endpoint_belongs_to_the_utterance():
    verdicts = hear([VOICE] * 5 + [SILENCE] * 9 + [VOICE] * 5 + [SILENCE] * 10)
    assert verdicts == [Onset(0, 0), End(0, 18, 28, forced=False)]


def test_doubt_neither_begins_speech_nor_ends_it_nor_takes_it_up_again():
    assert hear([DOUBT] * 50) == []
    assert len(hear([VOICE] * 3 + [DOUBT] * 30)) == 1
    assert hear([VOICE] * 3 + [SILENCE] + [DOUBT] * 9)[-1] == End(0, 2, 12, forced=False)


def test_whoever_talks_on_is_cut_at_the_longest_utterance_and_heard_again():
    verdicts = hear([VOICE] * 150)
    assert verdicts == [Onset(0, 0), End(0, 99, 99, forced=True), Onset(100, 100)]


def test_a_stream_that_breaks_off_ends_what_was_open():
    machine = Endpointing(RULES)
    assert machine.cut() is None
    for n in range(4):
        machine.hear(n, VOICE)
    assert machine.cut() == End(0, 3, 3, forced=True)
    assert not machine.open


@pytest.mark.parametrize(("ms", "frames"), [(0, 1), (32, 1), (96, 3), (200, 6), (208, 7), (600, 19), (30_000, 938)])
def test_a_duration_is_the_nearest_number_of_frames(ms, frames):
    assert frames_of(ms) == frames


@given(st.integers(16, 100_000))
def test_a_duration_is_kept_to_within_half_a_frame(ms):
    assert abs(frames_of(ms) * 32 - ms) <= 16


def test_the_rules_are_the_agents():
    turns = TurnTaking(endpoint_silence_ms=200, min_speech_ms=64, vad_threshold=0.7)
    assert Rules.of(turns) == Rules(threshold=0.7, min_speech_ms=64, silence_ms=200)


likelihoods = st.lists(
    st.tuples(st.sampled_from([0.0, 0.2, 0.34, 0.36, 0.49, 0.5, 0.8, 1.0]), st.integers(1, 15)), max_size=40
).map(lambda runs: [p for p, count in runs for _ in range(count)])


@given(likelihoods)
def test_onsets_and_ends_alternate_and_name_the_same_utterance(probabilities):
    verdicts = hear(probabilities)
    for onset, end in zip(verdicts[::2], verdicts[1::2], strict=False):
        assert isinstance(onset, Onset)
        assert isinstance(end, End)
        assert onset.utterance == end.utterance
        assert onset.first <= end.last <= end.judged
        assert end.judged - onset.first < frames_of(RULES.max_utterance_ms)


@given(likelihoods)
def test_utterance_ids_increase(probabilities):
    ids = [verdict.utterance for verdict in hear(probabilities) if isinstance(verdict, Onset)]
    assert ids == sorted(set(ids))


@given(likelihoods)
def test_the_same_audio_has_the_same_utterances(probabilities):
    assert hear(probabilities) == hear(probabilities)


@given(likelihoods, st.integers(0, 60))
def test_a_replay_that_begins_in_the_silence_before_names_utterances_as_the_first_hearing_did(probabilities, frames):
    first_hearing = hear([SILENCE] * frames + probabilities)
    assert hear(probabilities, start=frames) == first_hearing


@given(likelihoods)
def test_whoever_takes_over_where_an_end_was_judged_hears_what_follows_as_the_first_would(probabilities):
    verdicts = hear(probabilities)
    for number, verdict in enumerate(verdicts):
        if isinstance(verdict, End):
            first = verdict.judged + 1
            assert hear(probabilities[first:], start=first) == verdicts[number + 1 :]
