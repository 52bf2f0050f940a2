"""The picture: laid out by arithmetic, drawn from a made-up report."""

import struct

import msgspec
import numpy as np
import pytest
from matplotlib.image import imread

from trunkline.demo import layout, timeline
from trunkline.demo.canvas import SCALE, WIDTH_PX, Type, width_of, wrapped
from trunkline.demo.layout import LEFT_PX, RIGHT_PX, rows_of
from trunkline.demo.marks import bar_scale, pauses_of, split_at_cut, tool_labels
from trunkline.demo.report import Sentence

pytestmark = pytest.mark.unit
KIND = Type(size_px=11.5)


class TestLayout:
    def test_a_short_call_is_one_row(self):
        (row,) = rows_of(4_000, [])
        assert row.x(0) == LEFT_PX
        assert row.x(4_000) < RIGHT_PX

    def test_a_long_call_is_cut_into_rows_of_one_scale(self):
        rows = rows_of(45_000, [])
        assert len(rows) == 3
        assert len({row.px_per_ms for row in rows}) == 1
        assert [row.begin_ms for row in rows[1:]] == [row.end_ms for row in rows[:-1]]
        assert rows[-1].end_ms == 45_000

    def test_rows_are_cut_where_nobody_speaks(self):
        assert rows_of(30_000, [2_000.0, 16_100.0])[1].begin_ms == 16_100

    def test_a_pause_far_from_the_middle_is_no_place_to_cut(self):
        assert rows_of(30_000, [2_000.0])[1].begin_ms == 15_000

    def test_a_moment_is_in_exactly_one_row(self):
        rows = rows_of(45_000, [])
        for at_ms in (0, 14_999, 15_000, 29_999, 44_999):
            assert sum(row.holds(at_ms) for row in rows) == 1

    def test_a_stretch_is_shared_between_rows(self):
        first, second = rows_of(30_000, [])
        assert first.part(14_000, 16_000) == (14_000, 15_000)
        assert second.part(14_000, 16_000) == (15_000, 16_000)
        assert second.part(1, 2) is None

    def test_the_page_is_as_high_as_its_rows(self):
        assert layout.page_height(3) - layout.page_height(2) == layout.ROW_PX


class TestType:
    def test_width_grows_with_text_and_size(self):
        assert width_of("hello", KIND) < width_of("hello there", KIND) < width_of("hello there", Type(size_px=20))

    def test_spaces_at_the_end_have_a_width(self):
        assert width_of("a ", KIND) > width_of("a", KIND)

    def test_text_is_wrapped_and_if_need_be_cut(self):
        text = "we are open from six until eleven and the kitchen closes at ten"
        lines = wrapped(text, 140, KIND, 3)
        assert " ".join(lines) == text
        assert len(lines) == 3
        assert wrapped(text, 40, KIND, 2)[-1].endswith("…")


class TestMarks:
    def test_pauses_are_found_between_the_parties(self, call):
        report, _, _ = call
        pauses = pauses_of(report)
        for pause in pauses:
            for turn in report.turns:
                caller = turn.caller
                assert caller is None or not caller.onset_ms < pause < caller.offset_ms

    def test_a_cut_sentence_is_divided_by_time(self):
        sentence = Sentence(
            utterance=1, generation=1, text="one two three four", starts_ms=0, ends_ms=1_000, unheard_ms=1_000
        )
        assert split_at_cut(sentence) == ("one two", "three four")

    def test_a_tool_call_is_one_short_line(self, call):
        labels = tool_labels(call[0].tools[0])
        assert labels[0] == "check_availability(friday, 19:30, 2) → free"
        assert [len(label) for label in labels] == sorted((len(label) for label in labels), reverse=True)

    def test_latency_bars_do_not_touch(self, call):
        report = call[0]
        rows = rows_of(report.recording.duration_ms, pauses_of(report))
        usual = bar_scale(rows, report)
        slow = msgspec.structs.replace(
            report,
            turns=tuple(
                turn
                if turn.latency is None
                else msgspec.structs.replace(turn, latency=msgspec.structs.replace(turn.latency, stt_final_ms=4_000.0))
                for turn in report.turns
            ),
        )
        assert bar_scale(rows, slow) < usual


def png_size(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


class TestDrawing:
    def test_a_call_becomes_a_picture_of_the_right_size_with_something_on_it(self, call, tmp_path):
        path = tmp_path / "timeline.png"
        timeline.write(path, *call)
        rows = rows_of(call[0].recording.duration_ms, pauses_of(call[0]))
        assert png_size(path) == (WIDTH_PX * SCALE, layout.page_height(len(rows)) * SCALE)
        pixels = imread(path)
        assert len(np.unique(pixels[::7, ::7].reshape(-1, pixels.shape[2]), axis=0)) > 50

    def test_a_call_without_words_is_drawn_too(self, call, tmp_path):
        report, left, right = call
        silent = msgspec.structs.replace(report, turns=(), interrupts=(), tools=())
        timeline.write(tmp_path / "silent.png", silent, np.zeros_like(left), np.zeros_like(right))
        assert png_size(tmp_path / "silent.png")[0] == WIDTH_PX * SCALE

    def test_a_call_that_ended_at_once_is_drawn_too(self, call, tmp_path):
        report, left, right = call
        recording = msgspec.structs.replace(report.recording, duration_ms=20)
        short = msgspec.structs.replace(report, turns=(), interrupts=(), tools=(), recording=recording)
        timeline.write(tmp_path / "short.png", short, left[:160], right[:160])
        assert (tmp_path / "short.png").stat().st_size > 1_000
