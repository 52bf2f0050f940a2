"""What a process did, line by line, for whoever proves afterwards that nothing was lost: `TRUNKLINE_JOURNAL`.

Every line is written at once and without a buffer of ours, so it survives whatever kills the process. Times are those
of the machine's steady clock, which all its processes share. It knows nothing of what is noted, and is off unless asked
for: it is a tool for tests, not a log.
"""

import os
from pathlib import Path
from typing import Final

import msgspec

from trunkline.runtime.clock import SYSTEM

_ENCODER: Final = msgspec.json.Encoder()


class Journal:
    """One process's file in `folder`; with no folder it notes nothing.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, folder: str = "", who: str = "") -> None:
        self.on: Final = bool(folder)
        """Whether anything is noted. Ask before preparing what would be noted for every frame."""
        self.who = who
        """Who writes: the worker's id, as soon as it is known."""
        self._file = -1
        if folder:
            path = Path(folder)
            path.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._file = os.open(path / f"{who}-{os.getpid()}.jsonl", flags, 0o600)

    def note(self, what: str, call: str, **fields: object) -> None:
        """Write that `what` happened in `call`."""
        if self.on:
            line = {"t": SYSTEM.monotonic(), "who": self.who, "what": what, "call": call, **fields}
            os.write(self._file, _ENCODER.encode(line) + b"\n")

    def close(self) -> None:
        """Write no more."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
