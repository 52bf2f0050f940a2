"""What the edge can tell a brain that takes over: the newest of a call, once, and no half for a whole."""

import pytest

from trunkline.edge.story import SENTENCES, UTTERANCES, Story
from trunkline.proto.messages import (
    FinalTranscript,
    PartialTranscript,
    PlayoutCut,
    PlayoutFinished,
    PlayoutStarted,
    Reached,
    Say,
    SpeechStarted,
    TurnEnded,
)

pytestmark = pytest.mark.unit


def say(text, *, utterance=1, generation=1, goes_on=False, at=0, voice=0):
    return Say(epoch=1, generation=generation, utterance=utterance, text=text, goes_on=goes_on, at=at, voice=voice)


def recap(story, reached=()):
    return story.recap(reached, "")


def told(story):
    return [(known.utterance, known.text, known.open) for known in recap(story).said]


def test_pieces_make_a_sentence_that_is_open_until_the_last():
    story = Story()
    story.ordered(say("The table", goes_on=True), heeded=True)
    assert told(story) == [(1, "The table", True)]
    story.ordered(say(" is booked.", at=9), heeded=True)
    assert told(story) == [(1, "The table is booked.", False)]


def test_a_piece_whose_beginning_went_by_is_not_taken_for_the_sentence():
    story = Story()
    story.ordered(say(" is booked.", at=9), heeded=True)
    assert told(story) == []
    story.ordered(say("Anything else?", utterance=2), heeded=True)
    assert told(story) == [(2, "Anything else?", False)]


def test_what_the_voice_of_now_was_not_meant_to_say_is_lost():
    story = Story()
    story.ordered(say("Hello.", voice=1), heeded=False)
    assert recap(story).said[0].lost


def test_what_became_of_a_sentence_is_told_with_it():
    story = Story()
    for utterance in (1, 2, 3):
        story.ordered(say("Hello.", utterance=utterance), heeded=True)
    times = {"generation": 1, "synthesised_at": 0.0, "sent_at": 0.0}
    story.played(PlayoutStarted(utterance=1, **times))
    story.played(PlayoutFinished(generation=1, utterance=1, heard_ms=400))
    story.played(PlayoutStarted(utterance=2, **times))
    story.played(PlayoutCut(generation=1, utterance=2, heard_ms=100, total_ms=400, complete=True))
    reached = (Reached(generation=1, utterance=3, queued_ms=250, complete=False),)
    fates = [(known.fate, known.heard_ms, known.queued_ms) for known in recap(story, reached).said]
    assert fates == [("finished", 400, 400), ("cut", 100, 400), ("playing", 0, 250)]


def test_when_the_voice_is_lost_what_it_had_not_said_will_not_come():
    story = Story()
    story.ordered(say("One.", utterance=1), heeded=True)
    story.played(PlayoutFinished(generation=1, utterance=1, heard_ms=400))
    story.ordered(say("Two", utterance=2, goes_on=True), heeded=True)
    story.voice_lost()
    assert [(known.lost, known.open) for known in recap(story).said] == [(False, False), (True, False)]


def test_what_stt_tells_again_is_no_news_and_partial_words_are_not_kept():
    story = Story()
    begun = SpeechStarted(epoch=1, utterance=7, onset_at=1.0)
    final = FinalTranscript(epoch=1, utterance=7, text="hello", committed=9, onset_at=1.0, offset_at=1.5)
    assert story.heard(begun)
    assert not story.heard(begun)
    assert not story.heard(PartialTranscript(epoch=1, utterance=7, text="hel"))
    assert story.heard(final)
    assert not story.heard(final)
    assert story.caller_speaks
    story.heard(TurnEnded(epoch=1, utterance=7, speech_ended_at=1.5, endpoint_at=1.9, final_at=2.0))
    assert not story.caller_speaks
    assert [message.utterance for message in recap(story).speech] == [7, 7, 7]


def test_it_keeps_the_newest_only():
    story = Story()
    for number in range(SENTENCES + 5):
        story.ordered(say(str(number), utterance=number), heeded=True)
    for number in range(UTTERANCES + 5):
        story.heard(SpeechStarted(epoch=1, utterance=number, onset_at=1.0))
    assert [known.utterance for known in recap(story).said] == list(range(5, SENTENCES + 5))
    assert [message.utterance for message in recap(story).speech] == list(range(5, UTTERANCES + 5))
