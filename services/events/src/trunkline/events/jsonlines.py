"""A file of JSON lines that is only ever appended to, by whoever is its one writer at the time.

Promise: when `JsonLinesFile.write` returns, the lines are on the disk (written, then fsync, once for all lines of the
call); when it raises, the file is as long as before. Blocking: call it in a thread. It may be renamed or emptied by
others at any time (log rotation): it is opened anew for every write.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from trunkline.bus import Recorded, read_envelope

_TAIL_BYTES: Final = 4 * 2**20
_OUR_START: Final = b'{"id":'


class JsonLinesFile:
    """One event per line, at `path`. Readable by its owner only: events hold what people said."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._left_as: tuple[int, int, int] | None = None

    def catch_up(self) -> list[Recorded]:
        """Return the last events in the file if somebody else has written it since we did, none otherwise.

        A line at the end that was cut off by a crash is removed: its event is not done with and comes again.

        Raises:
            OSError: the file cannot be read or mended.
        """
        with self._opened() as descriptor:
            if _identity(descriptor) == self._left_as:
                return []
            size = os.fstat(descriptor).st_size
            start = max(0, size - _TAIL_BYTES)
            tail = _read(descriptor, start, size - start)
            whole, newline, torn = tail.rpartition(b"\n")
            if torn:
                self._mend(descriptor, size, torn)
            self._left_as = _identity(descriptor)
        found = []
        for line in (whole + newline).splitlines():
            with contextlib.suppress(ValueError):
                found.append(read_envelope(line))
        if torn and _is_whole(torn):
            found.append(read_envelope(torn))
        return found

    def write(self, events: list[Recorded]) -> None:
        """Append `events`.

        Raises:
            OSError: the disk is full or broken, or the folder is gone; nothing was appended.
        """
        rest = memoryview(b"".join(_line(event.data) for event in events))
        with self._opened() as descriptor:
            before = os.fstat(descriptor).st_size
            try:
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
                os.fsync(descriptor)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, before)
                raise
            self._left_as = _identity(descriptor)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _mend(self, descriptor: int, size: int, torn: bytes) -> None:
        if _is_whole(torn) or not torn.startswith(_OUR_START):
            os.write(descriptor, b"\n")
        else:
            os.ftruncate(descriptor, size - len(torn))


def _identity(descriptor: int) -> tuple[int, int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino, found.st_size


def _read(descriptor: int, offset: int, size: int) -> bytes:
    parts = []
    while size > 0 and (part := os.pread(descriptor, size, offset)):
        parts.append(part)
        offset += len(part)
        size -= len(part)
    return b"".join(parts)


def _is_whole(line: bytes) -> bool:
    try:
        read_envelope(line)
    except ValueError:
        return False
    return True


def _line(data: bytes) -> bytes:
    return (msgspec.json.format(data, indent=-1) if b"\n" in data else data) + b"\n"
