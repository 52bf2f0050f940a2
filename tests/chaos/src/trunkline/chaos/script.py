"""What callers of a chaos run say, and what becomes of it: the questions, by number. Pure.

Every phrase is in the agent's grammar and sounds like no other one, so that which question was heard can be told.
"""

from typing import Final

import msgspec

QUESTIONS: Final = (
    "when are you open",
    "is there parking",
    "my name is peter miller",
    "i would like to book a table",
    "do you have vegetarian food",
    "tomorrow evening",
    "what is my booking number",
    "where are you",
)
"""A question's number is its place here."""
WANTS_TOOL: Final = 3
"""The number of the question that is answered with the help of a tool."""
TOOL: Final = "ledger"


def question_in(text: str) -> int | None:
    """Return the number of the last question in what a caller said, None if there is none."""
    words = " ".join(text.lower().split())
    found = [(at, number) for number, question in enumerate(QUESTIONS) if (at := words.rfind(question)) >= 0]
    return max(found)[1] if found else None


class CallPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What one caller is to do."""

    sid: str
    questions: tuple[int, ...]
    """Each at most once a call."""
    seed: int = 0


def plan(sid: str, seed: int, count: int) -> CallPlan:
    """Return a caller who asks `count` questions, the one with the tool among them; `seed` says in which order."""
    order = list(range(len(QUESTIONS)))
    value = seed
    for at in range(len(order) - 1, 0, -1):
        value = (value * 6_364_136_223_846_793_005 + 1_442_695_040_888_963_407) % 2**64
        other = (value >> 33) % (at + 1)
        order[at], order[other] = order[other], order[at]
    chosen = order[:count]
    if WANTS_TOOL not in chosen:
        chosen[(value >> 20) % count] = WANTS_TOOL
    return CallPlan(sid=sid, questions=tuple(chosen), seed=seed)
