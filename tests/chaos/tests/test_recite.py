import pytest

from trunkline.brain.llm import AgentSaid, CallerSaid, SystemNote, ToolAnswered, ToolAsked
from trunkline.chaos.codebook import LINES, answer, text_of
from trunkline.chaos.recite import due
from trunkline.chaos.script import QUESTIONS, WANTS_TOOL, plan, question_in
from trunkline.proto.ids import ToolCallId

pytestmark = pytest.mark.unit

CALL = "a-call"


def asks(number):
    return CallerSaid(text=QUESTIONS[number])


def said(words):
    return AgentSaid(text=text_of(words), heard=text_of(words))


def test_a_question_is_answered_by_its_words():
    assert due(CALL, (asks(0),)) == text_of(answer(CALL, 0))


def test_a_second_question_is_answered_alone():
    assert due(CALL, (asks(0), said(answer(CALL, 0)), asks(1))) == text_of(answer(CALL, 1))


def test_what_was_heard_of_an_answer_is_not_said_again():
    words = answer(CALL, 0)
    assert due(CALL, (asks(0), said(words[:10]))) == text_of(words[10:])
    assert due(CALL, (asks(0), said(words[:10]), SystemNote(text="go on"))) == text_of(words[10:])
    assert due(CALL, (asks(0), said(words))) == ""
    assert due(CALL, (asks(0), said(words), asks(0))) == LINES.unasked


def test_a_tool_is_asked_for_once():
    assert due(CALL, (asks(WANTS_TOOL),)) == WANTS_TOOL
    key = ToolCallId("led-1")
    asked = ToolAsked(tool_call=key, name="ledger", arguments=f'{{"question":{WANTS_TOOL}}}')
    known = ToolAnswered(tool_call=key, name="ledger", result="{}")
    unknown = ToolAnswered(tool_call=key, name="ledger", error="the outcome is not known")
    for answered in (known, unknown):
        assert due(CALL, (asks(WANTS_TOOL), asked, answered)) == text_of(answer(CALL, WANTS_TOOL))


def test_two_questions_at_once_are_both_answered():
    assert due(CALL, (asks(0), asks(1))) == f"{text_of(answer(CALL, 0))} {text_of(answer(CALL, 1))}"


def test_what_is_no_question_is_answered_so():
    assert due(CALL, (asks(0), said(answer(CALL, 0)), CallerSaid(text="mumble"))) == LINES.unasked


def test_questions_are_told_apart():
    assert [question_in(question) for question in QUESTIONS] == list(range(len(QUESTIONS)))


def test_every_caller_wants_the_tool_and_no_question_twice():
    for seed in range(50):
        questions = plan("CA", seed, 5).questions
        assert WANTS_TOOL in questions
        assert len(set(questions)) == 5
