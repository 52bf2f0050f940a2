"""TCP ports of this machine: which are free, and who has one."""

import contextlib
import errno
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from trunkline.testing.ports import free_ports

_LISTENING: Final = "0A"
_SEARCHED: Final = 200


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Return whether nobody listens on `port` of `host`.

    Raises:
        OSError: `host` is no address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Without SO_REUSEPORT: with it, a listener of the same user that shares its port would go unnoticed.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EACCES}:
                return False
            raise
        return True


def any_free(host: str = "127.0.0.1") -> int:
    """Return a port that is free now, and is not handed out to whoever connects somewhere before it is listened on."""
    (port,) = free_ports(1, host)
    return port


def next_free(port: int, host: str = "127.0.0.1") -> int:
    """Return the first free port above `port`, or any free one if there is none nearby."""
    above = range(port + 1, min(port + _SEARCHED, 65_536))
    return next((candidate for candidate in above if is_free(candidate, host)), 0) or any_free(host)


def holder(port: int, proc: Path = Path("/proc")) -> str:
    """Return who listens on `port`, as ``name (pid 123)``; empty where that cannot be known."""
    inodes: set[str] = set()
    for table in ("net/tcp", "net/tcp6"):
        with contextlib.suppress(OSError):
            inodes |= listeners((proc / table).read_text().splitlines()[1:], port)
    sockets = {f"socket:[{inode}]" for inode in inodes}
    for process in proc.glob("[0-9]*") if sockets else ():
        with contextlib.suppress(OSError):
            if any(str(link.readlink()) in sockets for link in (process / "fd").iterdir()):
                words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
                return f"{_title(words)} (pid {process.name})"
    return ""


def listeners(rows: Iterable[str], port: int) -> set[str]:
    """Return the inodes of the sockets in `rows` of ``/proc/net/tcp`` that listen on `port`."""
    inodes = set()
    for row in rows:
        fields = row.split()
        if len(fields) > 9 and fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
            inodes.add(fields[9])
    return inodes


def _title(words: list[str]) -> str:
    name = Path(words[0]).name if words and words[0] else "another process"
    if "-m" in words[:-1]:
        return f"{name} -m {words[words.index('-m') + 1]}"
    script = words[1] if len(words) > 1 and not words[1].startswith("-") else ""
    return f"{name} {Path(script).name}".strip() if name.startswith("python") else name
