"""Logs: JSON lines for machines, aligned text for a terminal.

Messages are constant; what varies goes into fields (``extra=``). Fields that may hold what people said, their numbers
or digits begin with ``pii.`` and are left out unless the process is told to show them.
"""

import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import msgspec

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_ENCODER = msgspec.json.Encoder(enc_hook=str)
_COLOURS = {"DEBUG": "2", "INFO": "36", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}


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
    # These tell at INFO what the chassis tells itself, or repeat what their callers log.
    for noisy in ("uvicorn", "uvicorn.error", "httpx", "httpcore", "nats", "websockets", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def fields_of(record: logging.LogRecord, *, show_pii: bool) -> dict[str, Any]:
    """Return what was passed as ``extra``, without ``pii.*`` unless `show_pii`."""
    extra: Mapping[str, Any] = {key: value for key, value in vars(record).items() if key not in _STANDARD}
    return {key: value for key, value in extra.items() if show_pii or not key.startswith("pii.")}


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
            line["exception"] = self.formatException(record.exc_info)
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
        return line + ("\n" + self.formatException(record.exc_info) if record.exc_info else "")
