"""When hearing, thinking or speaking fails: nobody listens to a dead line, and nothing is said twice."""

import msgspec
import pytest

from services.brain.tests.test_conversation import Story, facts, of, texts, wants_tool
from trunkline.brain.llm import AgentSaid, CallerSaid, ToolCall
from trunkline.brain.moves import (
    EndCall,
    Opened,
    RunTool,
    Speak,
    StopThinking,
    Think,
    ThoughtCame,
    ThoughtEnded,
    TimerFired,
    ToolDone,
    ToolWanted,
    Void,
)
from trunkline.proto.agent import Agent, TurnTaking
from trunkline.proto.events import AgentSpoke, CallerBargedIn
from trunkline.proto.messages import (
    DigitPressed,
    PlayoutCut,
    PlayoutFinished,
    PlayoutStarted,
    SpeakingFailed,
    SpeechStopped,
    TurnEnded,
    WindUp,
    WordsTimed,
)

pytestmark = pytest.mark.unit

AGENT = Agent(
    name="test",
    greeting="Hello.",
    apology="Sorry?",
    farewell="Farewell.",
    spent="Time is up.",
    turns=TurnTaking(fillers=("Wait.", "Still here."), filler_after_ms=1_000, filler_again_ms=2_000),
)


def story():
    return Story(AGENT).greeted()


def stopped(tale):
    return tale.tell(SpeechStopped(epoch=1, utterance=tale.seq, endpoint_at=tale.now))


def failed_turn(tale):
    at = tale.now
    return tale.tell(
        TurnEnded(epoch=1, utterance=tale.seq, speech_ended_at=at, endpoint_at=at, final_at=at, failed=True)
    )


def due(tale, timer="filler"):
    return tale.machine.due.get(timer)


class TestFillers:
    def test_are_said_when_the_answer_is_late_and_again_some_time_after_the_first_was_heard(self):
        tale = story()
        tale.starts()
        asked_at = tale.now
        stopped(tale)
        tale.stops("tell me")
        assert due(tale) == pytest.approx(asked_at + 1.0)
        first = tale.tell(TimerFired("filler"))
        assert texts(first) == ["Wait."]
        tale.hears(*first)
        assert due(tale) == pytest.approx(tale.now + 2.0)
        assert texts(tale.tell(TimerFired("filler"))) == ["Still here."]
        assert texts(tale.tell(TimerFired("filler"))) == ["Still here."]

    def test_are_said_while_the_words_are_still_being_found(self):
        tale = story()
        tale.starts()
        stopped(tale)
        assert texts(tale.tell(TimerFired("filler"))) == ["Wait."]
        assert of(Think, tale.stops("tell me"))

    def test_are_not_said_when_the_answer_is_there_and_tts_is_told_when_one_would_be(self):
        tale = story()
        tale.caller_says("tell me")
        at = due(tale)
        (spoken,) = of(Speak, tale.thinks("Well."))
        assert spoken.filler_at == at > 0
        assert due(tale) is None

    def test_are_not_said_when_there_were_no_words(self):
        tale = story()
        tale.starts()
        stopped(tale)
        tale.stops()
        assert due(tale) is None

    def test_are_not_said_while_the_caller_speaks(self):
        tale = story()
        tale.starts()
        stopped(tale)
        tale.starts()
        assert due(tale) is None

    def test_are_no_part_of_what_the_agent_said(self):
        tale = story()
        tale.caller_says("tell me")
        tale.hears(*tale.tell(TimerFired("filler")))
        tale.hears(*tale.thinks("Well."))
        spoke = facts(AgentSpoke, tale.all)[-1]
        assert (spoke.said, spoke.heard) == ("Well.", "Well.")
        think = of(Think, tale.caller_says("and"))[0]
        assert think.messages[-2:] == (AgentSaid(text="Well.", heard="Well."), CallerSaid(text="and"))

    def test_can_be_barged_into_and_the_words_before_and_after_are_one_turn(self):
        tale = story()
        tale.caller_says("tell me")
        tale.tell(TimerFired("filler"))
        orders = tale.starts()
        assert of(Void, orders)[0].reason == "barge-in"
        assert facts(CallerBargedIn, orders)
        think = of(Think, tale.stops("about fish"))[0]
        assert think.messages[-1] == CallerSaid(text="tell me about fish")

    def test_are_said_while_a_tool_runs(self):
        tale = story()
        tale.caller_says("book it")
        thought = tale.machine.thought
        spoken = tale.tell(ThoughtCame(thought, "Let me see. "))
        spoken += tale.tell(ToolWanted(thought, ToolCall(id="t", name="book", arguments="{}")))
        assert of(RunTool, tale.tell(ThoughtEnded(thought)))
        tale.hears(*spoken)
        assert due(tale) == pytest.approx(tale.now + 2.0)
        assert texts(tale.tell(TimerFired("filler"))) == ["Wait."]
        assert of(Think, tale.tell(ToolDone(tool_call="t", name="book", took_ms=1, result="{}")))

    def test_may_be_none(self):
        tale = Story(Agent(name="a", turns=TurnTaking(fillers=())))
        tale.begin()
        tale.caller_says("tell me")
        assert due(tale) is None


