"""A note that says where the running set-up is, so that other commands find it without being told."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec


class Whereabouts(msgspec.Struct, frozen=True):
    """What the note says."""

    nats_url: str
    edge_url: str
    pid: int


def note_path(environ: Mapping[str, str], uid: int | None = None) -> Path:
    """Return where the note is kept: ``$XDG_RUNTIME_DIR``, or the folder for temporary files, one folder per user."""
    folder = environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return Path(folder) / f"trunkline-{os.getuid() if uid is None else uid}" / "dev.json"


def read(path: Path) -> Whereabouts | None:
    """Return what the note at `path` says; None if there is none, it is no note, or whoever wrote it is gone."""
    try:
        note = msgspec.json.decode(path.read_bytes(), type=Whereabouts)
        os.kill(note.pid, 0)
    except PermissionError:
        return None
    except (OSError, msgspec.MsgspecError):
        return None
    return note


@contextlib.contextmanager
def left(note: Whereabouts, path: Path) -> Iterator[None]:
    """Leave `note` at `path` for the length of a block.

    A later set-up of the same user replaces it; then it is theirs, and stays.

    Raises:
        OSError: the folder is somebody else's or cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.parent.stat().st_uid != os.getuid():
        raise PermissionError(f"{path.parent} belongs to another user")
    path.parent.chmod(0o700)
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_bytes(msgspec.json.encode(note))
    fresh.replace(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            if msgspec.json.decode(path.read_bytes(), type=Whereabouts) == note:
                path.unlink()
                path.parent.rmdir()  # only if nothing else is kept there
