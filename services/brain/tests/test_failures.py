"""When hearing, thinking or speaking fails: nobody listens to a dead line, and nothing is said twice."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.brain.tests.test_conversation import Story, facts, of, texts
from trunkline.brain.answer import Answer
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
from trunkline.brain.sentences import SentenceSplitter
from trunkline.proto.agent import Agent, TurnTaking
from trunkline.proto.events import AgentSpoke, CallerBargedIn
from trunkline.proto.messages import (
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
    return tale.machine._due.get(timer)


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
        thought = tale.machine._thought
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
        thought = tale.machine._thought
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


TEXT = st.text(alphabet="abc D.,!? \n5[E", max_size=400)


@settings(max_examples=300)
@given(TEXT, st.lists(st.integers(1, 60), min_size=1, max_size=30))
def test_pieces_put_together_are_the_sentences_a_whole_answer_would_have_been_cut_into(text, sizes):
    answer, out, at, n = Answer(), [], 0, 0
    while at < len(text):
        out += answer.read(text[at : at + sizes[n % len(sizes)]])
        at, n = at + sizes[n % len(sizes)], n + 1
    out += answer.end()
    sentences, open_sentence = [], ""
    for said in out:
        open_sentence += said.text
        if not said.goes_on:
            sentences.append(open_sentence)
            open_sentence = ""
    assert open_sentence == ""
    whole = SentenceSplitter()
    assert sentences == [*whole.feed(text), *whole.flush()]


STEPS = st.sampled_from(
    [
        "starts",
        "stopped",
        "stops",
        "empty",
        "failed",
        "came",
        "sentence",
        "ended",
        "broke",
        "nobody",
        "tool",
        "done",
        "hears",
        "lost",
        "filler",
        "thought",
        "silence",
        "playout",
        "wind",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=60))
def test_whatever_fails_no_answer_is_said_twice_and_nobody_waits_for_ever(steps):
    tale = Story(AGENT)
    tale.begin()
    said, asked = 0, 0
    for step in steps:
        machine = tale.machine
        thought = machine._thought
        before = len(tale.all)
        match step:
            case "starts":
                tale.starts()
            case "stopped":
                stopped(tale)
            case "stops":
                tale.stops("words")
            case "empty":
                tale.stops()
            case "failed":
                failed_turn(tale)
            case "came":
                tale.tell(ThoughtCame(thought, "some words and some more "))
            case "sentence":
                said += 1
                tale.tell(ThoughtCame(thought, f"sentence number {said}. "))
            case "ended" | "broke" | "nobody":
                failure = {"ended": "", "broke": "broke-off", "nobody": "nobody"}[step]
                tale.tell(ThoughtEnded(thought, failure))
            case "tool":
                asked += 1
                tale.tell(ToolWanted(thought, ToolCall(id=f"t{asked}", name="t", arguments="{}")))
            case "done":
                for tool_call in sorted(machine._running):
                    tale.tell(ToolDone(tool_call=tool_call, name="t", took_ms=1, result="{}"))
            case "hears":
                tale.hears(*of(Speak, tale.all)[-1:])
            case "lost":
                for spoken in of(Speak, tale.all)[-1:]:
                    tale.tell(SpeakingFailed(epoch=1, generation=spoken.generation, utterance=spoken.utterance))
            case "wind":
                tale.tell(WindUp(reason="x"))
            case _:
                tale.tell(TimerFired(step))
        for spoken in of(Speak, tale.all[before:]):
            assert spoken.generation == machine.generation
        waits = {"thinking": {"thought", "filler"}, "speaking": {"playout", "thought", "filler"}}.get(machine.state)
        if waits is not None and not machine._running:
            assert waits & machine._due.keys(), (machine.state, machine._due)
    numbered = [order.text for order in of(Speak, tale.all) if order.text.startswith("sentence number")]
    again = [text for text in set(numbered) if numbered.count(text) > 2]
    assert not again
