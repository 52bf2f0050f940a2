"""What is missing of an answer of which the beginning was said already. Pure.

An answer breaks off when whoever thought it is lost, or when a noise stopped the agent. A model is then asked for the
rest; one whose answers are a function of the history can cut it off the whole.
"""

import re
from collections.abc import Sequence
from typing import Final

from trunkline.brain.llm import AgentSaid, Message, SystemNote
from trunkline.brain.markers import MARKERS

_MARKER: Final = re.compile("|".join(re.escape(f"[{marker}]") for marker in MARKERS), re.IGNORECASE)
_LAST_WORDS: Final = 12


def begun(messages: Sequence[Message]) -> str:
    """Return what was heard of an answer that is to be gone on with; empty when none is."""
    last = messages[-1] if messages else None
    return last.heard.strip() if isinstance(last, AgentSaid) else ""


def hint(messages: Sequence[Message]) -> SystemNote | None:
    """Return what a model must be told to go on with an answer, or None when it is asked for a new one."""
    heard = begun(messages)
    if not heard:
        return None
    words = heard.split()[-_LAST_WORDS:]
    return SystemNote(
        text="Your answer was interrupted by a technical fault. The caller has heard it up to: "
        f'"{" ".join(words)}" Continue from there with the words that come next. Do not repeat any of it, '
        "do not greet, do not mention the fault."
    )


def rest_of(answer: str, heard: str) -> str:
    """Return what follows `heard` in `answer`; all of it if it does not begin so.

    Signs and white space may differ: what is said aloud has been tidied. A marker among what was heard stays.
    """
    wanted = [character for character in heard.lower() if character.isalnum()]
    markers: list[str] = []
    at = matched = 0
    while matched < len(wanted):
        if at == len(answer):
            return answer
        if (marker := _MARKER.match(answer, at)) is not None:
            markers.append(marker.group())
            at = marker.end()
            continue
        if answer[at].isalnum():
            if answer[at].lower() != wanted[matched]:
                return answer
            matched += 1
        at += 1
    if wanted and at < len(answer) and answer[at].isalnum():
        return answer  # half a word is none
    while wanted and at < len(answer) and not answer[at].isspace() and answer[at] != "[":
        at += 1
    return "".join(markers) + answer[at:]
