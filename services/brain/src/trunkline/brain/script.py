"""Answers from a script: a dialogue of slots and rules that needs no model.

Pure and stateless. Everything it knows it finds again by going through the history: what the caller said fills slots,
results fill fields, and at each place where the agent answered, the rules that were taken then are taken again. So a
worker that takes over a call answers as the one before would have.

A *moment* is something that wants an answer: words of the caller, keys they pressed (or another note), or a result.
Words that nobody answered, because the caller went on, are answered together with those that follow.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

import msgspec

from trunkline.brain.llm import AgentSaid, CallerSaid, Message, SystemNote, ToolAnswered, ToolAsked
from trunkline.proto.agent import Rule, Script, Slot, Tool

HEARD: Final = "heard"
FAILED: Final = "failed"
_RESERVED: Final = frozenset({HEARD, FAILED})
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_FILL: Final = re.compile(r"\{([^{}]*)\}")
_SIGNS: Final = re.compile(r"(?<!\d)[.:]|[.:](?!\d)|[^\w\s':.]|_")
_KEYS: Final = re.compile(r"\bpressed\b.*?(?P<keys>[0-9*#A-D]+)\W*$", re.DOTALL)
_DIGITS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_KEY_WORDS: Final = {"*": "star", "#": "hash"} | {str(digit): word for digit, word in enumerate(_DIGITS)}
_HEARD_ENOUGH: Final = 0.5
"""A question counts as asked when the caller heard this part of what the agent said."""


class ToolWanted(msgspec.Struct, frozen=True, kw_only=True):
    """The script wants a tool to be called."""

    name: str
    arguments: dict[str, str]


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What the script answers to the last moment."""

    say: str = ""
    tool: ToolWanted | None = None


def answer(script: Script, messages: Sequence[Message], tools: Collection[str]) -> Reply:
    """Return the reply to the last moment of a history.

    Args:
        script: one in which `validate` finds nothing.
        messages: oldest first. What follows the last moment is left out of account.
        tools: names of those that may be asked for now. Rules that need another do not hold.

    Returns:
        Words, a tool, or both; the fallback if no rule holds. Nothing at all when there is no moment to answer.
    """
    moments = [at for at, message in enumerate(messages) if isinstance(message, CallerSaid | SystemNote | ToolAnswered)]
    if not moments:
        return Reply()
    state = _State()
    for message in messages[: moments[-1] + 1]:
        state = _fold(script, state, message)
    reply, _ = _answer(script, state, tools)
    return reply


