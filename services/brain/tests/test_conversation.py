"""The conversation as stories: what happened, what was ordered."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.brain.conversation import Conversation
from trunkline.brain.llm import AgentSaid, CallerSaid, SystemNote, ToolAnswered, ToolAsked, ToolCall
from trunkline.brain.moves import (
    ArmTimer,
    Emit,
    EndCall,
    Ignore,
    Opened,
    Order,
    RunTool,
    Speak,
    StopThinking,
    Think,
    ThoughtCame,
    ThoughtEnded,
    TimerFired,
    Told,
    ToolDone,
    ToolWanted,
    Void,
)
from trunkline.proto.agent import Agent, Limits, TurnTaking
from trunkline.proto.events import AgentSpoke, CallerBargedIn, CallerSpoke, ToolReturned, TurnMeasured
from trunkline.proto.messages import (
    DigitPressed,
    FinalTranscript,
    PlayoutCut,
    PlayoutFinished,
    PlayoutStarted,
    SpeechStarted,
    TurnEnded,
)

pytestmark = pytest.mark.unit

AGENT = Agent(name="test", greeting="Hello. How can I help?", apology="Sorry?")


class Story:
    """Tells a conversation what happens, a tenth of a second apart, and keeps what it orders."""

    def __init__(self, agent: Agent = AGENT) -> None:
        self.now = 1000.0
        self.seq = 0
        self.machine = Conversation(agent, self.now)
        self.all: list[Order] = []

    def tell(self, event: Told) -> list[Order]:
        self.now += 0.1
        if isinstance(event, TimerFired):
            self.now = max(self.now, self.machine.due.get(event.timer, self.now))
        orders = self.machine.handle(event, self.now)
        self.all += orders
        return orders

    def begin(self) -> list[Order]:
        return self.tell(Opened(0))

    def starts(self) -> list[Order]:
        self.seq += 100
        return self.tell(SpeechStarted(epoch=1, utterance=self.seq, onset_at=self.now))

    def stops(self, text: str = "") -> list[Order]:
        if text:
            self.tell(
                FinalTranscript(
                    epoch=1, utterance=self.seq, text=text, committed=self.seq, onset_at=self.now, offset_at=self.now
                )
            )
        at = self.now
        return self.tell(
            TurnEnded(epoch=1, utterance=self.seq, speech_ended_at=at, endpoint_at=at + 0.05, final_at=at + 0.06)
        )

    def caller_says(self, text: str) -> list[Order]:
        self.starts()
        return self.stops(text)

    def thinks(self, *texts: str, failure: str = "") -> list[Order]:
        thought = self.machine.thought
        orders = []
        for text in texts:
            orders += self.tell(ThoughtCame(thought, text))
        return orders + self.tell(ThoughtEnded(thought, failure))

    def hears(self, *spoken: Order) -> list[Order]:
        orders = []
        for order in of(Speak, spoken):
            ids = {"generation": order.generation, "utterance": order.utterance}
            orders += self.tell(PlayoutStarted(**ids, synthesised_at=self.now, sent_at=self.now))
            orders += self.tell(PlayoutFinished(**ids, heard_ms=1000))
        return orders

    def greeted(self) -> "Story":
        self.hears(*self.begin())
        return self


def of(kind, orders):
    return [order for order in orders if isinstance(order, kind)]


def facts(kind, orders):
    return [order.fact for order in of(Emit, orders) if isinstance(order.fact, kind)]


def texts(orders):
    return [order.text for order in of(Speak, orders)]


def test_the_greeting_is_said_whole_as_its_clip_is_kept():
    assert texts(Story().begin()) == ["Hello. How can I help?"]


def test_after_the_greeting_was_heard_the_caller_has_the_floor():
    story = Story()
    orders = story.hears(*story.begin())
    assert story.machine.state == "listening"
    assert facts(AgentSpoke, orders)[0].heard == "Hello. How can I help?"


def test_the_callers_words_are_what_the_model_is_asked():
    story = Story().greeted()
    think = of(Think, story.caller_says("a table for two"))[0]
    assert think.messages == (
        AgentSaid(text="Hello. How can I help?", heard="Hello. How can I help?"),
        CallerSaid(text="a table for two"),
    )
    assert facts(CallerSpoke, story.all)[0].text == "a table for two"


def test_a_sentence_is_said_before_the_answer_is_complete():
    story = Story().greeted()
    story.caller_says("hello")
    orders = story.tell(ThoughtCame(story.machine.thought, "Certainly. For which d"))
    assert texts(orders) == ["Certainly."]


def test_every_agent_turn_has_a_higher_generation():
    story = Story().greeted()
    seen = {order.generation for order in of(Speak, story.all)}
    for words in ("one", "two"):
        story.caller_says(words)
        spoken = story.thinks("Yes.")
        assert min(o.generation for o in of(Speak, spoken)) > max(seen)
        seen |= {o.generation for o in of(Speak, spoken)}
        story.hears(*spoken)


def test_barge_in_voids_what_is_being_said_and_stops_the_model():
    story = Story().greeted()
    story.caller_says("tell me all")
    spoken = story.thinks("A long story begins here.", " And goes on.")
    first = of(Speak, spoken)[0]
    story.tell(PlayoutStarted(generation=first.generation, utterance=first.utterance, synthesised_at=0, sent_at=0))
    orders = story.starts()
    assert of(Void, orders)[0].generation > first.generation
    assert of(StopThinking, orders)
    assert facts(CallerBargedIn, orders)


def test_the_model_is_shown_only_what_was_heard():
    story = Story().greeted()
    story.caller_says("tell me all")
    first, *_ = of(Speak, story.thinks("One two three four five six seven eight.", " Never heard."))
    ids = {"generation": first.generation, "utterance": first.utterance}
    story.tell(PlayoutStarted(**ids, synthesised_at=0, sent_at=0))
    story.starts()
    story.tell(PlayoutCut(**ids, heard_ms=1000, total_ms=2000, complete=True))
    think = of(Think, story.stops("stop"))[0]
    said = [m for m in think.messages if isinstance(m, AgentSaid)][-1]
    assert said == AgentSaid(text="One two three four five six seven eight. Never heard.", heard="One two three four")
    spoke = facts(AgentSpoke, story.all)[-1]
    assert spoke.interrupted
    assert spoke.heard == "One two three four"


def test_a_noise_that_stopped_the_agent_lets_it_go_on_where_it_was_cut():
    story = Story().greeted()
    story.caller_says("tell me all")
    spoken = of(Speak, story.thinks("First sentence here.", " Second one. Third one."))
    story.hears(spoken[0])
    ids = {"generation": spoken[1].generation, "utterance": spoken[1].utterance}
    story.tell(PlayoutStarted(**ids, synthesised_at=0, sent_at=0))
    story.starts()
    story.tell(PlayoutCut(**ids, heard_ms=10, total_ms=2000, complete=True))
    orders = story.stops()
    assert texts(orders) == ["Second one.", "Third one."]
    assert of(Speak, orders)[0].generation > spoken[1].generation


def test_a_caller_who_goes_on_before_anything_was_heard_has_said_one_turn():
    story = Story().greeted()
    story.caller_says("a table for two")
    story.starts()
    think = of(Think, story.stops("on friday"))[0]
    assert think.messages[-1] == CallerSaid(text="a table for two on friday")
    assert think.turn == 1
    assert [f.turn for f in facts(CallerSpoke, story.all)] == [1, 1]


def test_of_an_answer_that_is_taken_back_nothing_is_remembered():
    story = Story().greeted()
    story.caller_says("a table for two")
    story.thinks("For which day?")
    story.starts()
    think = of(Think, story.stops("on friday"))[0]
    assert [message.text for message in think.messages] == ["Hello. How can I help?", "a table for two on friday"]
    assert [fact.said for fact in facts(AgentSpoke, story.all)] == ["Hello. How can I help?"]


def test_words_that_come_after_the_next_utterance_began_wait_for_it():
    story = Story().greeted()
    story.tell(SpeechStarted(epoch=1, utterance=1, onset_at=0))
    story.tell(SpeechStarted(epoch=1, utterance=50, onset_at=0))
    said = {"epoch": 1, "committed": 0, "onset_at": 0, "offset_at": 0}
    over = {"epoch": 1, "speech_ended_at": 0, "endpoint_at": 0, "final_at": 0}
    story.tell(FinalTranscript(**said, utterance=1, text="a table"))
    assert not of(Think, story.tell(TurnEnded(**over, utterance=1)))
    story.tell(FinalTranscript(**said, utterance=50, text="for two"))
    think = of(Think, story.tell(TurnEnded(**over, utterance=50)))[0]
    assert think.messages[-1] == CallerSaid(text="a table for two")


def test_a_cough_while_the_model_thinks_does_not_lose_the_question():
    story = Story().greeted()
    story.caller_says("a table for two")
    story.starts()
    think = of(Think, story.stops())[0]
    assert think.messages[-1] == CallerSaid(text="a table for two")


def test_the_call_ends_only_when_the_goodbye_was_heard():
    story = Story().greeted()
    story.caller_says("thanks bye")
    spoken = story.thinks("Goodbye. [END_", "CALL]")
    assert texts(spoken) == ["Goodbye."]
    assert not of(EndCall, story.all)
    orders = story.hears(*spoken)
    assert of(EndCall, orders)[0].reason == "assistant-ended-call"
    assert story.machine.state == "over"


def test_a_barge_in_on_the_goodbye_keeps_the_call():
    story = Story().greeted()
    story.caller_says("thanks bye")
    goodbye = of(Speak, story.thinks("Goodbye. [END_CALL]"))[0]
    ids = {"generation": goodbye.generation, "utterance": goodbye.utterance}
    story.tell(PlayoutStarted(**ids, synthesised_at=0, sent_at=0))
    story.starts()
    story.tell(PlayoutCut(**ids, heard_ms=100, total_ms=900, complete=True))
    orders = story.stops("wait one more thing")
    assert of(Think, orders)
    assert not of(EndCall, story.all)


def test_a_goodbye_without_words_ends_the_call_at_once():
    story = Story().greeted()
    story.caller_says("bye")
    assert of(EndCall, story.thinks("[END_CALL]"))


def test_an_empty_answer_is_not_silence():
    story = Story().greeted()
    story.caller_says("hello")
    assert texts(story.thinks()) == ["Sorry?"]


def test_a_failed_answer_is_an_apology():
    story = Story().greeted()
    story.caller_says("hello")
    assert texts(story.thinks(failure="nobody")) == ["Sorry?"]


def wants_tool(story: Story, text: str = "One moment.") -> list[Order]:
    thought = story.machine.thought
    orders = story.tell(ThoughtCame(thought, text)) if text else []
    orders += story.tell(ToolWanted(thought, ToolCall(id="t1", name="check", arguments="{}")))
    return orders + story.tell(ThoughtEnded(thought))


def test_a_tool_runs_and_its_answer_goes_back_to_the_model():
    story = Story().greeted()
    story.caller_says("is it free")
    orders = wants_tool(story)
    assert of(RunTool, orders)[0].name == "check"
    think = of(Think, story.tell(ToolDone(tool_call="t1", name="check", took_ms=5, result='{"free":true}')))[0]
    assert think.messages[-3:] == (
        AgentSaid(text="One moment.", heard="One moment."),
        ToolAsked(tool_call="t1", name="check", arguments="{}"),
        ToolAnswered(tool_call="t1", name="check", result='{"free":true}'),
    )


def test_the_turn_is_not_over_while_a_tool_runs():
    story = Story().greeted()
    story.caller_says("is it free")
    spoken = wants_tool(story)
    story.hears(*spoken)
    assert story.machine.state == "speaking"
    story.tell(ToolDone(tool_call="t1", name="check", took_ms=5, result="{}"))
    story.hears(*story.thinks("It is free."))
    assert story.machine.state == "listening"
    assert facts(AgentSpoke, story.all)[-1].said == "One moment. It is free."


def test_a_barge_in_never_stops_a_tool_and_no_model_is_asked_until_it_has_answered():
    story = Story().greeted()
    story.caller_says("book it")
    spoken = wants_tool(story)
    story.tell(PlayoutStarted(generation=of(Speak, spoken)[0].generation, utterance=3, synthesised_at=0, sent_at=0))
    story.starts()
    assert not of(Think, story.stops("hurry up"))
    think = of(Think, story.tell(ToolDone(tool_call="t1", name="check", took_ms=5, result="{}")))[0]
    kinds = [type(m) for m in think.messages[-3:]]
    assert kinds == [ToolAsked, ToolAnswered, CallerSaid]
    assert facts(ToolReturned, story.all)


def test_a_model_that_only_wants_tools_is_stopped_at_the_limit():
    agent = Agent(name="test", apology="Sorry?", limits=Limits(max_tool_calls_per_turn=1))
    story = Story(agent)
    story.begin()
    story.caller_says("loop")
    wants_tool(story, text="")
    think = of(Think, story.tell(ToolDone(tool_call="t1", name="check", took_ms=5, result="{}")))[0]
    assert not think.tools


def test_the_times_of_a_turn_sum_to_its_latency():
    story = Story().greeted()
    story.caller_says("hello")
    spoken = of(Speak, story.thinks("Hi", " there."))
    orders = story.tell(
        PlayoutStarted(
            generation=spoken[0].generation,
            utterance=spoken[0].utterance,
            synthesised_at=story.now + 0.2,
            sent_at=story.now + 0.3,
        )
    )
    measured = facts(TurnMeasured, orders)[0]
    parts = (
        measured.endpoint_delay_ms
        + measured.stt_final_ms
        + measured.llm_ttft_ms
        + measured.first_sentence_ms
        + measured.tts_ttfb_ms
        + measured.edge_ms
    )
    assert parts == pytest.approx(measured.turn_latency_ms, abs=0.1)


def test_silence_is_broken_twice_and_then_ends_the_call():
    agent = Agent(name="test", turns=TurnTaking(reprompt="Hello?", max_reprompts=2, silence_goodbye="Bye."))
    story = Story(agent)
    assert [o.timer for o in of(ArmTimer, story.begin())] == ["duration", "silence"]
    for said in ("Hello?", "Hello?", "Bye."):
        spoken = story.tell(TimerFired("silence"))
        assert texts(spoken) == [said]
        story.hears(*spoken)
    assert of(EndCall, story.all)[0].reason == "silence-timed-out"


def test_an_utterance_whose_end_never_comes_does_not_hold_the_call():
    story = Story().greeted()
    story.starts()
    assert Ignore("utterance-never-ended") in story.tell(TimerFired("silence"))
    assert texts(story.tell(TimerFired("silence"))) == [AGENT.turns.reprompt]


def test_a_new_stt_worker_tells_again_of_what_is_being_said():
    story = Story().greeted()
    story.tell(SpeechStarted(epoch=1, utterance=7, onset_at=0))
    story.tell(SpeechStarted(epoch=2, utterance=7, onset_at=0))
    over = {"epoch": 2, "utterance": 7}
    story.tell(FinalTranscript(**over, text="hello", committed=0, onset_at=0, offset_at=0))
    think = of(Think, story.tell(TurnEnded(**over, speech_ended_at=0, endpoint_at=0, final_at=0)))[0]
    assert think.messages[-1] == CallerSaid(text="hello")
    assert facts(CallerSpoke, story.all)[0].utterances == (7,)


def test_words_begin_the_count_of_reprompts_anew():
    story = Story().greeted()
    story.hears(*story.tell(TimerFired("silence")))
    story.caller_says("here i am")
    story.hears(*story.thinks("Good."))
    assert texts(story.tell(TimerFired("silence"))) == [AGENT.turns.reprompt]


def test_the_longest_duration_ends_the_call():
    story = Story().greeted()
    assert of(EndCall, story.tell(TimerFired("duration")))[0].reason == "exceeded-max-duration"


def started(story: Story, order: Speak) -> None:
    ids = {"generation": order.generation, "utterance": order.utterance}
    story.tell(PlayoutStarted(**ids, synthesised_at=0, sent_at=story.now))


def test_missing_marks_do_not_hold_the_call():
    story = Story()
    for order in of(Speak, story.begin()):
        started(story, order)
    orders = story.tell(TimerFired("playout"))
    assert Ignore("playout-overdue") in orders
    assert of(Void, orders)
    assert story.machine.state == "listening"
    assert facts(AgentSpoke, orders)[0].heard == "Hello. How can I help?"


def test_sentences_that_never_began_to_play_are_said_once_more_and_then_given_up():
    story = Story().greeted()
    story.caller_says("hello")
    first, second = of(Speak, story.thinks("Hello. ", "How can I help?"))
    story.hears(first)
    orders = story.tell(TimerFired("playout"))
    assert texts(orders) == ["How can I help?"]
    assert of(Speak, orders)[0].generation >= of(Void, orders)[0].generation > second.generation
    story.tell(TimerFired("playout"))
    assert story.machine.state == "listening"
    assert facts(AgentSpoke, story.all)[-1].heard == ""


def test_a_long_sentence_of_figures_is_given_its_time():
    text = "Your code is 4711 0815 4242, the price is 1,234.56 and the date is 2026-11-21. "
    story = Story(Agent(name="test", greeting=text * 2))
    spoken = of(Speak, story.begin())
    for order in spoken:
        started(story, order)
    timer = [order for order in of(ArmTimer, story.all) if order.timer == "playout"][-1]
    assert timer.at - story.now > 40


def test_a_noise_before_the_greeting_is_heard_does_not_lose_it():
    story = Story()
    story.begin()
    story.starts()
    assert texts(story.stops()) == ["Hello. How can I help?"]


def test_a_noise_before_a_reprompt_is_heard_takes_nothing_back():
    story = Story().greeted()
    story.caller_says("a table for two")
    story.hears(*story.thinks("For which day?"))
    story.tell(TimerFired("silence"))
    story.starts()
    think = of(Think, story.stops("friday"))[0]
    said = [m.text if isinstance(m, CallerSaid) else m.heard for m in think.messages]
    assert said == ["Hello. How can I help?", "a table for two", "For which day?", "friday"]


def test_a_second_cough_takes_nothing_back_that_was_heard():
    story = Story().greeted()
    story.caller_says("tell me all")
    spoken = of(Speak, story.thinks("First sentence here.", " Second one. Third one."))
    story.hears(spoken[0])
    started(story, spoken[1])
    story.starts()
    story.tell(cut_of(spoken[1]))
    story.stops()
    story.starts()
    assert texts(story.stops()) == ["Second one.", "Third one."]
    assert story.machine.history.messages()[-1].heard.startswith("First sentence here.")


def test_a_model_that_stalls_is_apologised_for():
    story = Story().greeted()
    story.caller_says("hello")
    orders = story.tell(TimerFired("thought"))
    assert of(StopThinking, orders)
    assert texts(orders) == ["Sorry?"]


def test_a_failure_after_a_tool_is_apologised_for_too():
    story = Story().greeted()
    story.caller_says("is it free")
    wants_tool(story)
    story.tell(ToolDone(tool_call="t1", name="check", took_ms=5, error="broken"))
    assert texts(story.thinks(failure="timeout")) == ["Sorry?"]


def test_the_order_to_hang_up_is_repeated_until_the_call_is_gone():
    story = Story().greeted()
    story.caller_says("bye")
    story.thinks("[END_CALL]")
    assert of(EndCall, story.tell(TimerFired("hang-up"))) == of(EndCall, story.tell(TimerFired("hang-up")))


def test_a_model_that_counts_its_tool_calls_from_nought_confuses_nobody():
    story = Story().greeted()
    for _ in range(2):
        story.caller_says("is it free")
        ran = of(RunTool, wants_tool(story, text=""))[-1]
        think = of(Think, story.tell(ToolDone(tool_call=ran.tool_call, name="check", took_ms=5, result="{}")))[0]
        assert isinstance(think.messages[-2], ToolAsked)
        assert think.messages[-1] == ToolAnswered(tool_call=ran.tool_call, name="check", result="{}")
        story.hears(*story.thinks("Yes."))


def test_keys_count_as_an_answer():
    agent = Agent(name="test", turns=TurnTaking(max_reprompts=1))
    story = Story(agent)
    story.begin()
    for _ in range(3):
        story.hears(*story.tell(TimerFired("silence")))
        story.tell(DigitPressed(digit="1", at=0))
        story.tell(TimerFired("keys"))
        story.hears(*story.thinks("Good."))
    assert not of(EndCall, story.all)


def test_keys_pressed_while_speaking_are_answered_with_the_words():
    story = Story().greeted()
    story.starts()
    story.tell(DigitPressed(digit="1", at=0))
    assert not of(Think, story.tell(TimerFired("keys")))
    think = of(Think, story.stops("and this"))[0]
    assert think.messages[-2:] == (SystemNote(text="The caller pressed the keys 1"), CallerSaid(text="and this"))


def test_a_timer_that_was_moved_but_had_fired_already_is_ignored():
    story = Story().greeted()
    story.starts()
    assert story.machine.handle(TimerFired("silence"), story.now) == [Ignore("stale-timer")]


def test_a_sentence_that_was_lost_on_its_way_does_not_hold_the_call():
    story = Story().greeted()
    story.caller_says("hello")
    first, second = of(Speak, story.thinks("Hello. ", "How can I help?"))
    story.hears(first)
    ids = {"generation": second.generation, "utterance": second.utterance}
    story.tell(PlayoutCut(**ids, heard_ms=0, total_ms=300, complete=False))
    assert story.machine.state == "listening"
    assert facts(AgentSpoke, story.all)[-1].heard == "Hello."


def test_an_agent_that_does_not_give_way_answers_afterwards():
    agent = Agent(name="test", greeting="Hello. How are you?", turns=TurnTaking(barge_in=False))
    story = Story(agent)
    spoken = story.begin()
    story.starts()
    assert not of(Void, story.all)
    assert not of(Think, story.stops("fine"))
    think = of(Think, story.hears(*spoken))[0]
    assert think.messages[-1] == CallerSaid(text="fine")


def test_keys_are_one_entry_until_a_pause_or_a_hash():
    story = Story().greeted()
    story.tell(DigitPressed(digit="1", at=0))
    story.tell(DigitPressed(digit="2", at=0))
    story.tell(DigitPressed(digit="#", at=0))
    think = of(Think, story.tell(TimerFired("keys")))[0]
    assert think.messages[-1] == SystemNote(text="The caller pressed the keys 12#")


def test_speech_of_a_past_stt_worker_is_ignored():
    story = Story().greeted()
    story.tell(SpeechStarted(epoch=2, utterance=1, onset_at=0))
    assert story.starts() == [Ignore("stale-stt-epoch")]


def test_an_answer_to_a_past_question_is_ignored():
    story = Story().greeted()
    story.caller_says("one")
    old = story.machine.thought
    story.starts()
    story.stops("two")
    assert story.tell(ThoughtCame(old, "Old answer.")) == [Ignore("stale-thought")]


def test_a_new_brain_begins_above_the_generations_already_used():
    story = Story()
    orders = story.tell(Opened(7))
    assert {o.generation for o in of(Speak, orders)} == {8}


HAPPEN = {
    "starts": lambda story, _: story.starts(),
    "stops": lambda story, _: story.stops(),
    "words": lambda story, _: story.stops("some words"),
    "thinks": lambda story, text: story.thinks(text),
    "tool": lambda story, _: wants_tool(story, text=""),
    "tool-done": lambda story, _: story.tell(ToolDone(tool_call="t1", name="check", took_ms=1, result="{}")),
    "hears": lambda story, _: story.hears(*of(Speak, story.all)[-1:]),
    "cut": lambda story, _: [story.tell(cut_of(order)) for order in of(Speak, story.all)[-1:]],
    "key": lambda story, _: story.tell(DigitPressed(digit="1", at=story.now)),
    "silence": lambda story, _: story.tell(TimerFired("silence")),
    "playout": lambda story, _: story.tell(TimerFired("playout")),
}


def cut_of(order: Speak) -> PlayoutCut:
    ids = {"generation": order.generation, "utterance": order.utterance}
    return PlayoutCut(**ids, heard_ms=10, total_ms=100, complete=True)


happenings = st.lists(st.tuples(st.sampled_from(sorted(HAPPEN)), st.sampled_from(("", "Yes. No.", "Bye. [END_CALL]"))))


@given(happenings)
@settings(max_examples=300)
def test_whatever_happens_generations_rise_and_tools_are_answered_once(events):
    story = Story()
    story.begin()
    for name, text in events:
        before = len(story.all)
        HAPPEN[name](story, text)
        voided = max((void.generation for void in of(Void, story.all[:before])), default=0)
        assert all(spoken.generation >= voided for spoken in of(Speak, story.all[before:]))
        if story.machine.state == "over":
            break
    said = [spoken.utterance for spoken in of(Speak, story.all)]
    assert said == sorted(set(said))
    assert len(of(EndCall, story.all)) <= 1
    assert len(facts(ToolReturned, story.all)) <= len(of(RunTool, story.all))