class TestThinkingThatFails:
    def test_before_anything_was_said_is_repaired_once(self):
        tale = story()
        tale.caller_says("hello")
        again = tale.thinks("Wel", failure="broke-off")
        assert of(Think, again)
        assert not of(Speak, again)
        assert texts(tale.thinks("Hi.")) == ["Hi."]

    def test_twice_in_a_turn_is_an_apology(self):
        tale = story()
        tale.caller_says("hello")
        tale.thinks(failure="broke-off")
        assert texts(tale.thinks(failure="broke-off")) == ["Sorry?"]

    def test_after_something_was_said_is_never_repeated_but_said_to_have_failed(self):
        tale = story()
        tale.caller_says("hello")
        orders = tale.thinks("It is open. And the pri", failure="broke-off")
        assert not of(Think, orders)
        assert texts(orders)[-1] == "Sorry?"

    def test_in_turn_after_turn_ends_the_call_with_a_farewell(self):
        tale = story()
        tale.caller_says("hello")
        tale.hears(*tale.thinks(failure="nobody"))
        tale.caller_says("hello?")
        orders = tale.thinks(failure="nobody")
        assert texts(orders) == ["Farewell."]
        assert of(EndCall, tale.hears(*orders))[0].reason == "providers-failed"

    def test_and_then_works_is_forgotten(self):
        tale = story()
        for failure in ("nobody", "", "nobody"):
            tale.caller_says("hello")
            orders = tale.thinks("Hi." if not failure else "", failure=failure)
            tale.hears(*orders)
        assert texts(orders) == ["Sorry?"]
        assert not of(EndCall, tale.all)


class TestHearingThatFails:
    def test_is_an_apology_and_not_silence(self):
        tale = story()
        tale.starts()
        assert texts(failed_turn(tale)) == ["Sorry?"]

    def test_again_and_again_ends_the_call(self):
        tale = story()
        tale.starts()
        tale.hears(*failed_turn(tale))
        tale.starts()
        orders = failed_turn(tale)
        assert texts(orders) == ["Farewell."]
        assert of(EndCall, tale.hears(*orders))


