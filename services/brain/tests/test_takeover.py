"""The brain of a call dies, or its voice, at every moment of it; another goes on, and nothing is lost or said twice."""

import pytest

from services.brain.tests.world import AGENT, ANSWERS, World
from trunkline.brain.moves import Opened, Speak, TookOver, Void
from trunkline.brain.takeover import take_in
from trunkline.brain.utterance import Utterance
from trunkline.proto.events import CallerSpoke
from trunkline.proto.messages import FinalTranscript, Recap, SpeechStarted, TurnEnded, Uttered

pytestmark = pytest.mark.unit

WHOLE = World().run()
SEEDS = range(2)


def every_death(seed, **kinds):
    """Yield the same call as often as it has moments, each time alive until another one."""
    moments = World(seed, **kinds).run().steps
    for died_at in range(1, moments):
        world = World(seed, **kinds).run(until=died_at)
        if world.ends:
            return
        yield died_at, world


def check(world, where):
    assert world.words == WHOLE.words, where
    check_but_words(world, where)


def check_but_words(world, where):
    assert world.ends[0] == "assistant-ended-call", where
    assert sorted({fact.turn for fact in world.of(CallerSpoke) if fact.text}) == [1, 2, 4], where
    assert [name for name, _ in world.runs].count("book") == 1, where
    assert {key for _, key in world.runs} == {"check-1", "book-1"}, where


def test_a_call_without_any_mishap():
    assert WHOLE.ends == ["assistant-ended-call"]
    said = " ".join(text.replace(" [END_CALL]", "") for text, _ in ANSWERS.values())
    assert " ".join(WHOLE.words) == f"Hello. How can I help? {said}"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("lag", [0, 1, 2, 10])
def test_nothing_is_lost_or_said_twice_wherever_the_brain_dies(seed, lag):
    for died_at, world in every_death(seed):
        check(world.die(lag).run(), f"died at {died_at}")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("apart", [1, 4])
def test_nothing_is_lost_when_one_brain_after_the_other_dies(seed, apart):
    for died_at, world in every_death(seed):
        world.die()
        world.run(until=world.steps + apart)
        if not world.ends:
            world.die()
        check(world.run(), f"died at {died_at}")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("line", ["moved", "lost"])
@pytest.mark.parametrize("recap", [True, False])
def test_what_was_not_heard_on_the_old_line_is_said_on_the_new_one(seed, line, recap):
    for died_at, world in every_death(seed):
        before = len(world.said)
        world.die(line=line, recap=recap).run()
        check(world, f"died at {died_at}")
        told = [one.text for one in world.said[before:]].count(AGENT.resumed)
        assert told == (line == "lost"), f"died at {died_at}"


def is_part_of(some, whole):
    rest = iter(whole)
    return all(word in rest for word in some)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("reached_ms", [0, 700, 1500])
def test_no_word_is_said_twice_wherever_the_voice_dies(seed, reached_ms):
    for died_at, world in every_death(seed):
        world.voice_dies(reached_ms)
        world.run()
        where = f"died at {died_at}"
        assert is_part_of(world.words, WHOLE.words), where
        assert len(WHOLE.words) - len(world.words) <= (3 if reached_ms else 0), where
        assert world.remembered == WHOLE.words, where
        check_but_words(world, where)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("reached_ms", [0, 700])
def test_no_word_is_said_twice_when_brain_and_voice_die_together(seed, reached_ms):
    for died_at, world in every_death(seed):
        world.voice_dies(reached_ms, told=False)
        cuts = list(world.edge)
        world.die()
        world.edge += cuts
        world.run()
        where = f"died at {died_at}"
        assert is_part_of(world.words, WHOLE.words), where
        assert len(WHOLE.words) - len(world.words) <= (3 if reached_ms else 0), where
        check_but_words(world, where)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("lag", [0, 4])
def test_a_caller_who_interrupts_is_served_wherever_the_brain_dies(seed, lag):
    for barge_in in (20, 60):
        for died_at, world in every_death(seed, barge_in_at=(barge_in,)):
            world.die(lag).run()
            where = f"interrupted at {barge_in}, died at {died_at}"
            assert world.ends[0] == "assistant-ended-call", where
            whole = [one.text for one in world.said if one.fate == "finished"]
            assert len(whole) == len(set(whole)), where
            assert [name for name, _ in world.runs].count("book") <= 1, where
            for one in world.said:
                assert one.fate in {"finished", "cut"}, where


