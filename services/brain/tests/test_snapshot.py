"""What is kept of a conversation: whole, readable by the next, and bounded."""

import pytest

from services.brain.tests.world import World
from trunkline.brain.conversation import Conversation
from trunkline.brain.heard import rest_begins
from trunkline.brain.llm import AgentSaid, CallerSaid, ToolAnswered, ToolAsked
from trunkline.brain.moves import TookOver
from trunkline.brain.rest import hint, rest_of
from trunkline.brain.snapshot import Kept, Running, Snapshot, decode, encode
from trunkline.proto.agent import Agent

pytestmark = pytest.mark.unit


def test_what_is_kept_reads_back_as_it_was_at_every_moment_of_a_call():
    world = World()
    while world.step():
        kept = Kept(epoch=3, snapshot=world.machine.snapshot())
        assert decode(encode(kept)) == kept


def test_a_conversation_that_took_over_would_keep_the_same():
    world = World().run(until=20)
    while not world.machine.at_rest:
        world.step()
    kept = world.machine.snapshot()
    other = Conversation(Agent(name="test"), 0.0)
    other.handle(TookOver(generation=kept.mouth.generation, snapshot=kept), 2000.0)
    assert other.snapshot() == kept


def test_a_long_history_loses_its_beginning_but_no_question_without_its_answer():
    history = []
    for n in range(50):
        asked = {"tool_call": f"t{n}", "name": "look"}
        history += [CallerSaid(text="x" * 100), ToolAsked(**asked, arguments="{}"), ToolAnswered(**asked, result="{}")]
    for most_bytes in range(2_000, 12_000, 700):
        data = encode(Kept(epoch=1, snapshot=Snapshot(history=tuple(history))), most_bytes)
        assert len(data) <= most_bytes
        left = decode(data).snapshot.history
        assert left == tuple(history[-len(left) :])
        assert not isinstance(left[0], ToolAnswered)


def test_a_tool_that_runs_is_never_cut_off():
    history = (ToolAsked(tool_call="t0", name="look", arguments="{}"), *(CallerSaid(text="x" * 100) for _ in range(50)))
    kept = Snapshot(history=history, running=(Running("t0", 1),))
    assert decode(encode(Kept(epoch=1, snapshot=kept), 2_000)).snapshot.history == history


@pytest.mark.parametrize(
    ("spoken_ms", "points", "left"),
    [
        (0, (), "one two three four"),
        (1, (), "two three four"),
        (250, (), "three four"),
        (5_000, (), ""),
        (400, ((3, 300), (7, 600)), "three four"),
        (600, ((3, 300), (7, 600)), "three four"),
        (300, ((3, 300), (7, 600)), "two three four"),
        (900, ((0, 900), (3, 1200)), "one two three four"),
        (1000, ((0, 900), (3, 1200)), "two three four"),
    ],
)
def test_the_rest_begins_with_the_first_word_that_cannot_have_been_heard(spoken_ms, points, left):
    text = "one two three four"
    assert text[rest_begins(text, spoken_ms, points) :] == left


@pytest.mark.parametrize(
    ("answer", "heard", "left"),
    [
        ("One two. Three.", "", "One two. Three."),
        ("One two. Three.", "One two.", " Three."),
        ("One, two. Three.", "one", " two. Three."),
        ("One two. [END_CALL]", "One two.", " [END_CALL]"),
        ("One two.[END_CALL]", "One two.", "[END_CALL]"),
        ("[END_CALL] One two.", "One", "[END_CALL] two."),
        ("One two.", "Two", "One two."),
        ("Ones two.", "One", "Ones two."),
        ("One two.", "One two. Three", "One two."),
    ],
)
def test_the_rest_of_an_answer_is_what_was_not_said(answer, heard, left):
    assert rest_of(answer, heard) == left


def test_a_model_is_told_to_go_on_only_where_its_own_words_are_the_last():
    assert hint((CallerSaid(text="hello"),)) is None
    assert hint((CallerSaid(text="hello"), AgentSaid(text="Good day.", heard=""))) is None
    note = hint((CallerSaid(text="hello"), AgentSaid(text="Good day to you.", heard="Good day")))
    assert '"Good day"' in note.text
