"""What the terminal tells of a call."""

import io

import pytest
from rich.console import Console

from trunkline.call import Seen
from trunkline.demo.live import Stage
from trunkline.demo.scene import Scene
from trunkline.demo.summary import print_complaints, print_summary
from trunkline.demo.words import brief, divided
from trunkline.proto.events import CallEnded, CallerSpoke, Event, ToolCalled, ToolReturned, kind_of
from trunkline.proto.messages import Interrupt, PartialTranscript, PlayoutCut, PlayoutStarted, Say

pytestmark = pytest.mark.unit


def story(at_s, message):
    return Seen(at_s, "bus", "story", "", message)


def event(at_s, fact):
    return Seen(at_s, "bus", "event", kind_of(fact), Event(id="e", call="c", wall_at=at_s, fact=fact))


def say(utterance, text, at_s=1.0):
    started = PlayoutStarted(generation=1, utterance=utterance, synthesised_at=0.0, sent_at=0.0)
    return [
        story(at_s, Say(epoch=1, generation=1, utterance=utterance, text=text)),
        story(at_s, started),
    ]


def tell(*seen):
    scene = Scene()
    return scene, [line for one in seen for line in scene.take(one)]


class TestScenes:
    def test_a_sentence_is_told_when_it_was_heard(self):
        mark = Seen(3.0, "line", "mark-returned", "1.1")
        _, lines = tell(*say(1, "Hello."), mark)
        assert [(line.who, line.text, line.unheard) for line in lines] == [("agent", "Hello.", "")]

    def test_marks_that_a_clear_returned_tell_nothing(self):
        seen = [*say(1, "Hello."), Seen(2.0, "line", "clear"), Seen(2.0, "line", "mark-returned", "1.1")]
        assert tell(*seen)[1] == []

    def test_a_sentence_that_was_cut_is_told_with_what_was_not_heard(self):
        cut = PlayoutCut(generation=1, utterance=1, heard_ms=500, total_ms=1_000, complete=True)
        interrupt = Interrupt(epoch=1, generation=2, reason="barge-in")
        _, lines = tell(*say(1, "one two three four"), Seen(2.0, "line", "clear"), story(2.0, interrupt), story(2, cut))
        assert [line.who for line in lines] == ["barge-in", "agent"]
        assert (lines[1].text, lines[1].unheard) == ("one two", "three four")

    def test_the_callers_words_grow_and_then_stand(self):
        scene, lines = tell(
            Seen(1.0, "caller", "speech-started", "a table"),
            story(1.5, PartialTranscript(epoch=1, utterance=9, text="a")),
        )
        assert (scene.caller_speaks, scene.words, lines) == (True, "a", [])
        (line,) = scene.take(
            event(2.0, CallerSpoke(turn=1, utterances=(9,), text="a table", onset_at=1.0, offset_at=1.9))
        )
        assert (line.who, line.text, scene.words) == ("caller", "a table", "")

    def test_the_agents_words_appear_as_they_are_spoken(self):
        scene, _ = tell(Seen(1.0, "agent", "speech-started"), *say(1, "Good evening, how can I help?"))
        assert scene.agent_words(1.2) == "Goo"
        assert scene.agent_words(60.0) == "Good evening, how can I help?"

    def test_a_tool_is_told_in_one_line(self):
        _, (line,) = tell(
            event(1.0, ToolCalled(turn=1, tool_call="t", name="check", arguments='{"day": "friday", "party": 2}')),
            event(1.0, ToolReturned(turn=1, tool_call="t", name="check", took_ms=3.0, result='{"free": true}')),
        )
        assert line.text == "check(friday, 2) → free  (3 ms)"

    def test_the_end_is_told(self):
        scene, (line,) = tell(event(9.0, CallEnded(reason="agent-hung-up", duration_s=9.0)))
        assert scene.over
        assert "agent-hung-up" in line.text


class TestWords:
    def test_text_is_divided_between_words(self):
        assert divided("one two three", 0, 100) == ("", "one two three")
        assert divided("one two three", 60, 100) == ("one two", "three")
        assert divided("one two three", 100, 100) == ("one two three", "")

    def test_json_in_brief_leaves_out_what_is_empty(self):
        assert brief({"free": True, "why": "", "at": ["six", 7]}) == "free, six, 7"
        assert brief({"free": False}) == "not free"
        assert brief(None) == "null"


class TestTerminals:
    def stage(self, *, terminal):
        out = io.StringIO()
        return Stage(Console(file=out, force_terminal=terminal, width=100), lambda: 5.0), out

    @pytest.mark.parametrize("terminal", [True, False])
    def test_a_call_is_told_with_and_without_a_terminal(self, terminal):
        stage, out = self.stage(terminal=terminal)
        with stage.busy("starting"), stage.call(Scene()) as show:
            for seen in (*say(1, "Hello."), Seen(3.0, "line", "mark-returned", "1.1")):
                show(seen)
        assert "Hello." in out.getvalue()
        assert "starting" in out.getvalue()
        assert ("\x1b" in out.getvalue()) is terminal

    def test_the_summary_shows_turns_verdicts_and_files(self, call, tmp_path):
        out = io.StringIO()
        print_summary(Console(file=out, width=200), call[0], tmp_path)
        for words in ("i would like to book", "716 ms", "barge-in", "all 1 expectations held", "call.wav", "listen"):
            assert words in out.getvalue()

    def test_what_the_services_complained_of_is_shown(self, tmp_path):
        log = tmp_path / "services.log"
        log.write_text("stt    │ 02:41:39.350 warning bus.worker  claim refused\nstt    │ 02:41:39.360 info  well\n")
        out = io.StringIO()
        print_complaints(Console(file=out, width=200), log)
        assert "claim refused" in out.getvalue()
        assert "well" not in out.getvalue()
        print_complaints(Console(file=out), tmp_path / "none.log")
