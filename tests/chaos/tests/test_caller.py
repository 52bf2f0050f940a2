import numpy as np
import pytest

from trunkline.audio.g711 import pcm16_to_mulaw
from trunkline.chaos.caller import Caller
from trunkline.chaos.codebook import LINES, answer, words_in
from trunkline.chaos.ear import FRAME_SAMPLES
from trunkline.chaos.script import CallPlan
from trunkline.chaos.tones import sound_of
from trunkline.testing.twilio import SILENCE, Heard

pytestmark = pytest.mark.unit

CALL = "a-call"
QUESTIONS = (2, 5)
CLIP = np.full(8_000, 3_000, np.int16)


def sound(words):
    mulaw = pcm16_to_mulaw(b"".join(map(sound_of, words)))
    return [mulaw[at : at + FRAME_SAMPLES] for at in range(0, len(mulaw), FRAME_SAMPLES)]


class Agent:
    """Greets, and answers every question half a second after it was asked; `cut` says what is left out of an answer."""

    def __init__(self, caller, *, deaf_to=(), hole_s=0.0):
        self.caller = caller
        self.waiting = sound(words_in(LINES.greeting))
        self.deaf_to = list(deaf_to)
        self.hole = int(hole_s * 50)
        self.answered = 0

    def frame(self):
        if len(self.caller.asked) > self.answered:
            asked = self.caller.asked[self.answered]
            self.answered += 1
            if asked.question in self.deaf_to:
                self.deaf_to.remove(asked.question)
            else:
                frames = sound(answer(CALL, asked.question))
                self.waiting = [SILENCE] * 25 + frames[:100] + [SILENCE] * self.hole + frames[100:]
        return self.waiting.pop(0) if self.waiting else SILENCE


def live(caller, agent, longest_s=60, on_frame=lambda _caller, _t: None):
    for at in range(int(longest_s * 50)):
        t = 1_000 + at / 50
        on_frame(caller, t)
        if caller.tick(Heard(at / 50, agent.frame(), bool(agent.waiting)), t).hang_up:
            return caller.record("caller")
    return caller.record("nobody")


def caller():
    return Caller(CallPlan(sid="CA1", questions=QUESTIONS), CALL, dict.fromkeys(range(8), CLIP))


def test_questions_are_asked_one_after_the_other_when_the_answer_is_over():
    one = caller()
    record = live(one, Agent(one))
    assert record.ended_by == "caller"
    assert [asked.question for asked in record.asked] == list(QUESTIONS)
    heard = [word.text for word in record.words]
    assert heard == [*words_in(LINES.greeting), *answer(CALL, 2), *answer(CALL, 5)]
    last = next(word for word in record.words if word.text == answer(CALL, 2)[-1])
    assert 0.3 < record.asked[1].began_t - last.end_s < 0.8


def test_a_hole_in_an_answer_is_not_its_end():
    one = caller()
    record = live(one, Agent(one, hole_s=3.0))
    last = next(word for word in record.words if word.text == answer(CALL, 2)[-1])
    assert record.asked[1].began_t > last.end_s


def test_who_gets_no_answer_goes_on_after_a_while():
    one = caller()
    record = live(one, Agent(one, deaf_to=[2]))
    assert [asked.question for asked in record.asked] == [2, 5]
    assert 8 < record.asked[1].began_t - record.asked[0].ended_t < 10


def test_a_question_that_the_line_swallowed_is_asked_again():
    one = caller()

    def break_line(caller, t):
        if len(caller.asked) == 1 and not caller.gaps:
            caller.line_closed(t - 0.1)
            caller.line_open(t)

    record = live(one, Agent(one, deaf_to=[2]), on_frame=break_line)
    assert [asked.question for asked in record.asked] == [2, 2, 5]
    assert len(record.gaps) == 1


def test_who_hears_that_all_lines_are_busy_was_refused():
    one = caller()
    agent = Agent(one)
    agent.waiting = sound(words_in(LINES.busy))
    record = live(one, agent)
    assert record.refused
    assert record.asked == ()
