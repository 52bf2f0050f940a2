import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.brain.sentences import SentenceSplitter

pytestmark = pytest.mark.unit


def split(text: str, longest_chars: int = 200) -> list[str]:
    splitter = SentenceSplitter(longest_chars)
    return splitter.feed(text) + splitter.flush()


def split_by_character(text: str, longest_chars: int = 200) -> list[str]:
    splitter = SentenceSplitter(longest_chars)
    sentences = [sentence for character in text for sentence in splitter.feed(character)]
    return sentences + splitter.flush()


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Yes. Of course! Which day?", ["Yes.", "Of course!", "Which day?"]),
        ("Good evening, Mr. Smith. Please come in.", ["Good evening, Mr. Smith.", "Please come in."]),
        ("We open at 7 p.m. on Friday.", ["We open at 7 p.m. on Friday."]),
        ("We open at 7 p.m. Until then we are closed.", ["We open at 7 p.m.", "Until then we are closed."]),
        ("Bring something, e.g. a cake. Or not.", ["Bring something, e.g. a cake.", "Or not."]),
        ("That is 3.50 euros at 7.30 sharp. Right?", ["That is 3.50 euros at 7.30 sharp.", "Right?"]),
        ("Well... let me see. Yes.", ["Well... let me see.", "Yes."]),
        ("Well... Let me see.", ["Well...", "Let me see."]),
        ("Hm… ja. Gut.", ["Hm… ja.", "Gut."]),
        (
            'He said "Come in!" and left. "Go." Then silence.',
            ['He said "Come in!" and left.', '"Go."', "Then silence."],
        ),
        ("(It is free.) Take it.", ["(It is free.)", "Take it."]),
        ("Really?! Yes.", ["Really?!", "Yes."]),
        ("One line\nanother line\n\nand more", ["One line", "another line", "and more"]),
        ("1. Pasta\n2. Pizza. It is good.", ["1. Pasta", "2. Pizza.", "It is good."]),
        ("Ask J. Smith. He knows.", ["Ask J. Smith.", "He knows."]),
        ("It is at No. 5. Come in.", ["It is at No. 5.", "Come in."]),
        ("No. Not today.", ["No.", "Not today."]),
        ("See example.com for more. Bye.", ["See example.com for more.", "Bye."]),
        ("はい。何名様です。", ["はい。", "何名様です。"]),
        ("It was I. You know.", ["It was I.", "You know."]),
        ("  \n\n ", []),
        ("... !", []),
        ("Bye. )", ["Bye."]),
        ("", []),
    ],
)
def test_text_is_cut_where_a_speaker_would_pause(text: str, sentences: list[str]) -> None:
    assert split(text) == sentences
    assert split_by_character(text) == sentences


def test_a_sentence_is_given_as_soon_as_the_space_behind_it_is_there() -> None:
    splitter = SentenceSplitter()
    assert splitter.feed("Let me see") == []
    assert splitter.feed(".") == []
    assert splitter.feed(" ") == ["Let me see."]
    assert splitter.feed("Friday is") == []
    assert splitter.flush() == ["Friday is"]


def test_a_doubtful_end_waits_for_the_next_letter_only() -> None:
    splitter = SentenceSplitter()
    assert splitter.feed("At 8 p.m. ") == []
    assert splitter.feed("W") == ["At 8 p.m."]


def test_a_long_clause_is_cut_after_a_comma_and_else_at_a_space() -> None:
    assert split("we have pasta, pizza and salad and much else", 30) == [
        "we have pasta,",
        "pizza and salad and much else",
    ]
    assert split("one two three four five six", 12) == ["one two", "three four", "five six"]
    assert split("x" * 25, 10) == ["x" * 10, "x" * 10, "x" * 5]


def test_a_splitter_can_be_used_again_after_a_flush() -> None:
    splitter = SentenceSplitter()
    splitter.feed("Some words")
    assert splitter.flush() == ["Some words"]
    assert splitter.flush() == []
    assert splitter.feed("More. ") == ["More."]


CHARACTERS = [*"abCD17 .,!?\n\"')…-。"]
PIECES = [*CHARACTERS, ". ", "... ", "Mr.", "p.m.", "e.g.", "7.30", "No.", "Yes!", "Well...", '"Go."', " word "]
PROSE = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)


@given(text=PROSE, cuts=st.lists(st.integers(0, 200), max_size=10), longest_chars=st.integers(5, 60))
def test_the_words_survive_and_the_delivery_does_not_matter(text: str, cuts: list[int], longest_chars: int) -> None:
    splitter = SentenceSplitter(longest_chars)
    places = sorted({0, *(min(cut, len(text)) for cut in cuts), len(text)})
    sentences = [s for a, b in itertools.pairwise(places) for s in splitter.feed(text[a:b])]
    sentences += splitter.flush()

    assert sentences == split(text, longest_chars)
    assert letters("".join(sentences)) == letters(text)
    assert all(letters(sentence) for sentence in sentences)


@given(text=PROSE)
def test_nothing_but_white_space_and_an_end_without_words_is_lost(text: str) -> None:
    kept, whole = "".join("".join(split(text)).split()), "".join(text.split())
    assert whole.startswith(kept)
    assert letters(whole[len(kept) :]) == ""


def letters(text: str) -> str:
    return "".join(character for character in text if character.isalnum())
