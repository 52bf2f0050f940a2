"""A caller under load, by the clock of the test."""

import base64
import json

import pytest

from trunkline.bench.talk import FRAME_S, Caller, speech_of
from trunkline.testing.twilio import FRAME_BYTES, StreamIds

pytestmark = pytest.mark.unit

WORDS = bytes(range(200)) * 4
HISS = [b"\x7f" * FRAME_BYTES]
SPEECH = speech_of(WORDS, HISS)


class Call:
    """A caller and the time."""

    def __init__(self, interrupt_every=0):
        self.caller = Caller(StreamIds("AC1", "CA1", "MZ1"), SPEECH, interrupt_every, 0)
        self.now = 100.0
        self.sent = []

    def wait(self, seconds):
        for _ in range(round(seconds / FRAME_S)):
            self.now += FRAME_S
            self.sent += map(json.loads, self.caller.tick(self.now))

    def say(self, seconds):
        payload = base64.b64encode(bytes(round(8_000 * seconds))).decode()
        self.take(event="media", media={"payload": payload})

    def end_sentence(self, name="m1"):
        self.take(event="mark", mark={"name": name})

    def take(self, **message):
        text = json.dumps({"streamSid": "MZ1", **message}).encode()
        self.sent += map(json.loads, self.caller.receive(text, self.now))

    def spoken(self):
        payloads = [m["media"]["payload"].encode() for m in self.sent if m["event"] == "media"]
        return sum(payload in SPEECH.words for payload in payloads)

    def marks(self):
        return [m["mark"]["name"] for m in self.sent if m["event"] == "mark"]


def greeted(**kinds):
    call = Call(**kinds)
    call.wait(0.2)
    call.say(0.5)
    call.end_sentence("greeting")
    call.wait(0.9)
    return call


def test_speaks_when_the_greeting_is_over_and_numbers_what_it_sends():
    call = Call()
    call.wait(1.0)
    assert call.spoken() == 0
    call.say(0.5)
    call.end_sentence("greeting")
    call.wait(0.7)
    assert call.spoken() == 0
    call.wait(0.2)
    assert call.spoken() == len(SPEECH.words) == 5
    assert call.marks() == ["greeting"]
    numbers = [int(message["sequenceNumber"]) for message in call.sent]
    assert numbers == list(range(2, 2 + len(numbers)))
    media = [message["media"] for message in call.sent if message["event"] == "media"]
    assert [int(one["chunk"]) for one in media] == list(range(1, len(media) + 1))
    assert (
        b"".join(base64.b64decode(one["payload"]) for one in media if one["payload"].encode() in SPEECH.words) == WORDS
    )


def test_measures_from_the_end_of_its_words_to_the_first_audio():
    call = greeted()
    while call.spoken() < len(SPEECH.words):
        call.wait(FRAME_S)
    call.wait(0.3)
    call.say(2.0)
    ((at, response_ms),) = call.caller.seen.responses
    assert at == call.now
    assert response_ms == pytest.approx(280, abs=1)
    call.say(1.0)
    assert len(call.caller.seen.responses) == 1


def test_interrupts_every_so_many_answers_and_measures_until_all_is_void():
    call = greeted(interrupt_every=1)
    call.wait(0.3)
    call.say(2.0)
    spoken = call.spoken()
    call.wait(0.6)
    assert call.spoken() == spoken
    call.wait(0.06)
    assert call.spoken() > spoken
    call.end_sentence("void")
    call.take(event="clear")
    assert call.marks()[-1] == "void"
    ((_, clear_ms),) = call.caller.seen.interrupts
    assert 20 <= clear_ms <= 60


def test_notes_the_silence_within_a_sentence_and_none_between_two():
    call = Call()
    call.say(0.1)
    call.wait(0.16)
    call.say(0.1)
    assert [round(ms) for _, ms in call.caller.seen.gaps] == [60]
    call.end_sentence()
    call.wait(0.2)
    call.say(0.1)
    assert len(call.caller.seen.gaps) == 1


def test_asks_again_when_nobody_answers():
    call = greeted()
    call.wait(8.5)
    assert call.caller.seen.unanswered == 1
    assert call.spoken() == 2 * len(SPEECH.words)