class TestSpeakingThatFails:
    def fails(self, tale, spoken, instead=""):
        ids = {"generation": spoken.generation, "utterance": spoken.utterance}
        orders = tale.tell(SpeakingFailed(epoch=1, **ids, instead=instead))
        if instead:
            orders += tale.tell(PlayoutStarted(**ids, synthesised_at=tale.now, sent_at=tale.now))
        return orders + tale.tell(PlayoutFinished(**ids, heard_ms=900 if instead else 0))

    def test_with_an_apology_heard_lets_the_caller_speak_and_knows_what_was_not_heard(self):
        tale = story()
        tale.caller_says("hello")
        first, second = of(Speak, tale.thinks("One. ", "Two."))
        tale.hears(first)
        orders = self.fails(tale, second, "apology")
        assert not of(Speak, orders)
        assert facts(AgentSpoke, orders)[0].heard == "One."
        assert tale.machine.state == "listening"

    def test_without_one_is_apologised_for_and_ends_the_call_when_that_fails_too(self):
        tale = story()
        tale.caller_says("hello")
        (apology,) = of(Speak, self.fails(tale, of(Speak, tale.thinks("One."))[0]))
        assert apology.text == "Sorry?"
        (farewell,) = of(Speak, self.fails(tale, apology))
        assert farewell.text == "Farewell."
        assert of(EndCall, self.fails(tale, farewell))[0].reason == "providers-failed"

    def test_stops_the_model_and_gives_up_what_was_to_follow(self):
        tale = story()
        tale.caller_says("hello")
        thought = tale.machine.thought
        first, second = of(Speak, tale.tell(ThoughtCame(thought, "One. Two. ")))
        ids = {"generation": first.generation, "utterance": first.utterance}
        orders = tale.tell(SpeakingFailed(epoch=1, **ids, instead="apology"))
        assert of(StopThinking, orders)
        assert not of(Speak, tale.tell(ThoughtCame(thought, "Three. ")))
        tale.tell(PlayoutFinished(**ids, heard_ms=900))
        assert tale.machine.state == "listening"
        assert second.utterance > first.utterance

    def test_of_an_older_turn_is_nobodys_business(self):
        tale = story()
        tale.caller_says("hello")
        (spoken,) = of(Speak, tale.thinks("One."))
        tale.starts()
        assert not of(Speak, tale.tell(SpeakingFailed(epoch=1, generation=spoken.generation, utterance=1)))


class TestTheEdge:
    def test_may_have_greeted_already(self):
        tale = Story(AGENT)
        orders = tale.tell(Opened(1, greeting=1))
        assert not of(Speak, orders)
        tale.tell(PlayoutStarted(generation=1, utterance=1, synthesised_at=0, sent_at=0))
        tale.tell(PlayoutFinished(generation=1, utterance=1, heard_ms=500))
        assert facts(AgentSpoke, tale.all)[0].heard == "Hello."
        tale.caller_says("hi")
        (spoken,) = of(Speak, tale.thinks("Yes?"))
        assert (spoken.generation, spoken.utterance) == (2, 2)

    def test_greets_and_is_interrupted(self):
        tale = Story(AGENT)
        tale.tell(Opened(1, greeting=1))
        tale.tell(PlayoutStarted(generation=1, utterance=1, synthesised_at=0, sent_at=0))
        orders = tale.starts()
        assert of(Void, orders)[0].generation == 2
        assert facts(CallerBargedIn, orders)

    @pytest.mark.parametrize("state", ["listening", "thinking", "speaking", "caller speaks"])
    def test_may_ask_for_an_end_at_any_time(self, state):
        tale = story()
        orders = []
        if state != "listening":
            tale.starts()
        if state in {"thinking", "speaking"}:
            tale.stops("hello")
        if state == "speaking":
            spoken = tale.thinks("One.")
        orders += tale.tell(WindUp(reason="exceeded-max-cost"))
        if state == "speaking":
            orders += tale.hears(*spoken)
        if state == "caller speaks":
            assert not of(Speak, orders)
            orders += tale.stops("hello")
        assert texts(orders) == ["Time is up."]
        assert not of(Think, orders)
        assert of(EndCall, tale.hears(*orders))[0].reason == "exceeded-max-cost"

    def test_may_ask_twice(self):
        tale = story()
        orders = tale.tell(WindUp(reason="x"))
        assert texts(tale.tell(WindUp(reason="x"))) == []
        assert of(EndCall, tale.hears(*orders))


