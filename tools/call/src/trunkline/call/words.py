"""Words compared: how far what was written is from what was said."""

import re
from collections.abc import Sequence


def words_of(text: str) -> list[str]:
    """Return the words of `text` in lower case, without punctuation; apostrophes stay."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


def word_errors(said: Sequence[str], written: Sequence[str]) -> int:
    """Return the least number of words replaced, left out or put in that turns `said` into `written`."""
    row = list(range(len(written) + 1))
    for i, word in enumerate(said, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(written, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]


def word_error_rate(said: str, written: str) -> float:
    """Return word errors per word said. Nothing said and nothing written is 0, something written then 1."""
    reference, hypothesis = words_of(said), words_of(written)
    if not reference:
        return float(bool(hypothesis))
    return word_errors(reference, hypothesis) / len(reference)


def contains(text: str, phrase: str) -> bool:
    """Whether the words of `phrase` stand in `text`, in one piece."""
    return f" {' '.join(words_of(phrase))} " in f" {' '.join(words_of(text))} "
