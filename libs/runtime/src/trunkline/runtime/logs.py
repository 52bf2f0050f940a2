"""Logs: JSON lines for machines, aligned text for a terminal.

Messages are constant; what varies goes into fields (``extra=``). Fields that may hold what people said, their numbers
or digits begin with ``pii.`` and are left out unless the process is told to show them. The messages of exceptions may
quote any of that: they are left out as well, and frames and types remain.
"""

import logging
import sys
import textwrap
import traceback
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import msgspec

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_ENCODER = msgspec.json.Encoder(enc_hook=str)
_COLOURS = {"DEBUG": "2", "INFO": "36", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}

# At lower levels these write keys, and what callers and agents say.
_TELLTALES = frozenset(
    {"httpx", "httpcore", "httpx2", "httpcore2", "websockets", "openai", "anthropic", "google_genai"}
)

_CAUSED = "\nThe above exception was the direct cause of the following exception:\n\n"
_MEANWHILE = "\nDuring handling of the above exception, another exception occurred:\n\n"


def configure(
    service: str,
    level: str = "info",
    form: Literal["auto", "json", "text"] = "auto",
    *,
    show_pii: bool = False,
    stream: TextIO | None = None,
) -> None:
    """Send every log record of the process to `stream` (standard error unless given)."""
    out = stream or sys.stderr
    text = form == "text" or (form == "auto" and out.isatty())
    handler = logging.StreamHandler(out)
    handler.setFormatter(TextLines(colour=out.isatty(), show_pii=show_pii) if text else JsonLines(service, show_pii))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Levels alone do not keep these down: some set their own from the environment when they are imported.
    handler.addFilter(lambda record: record.levelno >= logging.WARNING or record.name.split(".")[0] not in _TELLTALES)
    # These tell at INFO what the chassis tells itself, or repeat what their callers log.
    for noisy in ("uvicorn", "uvicorn.error", "asyncio", "nats", *_TELLTALES):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def fields_of(record: logging.LogRecord, *, show_pii: bool) -> dict[str, Any]:
    """Return what was passed as ``extra``, without ``pii.*`` unless `show_pii`."""
    extra: Mapping[str, Any] = {key: value for key, value in vars(record).items() if key not in _STANDARD}
    return {key: value for key, value in extra.items() if show_pii or not key.startswith("pii.")}


def exception_of(record: logging.LogRecord, *, show_pii: bool) -> str:
    """Return the traceback of a record's exception; without messages and notes unless `show_pii`."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return ""
    lines = traceback.format_exception(error) if show_pii else _without_messages(error, set())
    return "".join(lines).rstrip("\n")


def _without_messages(error: BaseException, seen: set[int]) -> Iterator[str]:
    """Tell an exception as Python would (what led to it first), of each one only the frames and the type."""
    chain: list[tuple[BaseException, str]] = []
    at: BaseException | None = error
    after = ""
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        chain.append((at, after))
        if at.__cause__ is not None:
            at, after = at.__cause__, _CAUSED
        else:
            at, after = None if at.__suppress_context__ else at.__context__, _MEANWHILE
    for one, after in reversed(chain):
        if one.__traceback__ is not None:
            yield "Traceback (most recent call last):\n"
            yield from traceback.format_tb(one.__traceback__)
        yield f"{_name_of(type(one))}\n"
        if isinstance(one, BaseExceptionGroup):
            for number, member in enumerate(one.exceptions, start=1):
                yield f"  --- {number} of {len(one.exceptions)} ---\n"
                yield from (textwrap.indent(lines, "  ") for lines in _without_messages(member, seen))
        yield after


def _name_of(kind: type[BaseException]) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, service, logger, message, then the fields."""

    def __init__(self, service: str, show_pii: bool) -> None:  # noqa: FBT001 - a format is made in one place, by name
        super().__init__()
        self._service = service
        self._show_pii = show_pii

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update(fields_of(record, show_pii=self._show_pii))
        if record.exc_info:
            line["exception"] = exception_of(record, show_pii=self._show_pii)
        return _ENCODER.encode(line).decode()


class TextLines(logging.Formatter):
    """A line for people: time, level, logger, message, then the fields."""

    def __init__(self, *, colour: bool, show_pii: bool) -> None:
        super().__init__()
        self._colour = colour
        self._show_pii = show_pii

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one readable line, a traceback below it if there is one."""
        clock = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S.%f")[:-3]
        level = f"{record.levelname.lower():<7}"
        if self._colour:
            level = f"\x1b[{_COLOURS.get(record.levelname, '0')}m{level}\x1b[0m"
        name = record.name.removeprefix("trunkline.")
        fields = " ".join(f"{k}={v}" for k, v in fields_of(record, show_pii=self._show_pii).items())
        line = f"{clock} {level} {name:<14} {record.getMessage()}" + (f"  {fields}" if fields else "")
        return line + ("\n" + exception_of(record, show_pii=self._show_pii) if record.exc_info else "")