def test_words_are_cut_where_the_voice_says_they_lie():
    tale = story()
    tale.caller_says("hello")
    (spoken,) = of(Speak, tale.thinks("Yes we are open."))
    ids = {"generation": spoken.generation, "utterance": spoken.utterance}
    tale.tell(PlayoutStarted(**ids, synthesised_at=0, sent_at=0))
    tale.tell(WordsTimed(epoch=1, **ids, points=((3, 900), (6, 950), (10, 1_000), (16, 1_600))))
    tale.starts()
    tale.tell(PlayoutCut(**ids, heard_ms=980, total_ms=1_600, complete=True))
    tale.stops("and")
    assert facts(AgentSpoke, tale.all)[-1].heard == "Yes we"


class TestNobodyIsLeftInSilence:
    def test_while_a_tool_runs_and_the_caller_coughs(self):
        tale = story()
        tale.caller_says("book it")
        wants_tool(tale, text="")
        tale.caller_says("")
        assert tale.machine.state == "thinking"
        assert due(tale) == pytest.approx(tale.now + 1.0)

    def test_while_keys_were_pressed_and_the_end_of_the_words_never_comes(self):
        tale = story()
        tale.starts()
        tale.tell(DigitPressed(digit="#", at=0))
        tale.tell(TimerFired("keys"))
        assert of(Think, tale.tell(TimerFired("silence")))

    def test_by_a_filler_that_is_lost(self):
        tale = story()
        tale.caller_says("tell me")
        tale.tell(TimerFired("filler"))
        assert due(tale) < tale.now + 5
        assert texts(tale.tell(TimerFired("filler"))) == ["Still here."]

    def test_nor_spoken_to_twice_at_once_when_a_filler_is_long(self):
        long = "One moment please, " * 10
        tale = Story(Agent(name="a", turns=TurnTaking(fillers=(long,), filler_again_ms=2_000)))
        tale.begin()
        tale.caller_says("tell me")
        (filler,) = of(Speak, tale.tell(TimerFired("filler")))
        begins(tale, filler)
        assert due(tale) > tale.now + len(long) / 14

    def test_when_they_speak_over_an_agent_that_does_not_give_way_and_it_ends(self):
        tale = Story(msgspec.structs.replace(AGENT, turns=msgspec.structs.replace(AGENT.turns, barge_in=False)))
        tale.begin()
        tale.hears(*of(Speak, tale.all))
        tale.caller_says("one")
        tale.starts()
        tale.tell(WindUp(reason="x"))
        assert texts(tale.stops("two")) == ["Time is up."]


class TestAFiller:
    def test_is_said_in_the_generation_of_the_answer(self):
        tale = story()
        tale.starts()
        stopped(tale)
        (filler,) = of(Speak, tale.tell(TimerFired("filler")))
        tale.stops("tell me")
        (answer,) = of(Speak, tale.thinks("Well."))
        assert (answer.generation, answer.filler_at) == (filler.generation, 0)
        assert answer.generation > of(Speak, tale.all)[0].generation

    def test_that_nobody_can_speak_takes_down_the_turn_it_is_said_in(self):
        tale = story()
        tale.caller_says("tell me")
        (filler,) = of(Speak, tale.tell(TimerFired("filler")))
        tale.thinks("Well. ")
        ids = {"generation": filler.generation, "utterance": filler.utterance}
        tale.tell(SpeakingFailed(epoch=1, **ids, instead="apology"))
        tale.tell(PlayoutFinished(**ids, heard_ms=900))
        assert tale.machine.state == "listening"
        spoke = facts(AgentSpoke, tale.all)[-1]
        assert (spoke.said, spoke.heard) == ("Well.", "")

    def test_is_not_due_as_soon_as_an_agent_that_did_not_give_way_falls_silent(self):
        tale = Story(msgspec.structs.replace(AGENT, turns=msgspec.structs.replace(AGENT.turns, barge_in=False)))
        spoken = tale.begin()
        tale.caller_says("fine")
        tale.now += 10
        tale.hears(*spoken)
        assert due(tale) == pytest.approx(tale.now + 1.0)


