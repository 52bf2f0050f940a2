"""Agent files: read, filled in from the environment, checked, and read again when they change.

One agent is one file ``<name>.toml`` of the folder. ``${NAME}`` and ``${NAME:-default}`` in a string value are replaced
by text from the environment that is passed in (the default also when the variable is empty); ``$${`` stands for ``${``.
What is put in is never looked at again, let alone executed. A key we do not know is refused here, in the file somebody
typed, while messages on the bus are read leniently.
"""

import difflib
import logging
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import inspect

from trunkline.agents.errors import AgentFileError
from trunkline.proto.agent import Agent

log = logging.getLogger("trunkline.agents")

_REFERENCE: Final = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})?")
_Stamp = tuple[int, int]


class AgentFolder:
    """The agents of one folder, each as its file last made sense."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._environ = environ
        self._agents: dict[str, Agent] = {}
        self._stamps: dict[Path, _Stamp] = {}

    @property
    def names(self) -> list[str]:
        """Names of the agents that can answer, sorted."""
        return sorted(self._agents)

    def load(self) -> None:
        """Read every file of the folder.

        Raises:
            AgentFileError: there is none, or one of them is wrong; the text has a line for each problem.
        """
        self._stamps = self._look()
        if not self._stamps:
            raise AgentFileError((f"no agent file (*.toml) in {self._folder.resolve()}; set TRUNKLINE_AGENTS",))
        problems: list[str] = []
        for path in self._stamps:
            try:
                agent = read_agent(path, self._environ)
            except AgentFileError as error:
                problems.extend(error.problems)
            else:
                self._agents[agent.name] = agent
        if problems:
            raise AgentFileError(tuple(problems))

    def get(self, name: str) -> Agent | None:
        """Return the agent `name` as its file is now, or None if there is none; see `refresh`."""
        self.refresh()
        return self._agents.get(name)

    def refresh(self) -> None:
        """Read again what has changed: a few stats when nothing has.

        A file that has become wrong is logged once, and its agent stays as it was. One that is gone takes its agent
        with it. Calls under way keep the agent they began with.
        """
        stamps = self._look()
        if stamps == self._stamps:
            return
        for path in self._stamps.keys() - stamps.keys():
            self._agents.pop(path.stem, None)
            log.info("agent removed", extra={"agent": path.stem})
        for path, stamp in stamps.items():
            if self._stamps.get(path) == stamp:
                continue
            try:
                self._agents[path.stem] = read_agent(path, self._environ)
                log.info("agent read", extra={"agent": path.stem})
            except AgentFileError as error:
                kept = path.stem in self._agents
                log.error(  # noqa: TRY400 - the sentence says it all
                    "agent file refused", extra={"problems": list(error.problems), "last_good_stays": kept}
                )
        self._stamps = stamps

    def _look(self) -> dict[Path, _Stamp]:
        found = {}
        for path in sorted(self._folder.glob("*.toml")):
            try:
                stat = path.stat()
            except OSError:  # gone in the meantime
                continue
            found[path] = (stat.st_mtime_ns, stat.st_size)
        return found


def read_agent(path: Path, environ: Mapping[str, str]) -> Agent:
    """Read the agent file `path`.

    Raises:
        AgentFileError: it cannot be read, is no TOML, has an unknown key or a wrong value, asks for a variable that is
            not set, or is not named after its agent. Each problem is ``<file>: <key>: <what>``.
    """
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise AgentFileError((f"{path}: cannot be read: {error.strerror}",)) from error
    except ValueError as error:  # TOML or UTF-8; both say where
        raise AgentFileError((f"{path}: {error}",)) from error
    problems: list[str] = []
    filled = _fill(raw, environ, "", problems)
    problems.extend(_unknown_keys(filled, inspect.type_info(Agent), ""))
    if not problems:
        try:
            agent = msgspec.convert(filled, Agent)
        except msgspec.ValidationError as error:
            problems.append(_placed(str(error)))
        else:
            problems.extend(_contradictions(agent, path.stem))
    if problems:
        raise AgentFileError(tuple(f"{path}: {problem}" for problem in problems))
    return agent


def _fill(value: Any, environ: Mapping[str, str], where: str, problems: list[str]) -> Any:
    if isinstance(value, str):
        return _filled_text(value, environ, where, problems)
    if isinstance(value, dict):
        return {key: _fill(item, environ, _inside(where, key), problems) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, environ, f"{where}[{index}]", problems) for index, item in enumerate(value)]
    return value


def _filled_text(text: str, environ: Mapping[str, str], where: str, problems: list[str]) -> str:
    def put(found: re.Match[str]) -> str:
        name, default = found.groups()
        if found[0] == "$${":
            return "${"
        if name is None:
            problems.append(
                f"{where}: '${{' begins no ${{NAME}} or ${{NAME:-default}}; '$${{' stands for the characters"
            )
            return ""
        value = environ.get(name)
        if default is not None and not value:
            return default
        if value is None:
            problems.append(f"{where}: the variable {name} is not set and has no default")
            return ""
        return value

    return _REFERENCE.sub(put, text)


def _unknown_keys(value: Any, kind: inspect.Type, where: str) -> Iterator[str]:
    match kind:
        case inspect.Metadata(type=inner):
            yield from _unknown_keys(value, inner, where)
        case inspect.UnionType(types=types):
            for inner in types:
                yield from _unknown_keys(value, inner, where)
        case inspect.StructType(fields=fields) if isinstance(value, dict):
            known = {field.encode_name: field.type for field in fields}
            yield from (_unknown_key(key, known, where) for key in value.keys() - known.keys())
            for key in value.keys() & known.keys():
                yield from _unknown_keys(value[key], known[key], _inside(where, key))
        case inspect.DictType(value_type=inner) if isinstance(value, dict):
            for key, item in value.items():
                yield from _unknown_keys(item, inner, _inside(where, key))
        case inspect.VarTupleType(item_type=inner) | inspect.ListType(item_type=inner) if isinstance(value, list):
            for index, item in enumerate(value):
                yield from _unknown_keys(item, inner, f"{where}[{index}]")
        case _:
            return


def _unknown_key(key: str, known: Iterable[str], where: str) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(sorted(known))}"
    return f"{_inside(where, key)}: unknown key; {hint}"


def _contradictions(agent: Agent, stem: str) -> Iterator[str]:
    """Find what types cannot say."""
    if agent.name != stem:
        yield f"name: is {agent.name!r}, but the file is named {stem!r}; they must be the same"
    for stage in ("stt", "llm", "tts"):
        for index, fallback in enumerate(getattr(agent, stage).fallbacks):
            if fallback.fallbacks:
                yield f"{stage}.fallbacks[{index}].fallbacks: only {stage} itself has fallbacks; list them all there"
    script = agent.llm.script
    if script is None:
        return
    patterns = {f"llm.script.slots.{name}.hear": slot.hear for name, slot in script.slots.items()}
    patterns |= {f"llm.script.rules[{index}].hear": rule.hear for index, rule in enumerate(script.rules)}
    for where, pattern in patterns.items():
        try:
            re.compile(pattern)
        except re.error as error:
            yield f"{where}: no regular expression: {error}"


def _placed(text: str) -> str:
    """Turn msgspec's ``what - at `$.a.b``` into ``a.b: what``."""
    what, separator, place = text.rpartition(" - at `$")
    if not separator:
        return text
    what = what.replace("`", "")
    return f"{place.rstrip('`').lstrip('.')}: {what[:1].lower()}{what[1:]}"


def _inside(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