def words_of(text: str) -> str:
    """Return `text` as slots and rules are matched: small letters, no punctuation but ``'`` and ``7:30``."""
    return " ".join(_SIGNS.sub(" ", text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")).split())


def words_of_note(text: str) -> str:
    """Return a note as rules are matched: keys as ``pressed one two hash``, all else as words the caller said."""
    pressed = _KEYS.search(text)
    if pressed is None:
        return words_of(text)
    return " ".join(["pressed", *(_KEY_WORDS.get(key, key.lower()) for key in pressed["keys"])])


@dataclass(frozen=True, slots=True)
class _State:
    """What the script knows at one point of the history."""

    known: Mapping[str, str] = field(default_factory=dict)
    returned: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Tool → the fields of its last result."""
    asked: frozenset[str] = frozenset()
    words: str | None = None
    """The caller's words that wait for an answer; None when none do."""
    result_of: str | None = None
    """The tool whose result waits for an answer."""

    @property
    def waits(self) -> bool:
        return self.words is not None or self.result_of is not None


def _fold(script: Script, state: _State, message: Message) -> _State:
    match message:
        case CallerSaid(text=text):
            return _listen(script, state, words_of(text), asked=state.asked)
        case SystemNote(text=text):
            # Nobody said it: what answers a question in few words ("one", a name) is not to be found in it.
            return _listen(script, state, words_of_note(text), asked=frozenset())
        case ToolAnswered():
            return _read(script, state, message)
        case ToolAsked() if state.waits:
            return _answer(script, state, None)[1]
        case AgentSaid(text=text, heard=heard) if state.waits:
            _, after = _answer(script, state, None)
            return after if len(heard) >= _HEARD_ENOUGH * len(text) else replace(after, asked=frozenset())
        case _:
            return state


def _listen(script: Script, state: _State, words: str, *, asked: Collection[str]) -> _State:
    fills: dict[str, str] = {}
    for name, slot in script.slots.items():
        value = _find(slot, words, asked=name in asked)
        if value is not None:
            fills[name] = value
    known = {**state.known, **fills}
    for name, value in fills.items():
        if value != state.known.get(name):
            for stale in script.slots[name].forgets:
                known.pop(stale, None)
    together = f"{state.words or ''} {words}".strip()
    clear = fills or (state.words and known.get(HEARD) == "clear")
    known[HEARD] = "clear" if clear else "unclear" if together else "nothing"
    return replace(state, known=known, words=together)


def _find(slot: Slot, words: str, *, asked: bool) -> str | None:
    for pattern in (slot.hear_when_asked if asked else "", slot.hear):
        matches = list(_compiled(pattern).finditer(words)) if pattern else []
        if matches:
            heard = matches[-1].groupdict().get("value") or matches[-1].group()
            value = slot.values.get(heard, heard)
            return " ".join(word[:1].upper() + word[1:] for word in value.split()) if slot.proper else value
    return None


def _read(script: Script, state: _State, answered: ToolAnswered) -> _State:
    fields = {} if answered.error else _fields(answered.result)
    for taken in {*script.slots, *_RESERVED} & fields.keys():
        del fields[taken]
    stale = state.returned.get(answered.name, frozenset())
    known = {name: value for name, value in state.known.items() if name not in stale} | fields
    known[FAILED] = "yes" if answered.error else "no"
    returned = {**state.returned, answered.name: frozenset(fields)}
    return replace(state, known=known, returned=returned, result_of=answered.name)


def _fields(result: str) -> dict[str, str]:
    try:
        decoded = msgspec.json.decode(result)
    except msgspec.DecodeError:
        return {}
    if not isinstance(decoded, dict):
        return {}
    return {name: text for name, value in decoded.items() if (text := _spoken(value)) is not None}


def _spoken(value: object) -> str | None:
    """Return a JSON value as it would be said; None for what cannot be."""
    match value:
        case bool():
            return "yes" if value else "no"
        case str() | int() | float():
            return str(value)
        case [*items] if items and all(isinstance(item, str | int | float) for item in items):
            *others, last = map(str, items)
            return f"{', '.join(others)} and {last}" if others else last
        case _:
            return None


def _answer(script: Script, state: _State, tools: Collection[str] | None) -> tuple[Reply, _State]:
    """Take the rules that hold; `tools` None means that any may be asked for."""
    known = dict(state.known)
    said: list[str] = []
    asked: set[str] = set()
    wanted: ToolWanted | None = None
    taken = False
    for rule in script.rules:
        if not _holds(rule, known, state, taken=taken) or (rule.tool and tools is not None and rule.tool not in tools):
            continue
        taken = True
        if rule.hear:
            known[HEARD] = "clear"
        known.update({name: _fill(text, known) for name, text in rule.remember.items()})
        said.append(_fill(rule.say, known))
        asked.update(rule.asks)
        if rule.tool:
            wanted = ToolWanted(name=rule.tool, arguments={k: _fill(text, known) for k, text in rule.arguments.items()})
        for name in rule.forget:
            known.pop(name, None)
        if wanted or not rule.goes_on:
            break
    say = " ".join(filter(None, said))
    if not say and wanted is None:
        say = script.fallback
        asked.update(state.asked)
    known[HEARD] = "clear"
    after = replace(state, known=known, asked=frozenset(asked), words=None, result_of=None)
    return Reply(say=say, tool=wanted), after


def _holds(rule: Rule, known: Mapping[str, str], state: _State, *, taken: bool) -> bool:
    if rule.after is not None:
        if rule.after != state.result_of:
            return False
    elif state.words is None and (rule.hear or not taken):
        return False
    if rule.hear and not _compiled(rule.hear).search(state.words or ""):
        return False
    return (
        all(name in known for name in rule.known)
        and all(name not in known for name in rule.missing)
        and all(known.get(name) == value for name, value in rule.where.items())
    )


def _fill(text: str, known: Mapping[str, str]) -> str:
    return _FILL.sub(lambda name: known[name.group(1)], text)


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


# --- before the call -------------------------------------------------------------------------------------------------


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Something in a script that would fail, or never happen, in a call."""

    path: str
    """Where in the agent file, for example ``llm.script.rules[3].say``."""
    text: str


def validate(script: Script, tools: Sequence[Tool]) -> list[Problem]:
    """Return what is wrong with `script` for an agent that has `tools`; nothing if every call can be answered."""
    names = {*script.slots, *_RESERVED, *(name for tool in tools for name in tool.returns)}
    problems = list(_check_slots(script, names))
    for at, tool in enumerate(tools):
        if twice := sorted({*script.slots, *_RESERVED} & {*tool.returns}):
            problems.append(Problem(path=f"tools[{at}].returns", text=f"{', '.join(twice)}: the script has that name"))
    for at, rule in enumerate(script.rules):
        path = f"llm.script.rules[{at}]"
        problems += _check_names(path, rule, script, names)
        problems += _check_tool(path, rule, {tool.name: tool for tool in tools})
        problems += _check_texts(path, rule)
    return problems + list(_check_text("llm.script.fallback", script.fallback, frozenset()))


def _check_slots(script: Script, names: Collection[str]) -> Iterable[Problem]:
    asked = {name for rule in script.rules for name in rule.asks}
    for name, slot in script.slots.items():
        path = f"llm.script.slots.{name}"
        if name in _RESERVED or not _NAME.fullmatch(name):
            yield Problem(path=path, text="a slot's name is a-z, 0-9 and _, and neither 'heard' nor 'failed'")
        if slot.hear_when_asked and name not in asked:
            yield Problem(path=f"{path}.hear_when_asked", text=f"no rule asks for {name}")
        yield from _check_pattern(f"{path}.hear", slot.hear)
        yield from _check_pattern(f"{path}.hear_when_asked", slot.hear_when_asked)
        yield from _check_known(f"{path}.forgets", slot.forgets, names)


def _check_names(path: str, rule: Rule, script: Script, names: Collection[str]) -> Iterable[Problem]:
    yield from _check_pattern(f"{path}.hear", rule.hear)
    for label, used in (
        ("known", rule.known),
        ("missing", rule.missing),
        ("where", rule.where),
        ("forget", rule.forget),
    ):
        yield from _check_known(f"{path}.{label}", used, names)
    for label, slots in (("asks", rule.asks), ("remember", rule.remember)):
        yield from _check_known(f"{path}.{label}", slots, script.slots.keys(), "slot")


def _check_tool(path: str, rule: Rule, tools: Mapping[str, Tool]) -> Iterable[Problem]:
    for label, name in (("after", rule.after), ("tool", rule.tool)):
        if name is not None and name not in tools:
            yield Problem(path=f"{path}.{label}", text=f"the agent has no tool {name!r}")
    if rule.tool is None:
        if rule.arguments:
            yield Problem(path=f"{path}.arguments", text="there is no tool to give them to")
    elif rule.tool in tools:
        required = tools[rule.tool].parameters.get("required")
        for name in required if isinstance(required, list) else []:
            if name not in rule.arguments:
                yield Problem(path=f"{path}.arguments", text=f"{rule.tool} needs {name}")


def _check_texts(path: str, rule: Rule) -> Iterable[Problem]:
    """Check that every name in a text is sure to be known when the rule is taken."""
    sure = frozenset({*rule.known, *rule.where, HEARD})
    for name, text in rule.remember.items():
        yield from _check_text(f"{path}.remember.{name}", text, sure)
    sure |= rule.remember.keys()
    yield from _check_text(f"{path}.say", rule.say, sure)
    for name, text in rule.arguments.items():
        yield from _check_text(f"{path}.arguments.{name}", text, sure)


def _check_text(path: str, text: str, sure: Collection[str]) -> Iterable[Problem]:
    for name in _FILL.findall(text):
        if name not in sure:
            yield Problem(path=path, text=f"{{{name}}} may be unknown here; list it under `known`")
    if re.search(r"[{}]", _FILL.sub("", text)):
        yield Problem(path=path, text="a brace without its other half")


def _check_pattern(path: str, pattern: str) -> Iterable[Problem]:
    try:
        re.compile(pattern)
    except re.error as error:
        yield Problem(path=path, text=f"no regular expression: {error}")


def _check_known(
    path: str, used: Iterable[str], names: Collection[str], kind: str = "slot or result field"
) -> Iterable[Problem]:
    for name in used:
        if name not in names:
            yield Problem(path=path, text=f"there is no {kind} {name!r}")