class TestASentenceInPieces:
    BEGUN = "This is the beginning of a sen"

    def begun(self):
        tale = story()
        tale.caller_says("tell me")
        (piece,) = of(Speak, tale.tell(ThoughtCame(tale.machine.thought, self.BEGUN)))
        assert piece.goes_on
        return tale, piece

    def test_is_one_utterance_and_is_remembered_whole(self):
        tale, piece = self.begun()
        (rest,) = of(Speak, tale.thinks("tence."))
        assert (rest.utterance, rest.text, rest.goes_on) == (piece.utterance, " sentence.", False)
        tale.hears(rest)
        assert facts(AgentSpoke, tale.all)[-1].heard == "This is the beginning of a sentence."

    def test_is_ended_when_the_answer_breaks_off(self):
        tale, piece = self.begun()
        end, apology = of(Speak, tale.thinks(failure="broke-off"))
        assert (end.utterance, end.text, end.goes_on) == (piece.utterance, "", False)
        assert apology.text == "Sorry?"

    def test_is_ended_when_the_call_is_to_end(self):
        tale, piece = self.begun()
        (end,) = of(Speak, tale.tell(WindUp(reason="x")))
        assert (end.utterance, end.text, end.goes_on) == (piece.utterance, "", False)

    def test_is_not_late_while_it_is_being_written(self):
        tale = story()
        tale.caller_says("tell me")
        first, _ = of(Speak, tale.tell(ThoughtCame(tale.machine.thought, f"First. {self.BEGUN}")))
        tale.hears(first)
        assert due(tale, "playout") is None
        assert due(tale, "thought") is not None

    def test_that_was_lost_with_one_before_it_is_said_again_and_goes_on(self):
        tale = story()
        tale.caller_says("tell me")
        none, first, _ = of(Speak, tale.tell(ThoughtCame(tale.machine.thought, f"None. First. {self.BEGUN}")))
        tale.hears(none)
        again = of(Speak, tale.tell(TimerFired("playout")))
        assert [(order.text, order.goes_on) for order in again] == [
            ("First.", False),
            ("This is the beginning of a", True),
        ]
        assert again[0].utterance > first.utterance
        (rest,) = of(Speak, tale.thinks("tence."))
        assert (rest.utterance, rest.text) == (again[1].utterance, " sentence.")
        tale.hears(again[0], rest)
        text = "None. First. This is the beginning of a sentence."
        assert tale.machine.history.messages()[-1] == AgentSaid(text=text, heard=text)

    def test_that_is_lost_again_is_given_up_with_the_rest_of_the_answer(self):
        tale = story()
        tale.caller_says("tell me")
        thought = tale.machine.thought
        none, *_ = of(Speak, tale.tell(ThoughtCame(thought, f"None. First. {self.BEGUN}")))
        tale.hears(none)
        tale.tell(TimerFired("playout"))
        orders = tale.tell(TimerFired("playout"))
        assert of(StopThinking, orders)
        assert not of(Speak, orders)
        assert tale.machine.state == "listening"
        assert not of(Speak, tale.tell(ThoughtCame(thought, "tence.")))

    def test_is_given_out_at_a_barge_in_as_far_as_it_was_heard(self):
        tale, piece = self.begun()
        ids = begins(tale, piece)
        tale.starts()
        tale.tell(PlayoutCut(**ids, heard_ms=400, total_ms=900, complete=False))
        think = of(Think, tale.stops("stop"))[0]
        assert think.messages[-2] == AgentSaid(text="This is the beginning of a", heard="This")


