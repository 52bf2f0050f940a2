"""Whole bookings at the level of text: the demo agent's script with the restaurant's real diary, without a loop."""

import json
import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from trunkline.brain.llm import AgentSaid, CallerSaid, Message, ToolAnswered, ToolAsked
from trunkline.brain.script import answer, validate
from trunkline.brain.tools import ToolCallInfo
from trunkline.demo.restaurant import Diary
from trunkline.proto.agent import Agent
from trunkline.proto.ids import CallId, ToolCallId, TurnId

pytestmark = pytest.mark.unit

AGENT_FILE = Path(__file__).parents[3] / "agents" / "restaurant.toml"
MONDAY = 4 * 86_400.0  # 5 January 1970


class Noon:
    def monotonic(self) -> float:
        return 0.0

    def wall(self) -> float:
        return MONDAY + 43_200


def demo_agent() -> Agent:
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", AGENT_FILE.read_text())
    return msgspec.convert(tomllib.loads(text), Agent)


class Dialogue:
    """One call: what the caller says goes in, what the agent says comes out; tools are run on the way."""

    def __init__(self, diary: Diary | None = None, call: str = "call-1") -> None:
        self.agent = demo_agent()
        assert self.agent.llm.script is not None
        self.script = self.agent.llm.script
        self.diary = diary or Diary(clock=Noon())
        self.call = call
        self.history: list[Message] = [AgentSaid(text=self.agent.greeting, heard=self.agent.greeting)]
        self.tools_run: list[str] = []

    def caller(self, words: str, *, heard: float = 1.0) -> str:
        """Say `words`; return the agent's turn, of which the caller hears the given part."""
        self.history.append(CallerSaid(text=words))
        said = ""
        for _ in range(4):
            reply = answer(self.script, self.history, {tool.name for tool in self.agent.tools})
            assert reply == answer(self.script, self.history, {tool.name for tool in self.agent.tools})
            if reply.say:
                spoken = reply.say.replace("[END_CALL]", "").strip()
                self.history.append(AgentSaid(text=spoken, heard=spoken[: int(len(spoken) * heard)]))
                said = f"{said} {reply.say}".strip()
            if reply.tool is None:
                return said
            self.run(reply.tool.name, reply.tool.arguments)
        raise AssertionError("the script asks for tools without end")

    def run(self, name: str, arguments: dict[str, str]) -> None:
        tool_call = ToolCallId(f"tool-{len(self.history)}")
        info = ToolCallInfo(call=CallId(self.call), turn=TurnId(1), tool_call=tool_call)
        result = (
            self.diary.book(info, **arguments) if name == "book_table" else self.diary.check(self.call, **arguments)
        )
        self.tools_run.append(name)
        self.history.append(ToolAsked(tool_call=tool_call, name=name, arguments=json.dumps(arguments)))
        self.history.append(ToolAnswered(tool_call=tool_call, name=name, result=json.dumps(result)))


def test_the_demo_script_has_no_problems() -> None:
    agent = demo_agent()
    assert agent.llm.script is not None
    assert validate(agent.llm.script, agent.tools) == []


def test_a_booking_goes_through_at_once() -> None:
    call = Dialogue()
    assert call.caller("good evening i would like to book a table") == "With pleasure. For how many people?"
    assert call.caller("four") == "For four, very good. On which day, and at what time?"
    assert call.caller("on friday at half past seven") == (
        "Let me see. Yes, we have a table for four on Friday at half past seven. What name may I put it under?"
    )
    assert call.caller("anna miller") == (
        "So that is a table for four, on Friday at half past seven, under the name Anna Miller. Is that right?"
    )
    assert call.caller("yes that's right") == (
        "Wonderful, it is booked. Your booking number is four one seven. Is there anything else I can do for you?"
    )
    assert call.caller("no thank you goodbye") == (
        "Thank you for calling. We look forward to seeing you on Friday. Goodbye! [END_CALL]"
    )
    assert [(b.day, b.minute, b.party, b.name) for b in call.diary.bookings()] == [("friday", 1170, 4, "Anna Miller")]


def test_a_full_time_is_answered_with_another() -> None:
    call = Dialogue()
    said = call.caller("a table for two on friday at eight o'clock please")
    assert said == "Let me see. I am afraid we are full on Friday at eight o'clock. How about half past eight?"
    said = call.caller("yes please")
    assert (
        said == "Let me see. Yes, we have a table for two on Friday at half past eight. What name may I put it under?"
    )
    assert "under the name Smith" in call.caller("smith please")
    assert "booked" in call.caller("exactly")
    assert call.diary.bookings()[0].minute == 20 * 60 + 30


def test_the_alternative_may_be_refused_or_another_time_named() -> None:
    call = Dialogue()
    call.caller("a table for two on friday at eight o'clock please")
    assert call.caller("no thank you") == "At what other time would you like to come?"
    assert call.caller("nine") == (
        "Let me see. Yes, we have a table for two on Friday at nine. What name may I put it under?"
    )
    assert "at half past six" in call.caller("actually make it half past six")


