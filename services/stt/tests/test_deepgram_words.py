"""Whose words are whose."""

import pytest

from trunkline.proto.ids import UtteranceId
from trunkline.stt.provider import Final, Partial, Word
from trunkline.stt.providers.deepgram_words import Piece, Span, Timed, Words

pytestmark = pytest.mark.unit

FIRST, SECOND = UtteranceId(1), UtteranceId(2)


def piece(text: str, *starts_s: float) -> Piece:
    words = tuple(Timed(word, at, at + 0.2) for word, at in zip(text.split(), starts_s, strict=True))
    return Piece(text, starts_s[0], starts_s[-1] + 0.2, 0.9, words)


def always(_: Span) -> bool:
    return True


def two() -> Words:
    words = Words()
    words.begin(FIRST, 1.0)
    words.finish(3.0)
    words.begin(SECOND, 4.0)
    words.finish(6.0)
    return words


def test_the_end_of_an_utterance_divides_what_is_told_in_one_piece() -> None:
    words = two()
    words.heard(piece("yes please thank you", 0.9, 1.4, 4.1, 4.5), final=True)
    first, second = words.settle(always)
    assert first == Final(FIRST, "yes please", 0.9, (Word("yes", 0, 100), Word("please", 400, 600)))
    assert second == Final(SECOND, "thank you", 0.9, (Word("thank", 100, 300), Word("you", 500, 700)))


def test_an_interim_result_is_replaced_and_final_ones_are_joined() -> None:
    words = Words()
    words.begin(FIRST, 1.0)
    assert words.heard(piece("a cable", 1.0, 1.3), final=False) == Partial(FIRST, "a cable")
    assert words.heard(piece("a table", 1.0, 1.3), final=True) == Partial(FIRST, "a table")
    assert words.heard(piece("for two", 1.7, 2.0), final=False) == Partial(FIRST, "a table for two")
    words.finish(3.0)
    [final] = words.settle(always)
    assert final.text == "a table for two"


def test_words_told_before_the_onset_is_noticed_are_the_next_utterance_s_unless_they_are_old() -> None:
    words = Words()
    assert words.heard(piece("um", 1.0), final=True) is None
    assert words.heard(piece("hello", 4.6), final=True) is None
    words.begin(FIRST, 5.0)
    assert words.heard(piece("there", 5.1), final=True) == Partial(FIRST, "hello there")


def test_words_of_an_utterance_that_was_given_up_are_nobody_s() -> None:
    words = two()
    words.give_up(FIRST)
    assert words.heard(piece("yes", 1.2), final=True) is None
    assert words.heard(piece("thanks", 4.2), final=True) == Partial(SECOND, "thanks")
    assert [final.text for final in words.settle(always)] == ["thanks"]


def test_a_later_utterance_that_is_sure_settles_the_earlier_ones() -> None:
    words = two()
    told = words.settle(lambda span: span.utterance == SECOND)
    assert [final.utterance for final in told] == [FIRST, SECOND]
    assert words.awaited is None


def test_an_utterance_that_goes_on_is_not_settled() -> None:
    words = Words()
    words.begin(FIRST, 1.0)
    assert words.settle(always) == []
    assert words.unfinished == FIRST


def test_audio_that_is_not_sent_moves_what_lies_behind_it() -> None:
    words = two()
    words.cut(2.0, 1.5)
    words.heard(piece("yes", 1.2), final=True)
    words.heard(piece("thanks", 2.7), final=True)
    assert [final.text for final in words.settle(always)] == ["yes", "thanks"]


def test_times_that_are_no_numbers_are_refused_before_they_do_harm() -> None:
    words = two()
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="times"):
            words.heard(piece("yes", bad), final=True)
    assert [final.text for final in words.settle(always)] == ["", ""]


def test_half_a_character_is_no_word() -> None:
    for text, word in (("\ud800", "a"), ("a", "\ud800")):
        with pytest.raises(ValueError, match="surrogates"):
            two().heard(Piece(text, 1.0, 1.2, None, (Timed(word, 1.0, 1.2),)), final=False)
