"""Ports for servers that must be known before they listen, or that come back after they were gone."""

import errno
import random
import socket
from typing import Final

HOST: Final = "127.0.0.1"
_RANGE: Final = (20_000, 32_000)
"""Below what Linux hands out to whoever connects somewhere: a port out of it stays free while its server is away."""
_TRIES: Final = 200
_given: set[int] = set()
"""Whoever was given one of these may not listen on it yet."""


def free_ports(count: int, host: str = HOST) -> list[int]:
    """Return `count` ports of `host` that nobody listens on right now, and that this process was not given before.

    Raises:
        OSError: there are not that many, or `host` is no address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found: list[int] = []
    for _ in range(_TRIES + count):
        port = random.randint(*_RANGE)  # noqa: S311 - no secret
        if port in _given:
            continue
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if error.errno not in {errno.EADDRINUSE, errno.EACCES}:
                    raise
                continue
        _given.add(port)
        found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"no {count} free ports between {_RANGE[0]} and {_RANGE[1]}")
