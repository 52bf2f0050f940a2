"""Rules about words: what the agent said and the caller heard, what the caller said and the brain was told. Pure.

A rule yields the violations it finds and counts what it looked at, so that a rule that looked at nothing shows.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from typing import Final

from trunkline.chaos.codebook import LINES, answer, words_in
from trunkline.chaos.ear import HeardWord
from trunkline.chaos.evidence import CallEvidence, Violation, swallowed
from trunkline.chaos.script import QUESTIONS, question_in
from trunkline.proto.events import AgentSpoke, CallerSpoke

NEAR_S: Final = 1.0
"""How near to a hole in what was heard a change of voice must be to be its reason."""
AHEAD_S: Final = 3.0
"""How far a voice may be ahead of the ear: so much later the caller hears where it was changed."""

SENTENCE_S: Final = 4.0
"""Longer than any sentence here takes to say."""
LONGEST: Final = max(len(question.split()) for question in QUESTIONS)
_HARMLESS: Final = frozenset(words_in(f"{LINES.filler} {LINES.filler_again}"))
_RESUMED: Final = frozenset(words_in(LINES.resumed))
_NAMES: Final = {word: name for name, line in LINES._asdict().items() for word in words_in(line)}


def agent_words(call: CallEvidence, counts: Counter[str]) -> Iterator[Violation]:
    """Every word of the greeting and of every answer is heard once, in order, and nothing else but fillers.

    One word may be missing for every time the call got another voice: rather none than one twice. What the old line had
    not played yet when it was lost is gone with it; and nobody knows how much of the sentence that was being said then
    was heard, so after the apology it is said again from where that is known.
    """
    caller = call.caller
    expected = expected_words(call)
    place = {word: at for at, word in enumerate(expected)}
    heard = [word for word in caller.words if word.counts]
    counts["agent words expected"] += len(expected)
    counts["agent words heard"] += sum(word.text in place for word in heard)
    times: dict[str, HeardWord] = {}
    highest = -1
    stray = _answers_to_halves(call)
    for word in heard:
        if word.text in stray:
            counts["agent words in answer to half a question"] += 1
            times.setdefault(word.text, word)
            continue
        at = place.get(word.text)
        if at is None:
            yield from _unexpected(call, word, counts)
            continue
        if word.text in times and _said_again(times[word.text], word, caller.gaps):
            counts["agent words said again after the line was lost"] += 1
        elif word.text in times:
            counts["agent words heard twice"] += 1
            text = f"{word.text!r} (word {at}) was heard at {times[word.text].at_s:.3f} and again"
            yield Violation(rule="agent-word-twice", call=caller.call, t=word.at_s, text=text)
        elif at < highest:
            yield Violation(
                rule="agent-word-order", call=caller.call, t=word.at_s, text=f"word {at} came after word {highest}"
            )
        times.setdefault(word.text, word)
        highest = max(highest, at)
    told = [word for event in call.events if isinstance(event.fact, AgentSpoke) for word in words_in(event.fact.heard)]
    counts["agent words told as heard, and not heard"] += sum(word not in times for word in told)
    counts["agent words heard, and not told as heard"] += sum(word not in told for word in times)
    scraps = {word.text for word in caller.words if not word.counts and word.text in times}
    counts["agent words begun twice"] += len(scraps)
    yield from _missing(call, expected, times, counts)
    for begin, end in caller.two_voices:
        yield Violation(
            rule="two-voices", call=caller.call, t=begin, text=f"two words sounded at once for {end - begin:.2f} s"
        )


def _answers_to_halves(call: CallEvidence) -> frozenset[str]:
    """Return the words of answers to what was heard of questions that a lost line has cut in two.

    Half of a question may sound like another one, like one that was answered before, or like none.
    """
    caller = call.caller
    cut = [asked for asked in caller.asked if swallowed(asked, caller.gaps)]
    if not cut:
        return frozenset()
    asked = Counter(asked.question for asked in caller.asked)
    told = Counter(
        question_in(event.fact.text) for event in call.events if isinstance(event.fact, CallerSpoke) and event.fact.text
    )
    words = set(words_in(LINES.unasked))
    for question, times in told.items():
        if question is not None and times > asked[question]:
            words |= set(answer(caller.call, question))
    return frozenset(words)


def _said_again(first: HeardWord, word: HeardWord, gaps: Iterable[tuple[float, float]]) -> bool:
    return any(begin - SENTENCE_S <= first.at_s <= begin + NEAR_S and word.at_s >= begin for begin, _ in gaps)


def expected_words(call: CallEvidence) -> tuple[str, ...]:
    """Return every word the caller was to hear, in order."""
    answers = [word for asked in call.caller.asked for word in answer(call.caller.call, asked.question)]
    return tuple(dict.fromkeys((*words_in(LINES.greeting), *answers)))


def _unexpected(call: CallEvidence, word: HeardWord, counts: Counter[str]) -> Iterator[Violation]:
    caller = call.caller
    line = _NAMES.get(word.text)
    if word.text in _HARMLESS:
        counts["filler words"] += 1
        return
    if word.text in _RESUMED and caller.gaps:
        counts["words of apology for a lost line"] += 1
        return
    if line is not None:
        text = f"the caller heard {word.text!r} of the line {line!r}"
        yield Violation(rule=f"agent-line-{line}", call=caller.call, t=word.at_s, text=text)
        return
    text = f"the caller heard {word.text!r}, which is no word of this call"
    yield Violation(rule="agent-word-strange", call=caller.call, t=word.at_s, text=text)


def _missing(
    call: CallEvidence, expected: Sequence[str], times: dict[str, HeardWord], counts: Counter[str]
) -> Iterator[Violation]:
    caller = call.caller
    changes = [note.t for note in call.noted("assigned", "lost") if note.stage == "tts" and note.epoch > 0]
    first = next((note.t for note in call.noted("assigned") if note.stage == "tts"), None)
    changes = [t for t in changes if t != first]
    at = 0
    while at < len(expected):
        if expected[at] in times:
            at += 1
            continue
        end = at
        while end < len(expected) and expected[end] not in times:
            end += 1
        count = end - at
        from_t = max((times[word].end_s for word in expected[:at] if word in times), default=caller.began_t)
        to_t = min((times[word].at_s for word in expected[end:] if word in times), default=caller.ended_t)
        to_t = max(to_t, from_t)

        def near(t: float, from_t: float = from_t, to_t: float = to_t) -> bool:
            return from_t - NEAR_S <= t <= to_t + NEAR_S

        text = f"words {at} to {end - 1} of {len(expected)} were not heard between {from_t:.3f} and {to_t:.3f}"
        if any(near(begin) or near(ended) for begin, ended in caller.gaps):
            counts["agent words lost with the line"] += count
        elif count == 1 and any(near(t) or t <= from_t <= t + AHEAD_S for t in changes):
            counts["agent words lost with a voice"] += count
        else:
            counts["agent words lost"] += count
            yield Violation(rule="agent-word-lost", call=caller.call, t=from_t, text=text)
        at = end


def caller_words(call: CallEvidence, counts: Counter[str]) -> Iterator[Violation]:
    """Every word of the caller's is in the facts once, in order, and no other.

    Of a question that the lost line swallowed, wholly or in part, nobody can tell how much was to be heard, nor what
    its rest is taken for: at most for the longest there is.
    """
    whole = [asked for asked in call.caller.asked if not swallowed(asked, call.caller.gaps)]
    spare = LONGEST * (len(call.caller.asked) - len(whole))
    counts["caller words swallowed by a lost line, at most"] += spare
    said = [word for asked in whole for word in QUESTIONS[asked.question].split()]
    turns = [event.fact for event in call.events if isinstance(event.fact, CallerSpoke)]
    told = [word for turn in turns for word in turn.text.lower().split()]
    counts["caller words said"] += len(said)
    counts["caller words told"] += len(told)
    for tag, begin, end, other_begin, other_end in SequenceMatcher(None, said, told, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        was, became = " ".join(said[begin:end]), " ".join(told[other_begin:other_end])
        if tag == "insert" and other_end - other_begin <= spare:
            spare -= other_end - other_begin
            continue
        rule = {"delete": "caller-word-lost", "insert": "caller-word-twice", "replace": "caller-misheard"}[tag]
        counts[rule.replace("-", " ")] += max(end - begin, other_end - other_begin)
        t = call.caller.asked[0].began_t if call.caller.asked else call.caller.began_t
        text = f"said {was!r}, told {became!r}, within {' '.join(told)!r}"
        yield Violation(rule=rule, call=call.caller.call, t=t, text=text)


def script_done(call: CallEvidence, counts: Counter[str]) -> Iterator[Violation]:
    """The caller got to ask everything, and hung up when done."""
    caller = call.caller
    if caller.ended_by == "nobody":
        return
    counts["questions asked"] += len(caller.asked)
    if caller.problem or caller.ended_by != "caller":
        text = f"{caller.problem or 'the call was ended by the other side'}; {len(caller.asked)} of "
        text += f"{len(caller.questions)} questions were asked"
        yield Violation(rule="script-broken-off", call=caller.call, t=caller.ended_t, text=text)