def test_a_correction_at_the_confirmation_is_looked_up_again() -> None:
    call = Dialogue()
    call.caller("could i book a table for four on saturday at seven")
    call.caller("my name is david brown")
    said = call.caller("no for five people", heard=0.6)
    assert said == (
        "Let me see. Yes, we have a table for five on Saturday at seven. "
        "So that is a table for five, on Saturday at seven, under the name David Brown. Is that right?"
    )
    assert call.caller("no") == "I am sorry. What would you like to change?"
    assert call.caller("the name is wrong") == "What name may I put it under?"
    assert "under the name Jones" in call.caller("it's jones")
    assert "booked" in call.caller("yes")
    assert [(b.party, b.name) for b in call.diary.bookings()] == [(5, "Jones")]
    assert call.tools_run == ["check_table", "check_table", "book_table"]


def test_a_caller_may_leave_early() -> None:
    call = Dialogue()
    call.caller("i would like to book a table for six people")
    assert call.caller("never mind goodbye") == "Thank you for calling Bella Vista. Goodbye! [END_CALL]"
    assert call.tools_run == []


def test_a_change_of_mind_over_the_agent_speaking_counts() -> None:
    call = Dialogue()
    call.caller("i would like to book a table for four people please")
    call.caller("on friday at half past seven", heard=0.3)
    said = call.caller("actually make it six people")
    assert said == (
        "Let me see. Yes, we have a table for six on Friday at half past seven. What name may I put it under?"
    )


def test_a_question_nobody_heard_is_not_taken_as_answered() -> None:
    call = Dialogue()
    call.caller("a table for four on saturday at seven")
    call.caller("my name is laura weber", heard=0.1)
    assert "Is that right?" in call.caller("yes")
    assert call.tools_run == ["check_table"]


def test_small_questions_are_answered_and_the_dialogue_goes_on() -> None:
    call = Dialogue()
    assert call.caller("what are your opening hours").endswith("in the evening. Would you like to book a table?")
    assert call.caller("yes please") == "For how many people?"
    assert call.caller("where are you").endswith("old lighthouse. For how many people?")
    assert call.caller("sorry") == "Of course. For how many people?"
    assert call.caller("do you have vegetarian food").startswith("Half of our dishes are vegetarian")
    assert call.caller("blue elephants") == "Sorry, I did not catch that. For how many people?"
    assert call.caller("") == "Sorry, I could not hear you. For how many people?"
    assert "For three" in call.caller("we will be three")


def test_what_the_restaurant_cannot_do_is_said_with_the_reason() -> None:
    call = Dialogue()
    assert "closed on Mondays" in call.caller("a table for two tonight at seven")
    assert "half past nine" in call.caller("on tuesday at eleven o'clock")
    assert "on Tuesday at half past nine" in call.caller("okay")
    assert "largest table is for eight" in call.caller("actually for ten people")
    assert "a table for eight on Tuesday" in call.caller("eight")


def test_a_booking_can_be_changed_in_the_same_call() -> None:
    call = Dialogue()
    call.caller("a table for two on sunday at six thirty")
    call.caller("baker")
    call.caller("yes")
    assert "Is that right?" in call.caller("oh wait for three people")
    assert "I have changed that. Your booking number is now four one eight." in call.caller("yes")
    assert [booking.party for booking in call.diary.bookings()] == [3]


def test_a_diary_that_fails_ends_the_call_politely() -> None:
    call = Dialogue()
    call.history.append(CallerSaid(text="a table for two on sunday at six thirty"))
    call.history.append(ToolAsked(tool_call=ToolCallId("x"), name="check_table", arguments="{}"))
    call.history.append(ToolAnswered(tool_call=ToolCallId("x"), name="check_table", error="It took too long."))
    assert "[END_CALL]" in answer(call.script, call.history, {"check_table", "book_table"}).say


def test_a_worker_that_takes_over_answers_the_same() -> None:
    before = Dialogue()
    for words in ("hello", "i want to book a table for two", "tomorrow at eight o'clock", "emma", "yes"):
        before.caller(words)
    moments = [at for at, said in enumerate(before.history) if isinstance(said, CallerSaid)]
    for at in moments:
        after = Dialogue()
        after.history = before.history[: at + 1]
        reply = answer(after.script, after.history, {"check_table", "book_table"})
        following = before.history[at + 1]
        match following:
            case AgentSaid(text=text):
                assert reply.say == text
            case ToolAsked(name=name):
                assert reply.tool is not None
                assert reply.tool.name == name


def test_the_demo_s_caller_changes_her_mind_over_the_agent() -> None:
    call = Dialogue()
    call.caller("hello i would like to book a table for four people please")
    call.caller("on friday evening at half past seven", heard=0.5)
    assert "Yes, we have a table for five on Friday at half past seven." in call.caller("sorry make it five people")
    call.caller("my name is anna miller")
    assert "it is booked" in call.caller("yes that would be great")
    assert call.caller("no that's all thank you goodbye").endswith("Goodbye! [END_CALL]")
    assert call.tools_run == ["check_table", "check_table", "book_table"]
