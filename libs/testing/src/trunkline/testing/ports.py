"""Ports for servers that must be known before they listen, or that come back after they were gone."""

import random
import socket
from typing import Final

HOST: Final = "127.0.0.1"
_RANGE: Final = (20_000, 32_000)
"""Below what Linux hands out to whoever connects somewhere: a port out of it stays free while its server is away."""
_TRIES: Final = 200


def free_ports(count: int) -> list[int]:
    """Return `count` different ports of loopback that nobody listens on right now.

    Raises:
        OSError: there are not that many.
    """
    found: set[int] = set()
    for _ in range(_TRIES + count):
        port = random.randint(*_RANGE)  # noqa: S311 - no secret
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        found.add(port)
        if len(found) == count:
            return list(found)
    raise OSError(f"no {count} free ports between {_RANGE[0]} and {_RANGE[1]}")