def test_without_snapshot_nothing_is_greeted_again_and_no_tool_runs_twice():
    for seed in SEEDS:
        for died_at, world in every_death(seed):
            ran = [name for name, _ in world.runs].count("book")
            greeted = any(one.fate == "finished" for one in world.said)
            world.die(snapshot=False).run()
            where = f"died at {died_at}"
            assert world.ends, where
            assert [one.text for one in world.said].count(AGENT.greeting) == 1, (where, greeted)
            if ran and world.machine.turn <= 2:
                assert [name for name, _ in world.runs].count("book") == ran, where


# --- moments --------------------------------------------------------------------------------------------------------


def took_over(**kinds):
    world = World()
    world.said.clear()
    world.machine = type(world.machine)(AGENT, 1000.0)
    return world, world.machine.handle(TookOver(generation=3, **kinds), 1000.0)


def said(orders):
    return [order.text for order in orders if isinstance(order, Speak)]


def test_a_call_of_which_nobody_has_said_a_word_is_greeted():
    assert said(took_over(recap=Recap())[1]) == [AGENT.greeting]
    assert said(took_over()[1]) == [AGENT.greeting]


def test_a_call_that_was_moved_and_of_which_nothing_is_known_is_listened_to():
    world, orders = took_over(line="moved")
    assert not said(orders)
    assert world.machine.state == "listening"
    assert set(world.machine.due) >= {"silence", "duration"}


def test_a_caller_who_is_back_is_told_even_when_nothing_else_is_known():
    assert said(took_over(line="lost")[1]) == [AGENT.resumed]


def test_a_call_is_wound_up_when_the_edge_said_so_while_nobody_listened():
    assert said(took_over(recap=Recap(winding_up="exceeded-max-cost", said=(GREETED,)))[1]) == [AGENT.spent]


GREETED = Uttered(generation=3, utterance=1, text=AGENT.greeting, fate="finished", heard_ms=900, queued_ms=900)


def test_words_that_nobody_was_there_to_hear_are_answered():
    ids = {"epoch": 1, "utterance": 100}
    speech = (
        SpeechStarted(**ids, onset_at=1.0),
        FinalTranscript(**ids, text="table", committed=1, onset_at=1.0, offset_at=2.0),
        TurnEnded(**ids, speech_ended_at=2.0, endpoint_at=2.0, final_at=2.0),
    )
    world, _ = took_over(recap=Recap(speech=speech, said=(GREETED,)))
    assert world.machine.state == "thinking"
    assert world.machine.turn == 1


def test_a_barge_in_that_nobody_was_there_to_hear_silences_the_agent():
    world = World()
    while "it is then" not in (world.said[-1].text if world.said else ""):
        world.step()
    world.speech.append(SpeechStarted(epoch=1, utterance=900, onset_at=world.now))
    world.caller = []
    floor = world.floor
    world.die()
    assert world.floor > floor
    assert world.machine.state == "listening"


def test_an_interrupt_the_edge_knows_of_is_not_repeated():
    world = World(barge_in_at=(20,))
    while world.floor < 3:
        world.step()
    before = world.floor
    assert world.machine.state == "listening"
    world.die(lag=1)
    assert world.floor == before


def test_opened_is_as_ever():
    world = World()
    orders = type(world.machine)(AGENT, 1000.0).handle(Opened(0), 1000.0)
    assert said(orders) == [AGENT.greeting]
    assert not [order for order in orders if isinstance(order, Void)]


@pytest.mark.parametrize(
    ("kept", "seen", "wanted"),
    [
        (("The table is", True), ("The table", True), ("The table is", True)),
        (("The table is booked.", False), ("The table is", True), ("The table is booked.", False)),
        (("The table", True), ("The table is booked.", False), ("The table is booked.", False)),
        (("The table.", False), ("The table.", True), ("The table.", False)),
        (("The table.", True), ("The table.", False), ("The table.", False)),
        (("The table.", False), ("", False), ("The table.", False)),
    ],
)
def test_of_snapshot_and_recap_the_one_that_has_more_of_a_sentence_counts(kept, seen, wanted):
    utterance = Utterance(id=1, text=kept[0], said_at=0.0, open=kept[1])
    take_in(utterance, Uttered(generation=1, utterance=1, text=seen[0], open=seen[1]))
    assert (utterance.text, utterance.open) == wanted
