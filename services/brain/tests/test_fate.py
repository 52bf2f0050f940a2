"""Whatever happens to a call: nothing is said twice, or out of its turn, and nobody waits for ever."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.brain.tests.test_conversation import Story, of
from services.brain.tests.test_failures import AGENT, failed_turn, stopped
from trunkline.brain.llm import ToolCall
from trunkline.brain.moves import (
    EndCall,
    Opened,
    Speak,
    Think,
    ThoughtCame,
    ThoughtEnded,
    TimerFired,
    ToolDone,
    ToolWanted,
    Void,
)
from trunkline.proto.messages import (
    DigitPressed,
    PlayoutCut,
    PlayoutFinished,
    PlayoutStarted,
    SpeakingFailed,
    WindUp,
    WordsTimed,
)

pytestmark = pytest.mark.unit


class Fate:
    """What a random story is made of: whatever may happen to a call, in any order, with late and repeated messages."""

    def __init__(self, agent, *, greeted_by_edge):
        self.tale = Story(agent)
        self.tale.tell(Opened(1, greeting=1) if greeted_by_edge else Opened(0))
        self.sentences = 0
        self.tools = 0
        self.heard = set()

    def step(self, name, which):
        self.caller(name, which)
        self.model(name, self.tale.machine.thought - which % 7 // 6, which)  # now and then it is an old thought
        self.voice(name, which)

    def caller(self, name, which):
        tale = self.tale
        match name:
            case "starts":
                tale.starts()
            case "stopped":
                stopped(tale)
            case "stops":
                tale.stops("words")
            case "asks":
                tale.caller_says("words")
            case "empty":
                tale.stops()
            case "failed":
                failed_turn(tale)
            case "key":
                tale.tell(DigitPressed(digit="1#"[which % 2], at=tale.now))
            case "wind up":
                tale.tell(WindUp(reason="exceeded-max-cost"))
            case "time" if due := tale.machine.due:  # the next timer, whichever
                tale.tell(TimerFired(min(due, key=due.__getitem__)))

    def model(self, name, thought, which):
        tale = self.tale
        match name:
            case "came":
                tale.tell(ThoughtCame(thought, f"words and then some more of them, {which} "))
            case "sentence":
                self.sentences += 1
                tale.tell(ThoughtCame(thought, f"to be short here is sentence number {self.sentences}. "))
            case "ended" | "broke-off" | "nobody":
                tale.tell(ThoughtEnded(thought, "" if name == "ended" else name))
            case "bye":
                tale.tell(ThoughtCame(thought, "[END_CALL]"))
            case "wants":
                self.tools += 1
                tale.tell(ToolWanted(thought, ToolCall(id=f"t{self.tools}", name="t", arguments="{}")))
            case "sends for":
                self.model("wants", thought, which)
                self.model("ended", thought, which)
            case "done":
                for tool_call in tale.machine.running[:1]:
                    tale.tell(ToolDone(tool_call=tool_call, name="t", took_ms=1, result="{}"))

    def voice(self, name, which):
        tale = self.tale
        if name == "plays":
            for spoken in [order for order in of(Speak, tale.all) if not order.goes_on]:
                if spoken.generation == tale.machine.generation and which % 3:
                    self.plays("hears", spoken)
        said = [order for order in of(Speak, tale.all) if not order.goes_on]
        if said:
            self.plays(name, said[-1 - which % len(said)])

    def plays(self, name, spoken):
        tale = self.tale
        ids = {"generation": spoken.generation, "utterance": spoken.utterance}
        match name:
            case "begins":
                tale.tell(PlayoutStarted(**ids, synthesised_at=tale.now, sent_at=tale.now))
            case "hears":
                if spoken.generation == tale.machine.generation:
                    self.heard.add(spoken.utterance)
                tale.tell(PlayoutStarted(**ids, synthesised_at=tale.now, sent_at=tale.now))
                tale.tell(PlayoutFinished(**ids, heard_ms=900))
            case "soundless":
                tale.tell(PlayoutFinished(**ids, heard_ms=0))
            case "cut":
                tale.tell(PlayoutCut(**ids, heard_ms=100, total_ms=900, complete=False))
            case "timed":
                tale.tell(WordsTimed(epoch=1, **ids, points=((3, 200), (9, 700))))
            case "unspoken" | "apologised":
                tale.tell(SpeakingFailed(epoch=1, **ids, instead="apology" if name == "apologised" else ""))


EVENTS = [
    *("starts", "stopped", "stops", "empty", "failed", "came", "sentence", "ended", "broke-off", "nobody", "bye"),
    *("wants", "done", "begins", "hears", "soundless", "cut", "timed", "unspoken", "apologised", "key", "time"),
]
STEPS = st.one_of(
    st.sampled_from(EVENTS),
    st.sampled_from(["asks", "sends for", "plays", "came", "sentence", "ended", "done", "time", "time"]),
)


@settings(max_examples=400)
@given(
    st.lists(st.tuples(STEPS, st.integers(0, 20)), max_size=50),
    st.booleans(),
    st.booleans(),
    st.one_of(st.none(), st.integers(0, 50)),
)
def test_whatever_fails_nothing_is_said_twice_and_nobody_waits_for_ever(steps, barge_in, greeted_by_edge, winds_up_at):
    turns = msgspec.structs.replace(AGENT.turns, barge_in=barge_in)
    fate = Fate(msgspec.structs.replace(AGENT, turns=turns), greeted_by_edge=greeted_by_edge)
    tale, machine = fate.tale, fate.tale.machine
    for number, (name, which) in enumerate(steps):
        before, generation, over = len(tale.all), machine.generation, machine.state == "over"
        running = machine.running
        fate.step("wind up" if number == winds_up_at else name, which)
        now = tale.all[before:]
        assert machine.generation >= generation
        assert all(generation <= order.generation <= machine.generation for order in of(Speak, now))
        if over:
            assert not of(Speak, now) + of(Think, now)
            assert machine.state == "over"
        if set(running) & set(machine.running):
            assert not of(Think, now)
        assert_somebody_acts(machine, tale.now)
    assert_sentences_are_whole(tale.all)
    assert_nothing_heard_is_repeated(tale.all, fate.heard)
    assert len(of(EndCall, tale.all)) <= 1 or machine.state == "over"


def assert_somebody_acts(machine, now):
    waits_for = {
        "listening": {"silence", "keys"},
        "thinking": {"thought"},
        "speaking": {"playout", "thought"},
        "over": {"hang-up"},
    }[machine.state]
    assert waits_for & machine.due.keys() or (machine.running and machine.state in {"thinking", "speaking"})
    if machine.state == "thinking":
        assert machine.due["filler"] - now < LONGEST_QUIET_S


LONGEST_QUIET_S = 5.0
"""A filler that may be lost is waited for so long; it is longer than both gaps."""


def assert_sentences_are_whole(orders):
    """No piece comes after a sentence's last; none begins in the midst of another, unless that is void."""
    open_now, ended, generations = None, set(), {}
    for order in orders:
        match order:
            case Void():
                open_now = None
            case Speak():
                assert order.utterance not in ended
                assert generations.setdefault(order.utterance, order.generation) == order.generation
                assert open_now in {None, (order.generation, order.utterance)}
                open_now = (order.generation, order.utterance) if order.goes_on else None
                if not order.goes_on:
                    ended.add(order.utterance)


def assert_nothing_heard_is_repeated(orders, heard):
    pieces = {}
    for order in of(Speak, orders):
        pieces.setdefault(order.utterance, []).append(order.text)
    said = {utterance: "".join(texts) for utterance, texts in pieces.items()}
    for text in {text for text in said.values() if "number" in text}:
        times = [utterance for utterance, known in said.items() if known == text]
        was_heard = [utterance for utterance in times if utterance in heard]
        assert was_heard in ([], times[-1:])
