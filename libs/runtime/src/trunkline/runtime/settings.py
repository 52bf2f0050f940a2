"""Settings from the environment into frozen structs.

A field ``foo_ms`` of a struct loaded with prefix ``TRUNKLINE_STT_`` is the variable ``TRUNKLINE_STT_FOO_MS``.
A variable that is set but empty counts as unset.
"""

import difflib
import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import msgspec

T = TypeVar("T", bound=msgspec.Struct)

Secret = Annotated[str, msgspec.Meta(extra={"secret": True})]
"""Text that no error or log may show."""


class SettingsError(ValueError):
    """One or more variables are wrong; the text has a line for each, with name, value and what is allowed."""


class BaseSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What every process shares: the variables ``TRUNKLINE_*``."""

    nats_url: str = "nats://127.0.0.1:4222"
    nats_replicas: Literal[1, 3, 5] = 1
    """Copies of what JetStream keeps (facts, clips, live calls) in a cluster. What exists is left as it is."""
    journal: str = ""
    """Folder in which every process writes down what it did, frame by frame: for proofs, not for production."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "text"] = "auto"
    log_pii: bool = False
    """Whether logs show what people said, their numbers and digits, and the messages of exceptions."""
    agents: str = ""
    """Folder of agent files; a worker that is given it checks at its start what they need of it."""
    drain_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 3_600.0
    """How long a process that was asked to stop (SIGTERM) waits for its calls."""


class HttpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where a process serves health, metrics and statistics. Port 0 takes a free one."""

    http_host: str = "127.0.0.1"
    http_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0


def load(struct: type[T], prefix: str, environ: Mapping[str, str]) -> T:
    """Read the fields of `struct` from `environ`.

    Raises:
        SettingsError: a value does not fit its field, or a field without default is not set.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for field in msgspec.structs.fields(struct):
        name = prefix + field.name.upper()
        raw = environ.get(name, "")
        if raw == "":
            if field.required:
                problems.append(f"{name} is not set; expected {allowed(field.type)}")
            continue
        try:
            values[field.name] = msgspec.convert(raw, field.type, strict=False)
        except msgspec.ValidationError:
            shown = "(hidden)" if _is_secret(field.type) else repr(raw)
            problems.append(f"{name}={shown} is wrong; expected {allowed(field.type)}")
    if problems:
        raise SettingsError("\n".join(problems))
    return struct(**values)


def unknown(structs: Iterable[type[msgspec.Struct]], prefix: str, environ: Mapping[str, str]) -> list[str]:
    """Return a sentence for every variable that begins with `prefix` and that no field of `structs` reads."""
    names = {prefix + field.name.upper() for struct in structs for field in msgspec.structs.fields(struct)}
    sentences = []
    for name in sorted(environ):
        if name.startswith(prefix) and name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            sentences.append(f"{name} is no setting" + (f"; did you mean {near[0]}?" if near else ""))
    return sentences


def allowed(kind: object) -> str:
    """Describe in words the values a field of type `kind` takes."""
    origin = get_origin(kind)
    if origin is Annotated:
        base, *metas = get_args(kind)
        return allowed(base) + "".join(_limits(meta) for meta in metas if isinstance(meta, msgspec.Meta))
    if origin is Literal:
        return "one of " + ", ".join(str(value) for value in get_args(kind))
    if origin is types.UnionType:
        return " or ".join(allowed(arg) for arg in get_args(kind) if arg is not type(None))
    names: dict[object, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return names.get(kind, str(kind))


def _limits(meta: msgspec.Meta) -> str:
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than", "pattern": "matching"}
    return "".join(f", {word} {getattr(meta, name)}" for name, word in words.items() if getattr(meta, name) is not None)


def _is_secret(kind: object) -> bool:
    if get_origin(kind) is types.UnionType:
        return any(_is_secret(arg) for arg in get_args(kind))
    metas = get_args(kind)[1:] if get_origin(kind) is Annotated else ()
    return any(isinstance(meta, msgspec.Meta) and (meta.extra or {}).get("secret") for meta in metas)
