"""What is wrong with a JSGF grammar, in words an author can act on.

pocketsphinx itself says no more than "failed to parse", and takes a reference to a rule that does not exist for nothing
at all. Only what can be judged from the text is judged here: https://www.w3.org/TR/jsgf/ sections 2 and 3.
"""

import re
from collections.abc import Callable
from typing import Final

_COMMENT: Final = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_HEADER: Final = re.compile(r"\s*#JSGF\b[^;]*;")
_NAME: Final = re.compile(r"\s*grammar\s+[\w.]+\s*;")
_RULE: Final = re.compile(r"\s*(public\s+)?<([^>]+)>\s*=\s*([^;]*);")
_REFERENCE: Final = re.compile(r"<([^>]+)>")
_NOT_A_WORD: Final = re.compile(r"<[^>]*>|\{[^}]*\}|/[^/]*/|[()\[\]|*+\"]")
_SPECIAL: Final = frozenset({"NULL", "VOID"})


def problem_of(grammar: str, knows: Callable[[str], bool]) -> str | None:
    """Return what is wrong with `grammar`, or None. `knows` tells whether a word can be pronounced."""
    text = _COMMENT.sub(" ", grammar)
    header = _HEADER.match(text)
    name = _NAME.match(text, header.end()) if header else None
    if name is None:
        return "must begin with '#JSGF V1.0;' and 'grammar <name>;'"
    rules: dict[str, str] = {}
    public = False
    at = name.end()
    while rule := _RULE.match(text, at):
        public = public or bool(rule[1])
        rules[rule[2]] = rule[3]
        at = rule.end()
    if rest := text[at:].strip():
        return f"cannot be read from {rest[:40]!r}: expected '<rule> = … ;'"
    if not public:
        return "has no 'public <rule> = … ;'"
    return _loose_ends(rules, knows)


def _loose_ends(rules: dict[str, str], knows: Callable[[str], bool]) -> str | None:
    missing = sorted({name for body in rules.values() for name in _REFERENCE.findall(body)} - rules.keys() - _SPECIAL)
    if missing:
        return f"refers to {', '.join(f'<{name}>' for name in missing)}, which it does not define"
    words = {word for body in rules.values() for word in _NOT_A_WORD.sub(" ", body).split()}
    if unknown := sorted(word for word in words if not knows(word)):
        return f"has words the dictionary lacks: {', '.join(unknown)} (write numbers out, names in lower case)"
    return None
