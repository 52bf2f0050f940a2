"""Which words the agent says, and which two tones each word is.

A word has two syllables: the first chooses the low tone, the second the high one, so that 256 words can be told apart
by ear. What is answered to a question depends on the call and the question alone; no two answers of a call share a
word, and two calls begin at different places, so a word that is lost, repeated or another call's shows. Pure.
"""

import zlib
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

RATE_HZ: Final = 8_000
TONE_MS: Final = 160
PAUSE_MS: Final = 40
WORD_MS: Final = TONE_MS + PAUSE_MS

_CONSONANTS: Final = "bdfgklmnprstvzhw"
LOW_HZ: Final = tuple(300 + 100 * at for at in range(16))
HIGH_HZ: Final = tuple(1_950 + 100 * at for at in range(16))
"""Multiples of 50: in 20 ms each fills a bin of its own."""

WORDS: Final = tuple(f"{first}a{second}o" for first in _CONSONANTS for second in _CONSONANTS)
_NUMBER: Final = {word: at for at, word in enumerate(WORDS)}

_SPOKEN: Final = WORDS[:224]
"""What answers are made of; the rest is for lines that are not part of an answer."""
ANSWER_WORDS: Final = 24
SENTENCES: Final = 3
MOST_ANSWERS: Final = len(_SPOKEN) // ANSWER_WORDS


class Lines(NamedTuple):
    """What an agent says word for word in any call, and what it means when it is heard."""

    greeting: str
    filler: str
    filler_again: str
    apology: str
    farewell: str
    busy: str
    spent: str
    resumed: str
    reprompt: str
    silence_goodbye: str
    unasked: str
    """What the mind answers when it has no idea what was said."""


def _lines() -> Lines:
    words = iter(WORDS[len(_SPOKEN) :])
    counts = (6, 2, 2, 3, 3, 3, 2, 4, 2, 2, 3)
    return Lines(*(sentence([next(words) for _ in range(count)]) for count in counts))


def sentence(words: Sequence[str]) -> str:
    """Return `words` as a sentence."""
    return " ".join(words).capitalize() + "."


def answer(call: str, question: int) -> tuple[str, ...]:
    """Return the words that answer question number `question` of `call`."""
    begin = zlib.crc32(call.encode()) % len(_SPOKEN) + question * ANSWER_WORDS
    return tuple(_SPOKEN[(begin + at) % len(_SPOKEN)] for at in range(ANSWER_WORDS))


def text_of(words: Sequence[str]) -> str:
    """Return the words of an answer, or its rest, as sentences that end where those of the whole answer do."""
    length = ANSWER_WORDS // SENTENCES
    first = len(words) % length
    cuts = [*([first] if first else []), *range(first + length, len(words) + 1, length)]
    begins = [0, *cuts]
    return " ".join(sentence(words[begin:end]) for begin, end in zip(begins, cuts, strict=False))


def words_in(text: str) -> tuple[str, ...]:
    """Return the code words of `text`, in order; what is none is left out."""
    return tuple(word for word in plain(text.split()) if word in _NUMBER)


def plain(words: Iterable[str]) -> list[str]:
    """Return `words` in small letters and without marks."""
    return ["".join(filter(str.isalpha, word)).lower() for word in words]


def tones_of(word: str) -> tuple[int, int]:
    """Return the two tones of a word, Hz; those of no code word at all for a stranger."""
    number = _NUMBER.get(word)
    if number is None:
        return LOW_HZ[0] - 100, HIGH_HZ[0] - 100
    return LOW_HZ[number // 16], HIGH_HZ[number % 16]


LINES: Final = _lines()
