"""What keeps a development set-up from running.

DevError
├── BadOption      an option or variable cannot be used as given
├── PortTaken      somebody else listens on the edge's port
├── StartFailed    a process ended, or was not ready in time
└── BusFailed      the embedded NATS did not start
"""

from collections.abc import Sequence


class DevError(Exception):
    """The set-up cannot run; the text is for the person at the terminal."""


class BadOption(DevError):
    """An option or variable cannot be used as given; the text says what can."""


class PortTaken(DevError):
    """Somebody else listens on `port`; `holder` says who, where that is known, and `free` is a port to use instead."""

    def __init__(self, port: int, holder: str, free: int) -> None:
        by = f" by {holder}" if holder else ""
        super().__init__(f"port {port} is taken{by}; port {free} is free: use --port {free}")
        self.port = port
        self.holder = holder
        self.free = free


class StartFailed(DevError):
    """The process called `name` is not ready, because of `reason`; `last_lines` is what it said last."""

    def __init__(self, name: str, reason: str, last_lines: Sequence[str] = ()) -> None:
        super().__init__(f"{name} did not start: {reason}")
        self.name = name
        self.reason = reason
        self.last_lines = tuple(last_lines)


class BusFailed(DevError):
    """The embedded NATS did not start; the text says why."""
