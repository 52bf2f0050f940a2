"""The temporary folder of a set-up: gone with it, and if it was killed, swept away by the next one.

A lock says that a folder is in use; it goes with the process that holds it, however that ends.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

_PREFIX: Final = "trunkline-dev-"
_LOCK: Final = "in-use"


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a fresh folder; remove it afterwards, and before that those that nobody uses any more."""
    sweep(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name, (Path(name) / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Path(name)


def sweep(parent: Path) -> None:
    """Remove the folders in `parent` that a killed set-up of this user has left."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid == os.getuid() and not folder.is_symlink():
                with (folder / _LOCK).open() as lock:
                    if _nobody_holds(lock):
                        shutil.rmtree(folder, ignore_errors=True)


def _nobody_holds(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