class TestFailedTurnsInARow:
    def test_are_counted_however_soon_the_caller_speaks_again(self):
        tale = story()
        for said in ("Sorry?", "Farewell."):
            tale.caller_says("hello")
            (spoken,) = of(Speak, tale.thinks(failure="nobody"))
            assert spoken.text == said
            begins(tale, spoken)

    def test_are_not_in_a_row_if_an_answer_between_them_was_heard_in_part(self):
        tale = story()
        tale.caller_says("hello")
        tale.hears(*tale.thinks(failure="nobody"))
        tale.caller_says("hello")
        begins(tale, of(Speak, tale.thinks("A long answer."))[0])
        tale.caller_says("hello")
        assert texts(tale.thinks(failure="nobody")) == ["Sorry?"]

    def test_are_counted_when_only_their_beginnings_are_heard(self):
        tale = story()
        for _ in range(2):
            tale.caller_says("hello")
            spoken = tale.thinks("It is open. And the pri", failure="broke-off")
            tale.hears(*spoken)
        assert texts(spoken)[-1] == "Farewell."
        assert of(EndCall, tale.all)

    def test_are_counted_when_a_voice_is_silent_without_a_word(self):
        tale = story()
        for _ in range(2):
            tale.caller_says("hello")
            begins(tale, of(Speak, tale.thinks("Hi. ", "You."))[0])
            assert texts(tale.tell(TimerFired("playout"))) == ["You."]
            orders = tale.tell(TimerFired("playout"))
        assert texts(orders) == ["Farewell."]

    def test_are_told_to_the_caller_even_if_the_end_of_the_turn_came_first(self):
        tale = story()
        tale.caller_says("hello")
        first, second = of(Speak, tale.thinks("One. ", "Two."))
        tale.hears(first)
        ids = {"generation": second.generation, "utterance": second.utterance}
        tale.tell(PlayoutFinished(**ids, heard_ms=0))
        assert tale.machine.state == "listening"
        apology = tale.tell(SpeakingFailed(epoch=1, **ids))
        assert texts(apology) == ["Sorry?"]
        tale.hears(*apology)
        tale.caller_says("hello")
        first, second = of(Speak, tale.thinks("One. ", "Two."))
        tale.hears(first)
        ids = {"generation": second.generation, "utterance": second.utterance}
        tale.tell(PlayoutFinished(**ids, heard_ms=0))
        assert texts(tale.tell(SpeakingFailed(epoch=1, **ids))) == ["Farewell."]


def test_what_tts_was_given_after_it_gave_up_is_void():
    tale = story()
    tale.caller_says("hello")
    first, second = of(Speak, tale.thinks("One. ", "Two."))
    ids = {"generation": first.generation, "utterance": first.utterance}
    tale.tell(SpeakingFailed(epoch=1, **ids, instead="apology"))
    orders = tale.tell(PlayoutFinished(**ids, heard_ms=900))
    assert of(Void, orders)[0].generation > second.generation


def test_a_tool_that_answers_after_its_turn_has_failed_is_remembered_and_no_model_asked():
    tale = story()
    tale.caller_says("book it")
    (spoken,) = of(Speak, wants_tool(tale))
    ids = {"generation": spoken.generation, "utterance": spoken.utterance}
    tale.tell(SpeakingFailed(epoch=1, **ids, instead="apology"))
    assert not of(Think, tale.tell(ToolDone(tool_call="t1", name="check", took_ms=1, result="{}")))
    tale.tell(PlayoutFinished(**ids, heard_ms=900))
    assert tale.machine.state == "listening"


def test_a_greeting_the_edge_is_saying_is_given_its_time_and_not_said_again():
    greeting = "Hello and welcome to the restaurant at the end of the line. What can I do for you tonight?"
    tale = Story(msgspec.structs.replace(AGENT, greeting=greeting))
    tale.tell(Opened(1, greeting=1))  # its beginning was told before anybody listened
    assert due(tale, "playout") > tale.now + len(greeting) / 14
    tale.tell(TimerFired("playout"))
    assert not of(Speak, tale.all)
    assert tale.machine.state == "listening"


def test_a_last_sentence_that_was_cut_is_not_said_twice_in_full():
    tale = story()
    (last,) = of(Speak, tale.tell(WindUp(reason="x")))
    ids = begins(tale, last)
    tale.starts()
    tale.tell(PlayoutCut(**ids, heard_ms=10, total_ms=900, complete=True))
    (again,) = of(Speak, tale.stops("but"))
    assert of(EndCall, tale.hears(again))[0].reason == "x"


def begins(tale, spoken):
    ids = {"generation": spoken.generation, "utterance": spoken.utterance}
    tale.tell(PlayoutStarted(**ids, synthesised_at=tale.now, sent_at=tale.now))
    return ids
