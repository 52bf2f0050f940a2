"""How adapters open a WebSocket to their service: within the agent's time, with no redirect, and with nothing in logs.

Needs the distribution ``websockets``, which this one does not ask for: only adapters that depend on it may import this.
"""

import logging
import ssl
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.http11 import Response

from trunkline.providers.errors import ProviderError, Transient

# The library writes headers (the key) and messages (what is said) to a log of level DEBUG.
_quiet = logging.getLogger("trunkline.providers.sockets")
_quiet.setLevel(logging.INFO)

_QUEUE: Final = 16


class _Direct(connect):
    def process_redirect(self, exc: Exception) -> Exception | str:
        """Follow none: that would hand the key and what callers say to a host that nobody named."""
        return exc


@cache
def tls() -> ssl.SSLContext:
    """Return the process's TLS settings; the first time takes some 30 ms."""
    return ssl.create_default_context()


async def connected(
    url: str,
    headers: dict[str, str],
    connect_s: float,
    refused: Callable[[Response], ProviderError],
    *,
    max_queue: int = _QUEUE,
) -> ClientConnection:
    """Return a connection to `url`. Sound does not compress, so nothing is.

    Args:
        url: ``ws`` or ``wss``, with the query.
        headers: the key among them.
        connect_s: how long it may take until the server has agreed to the WebSocket.
        refused: tells what an HTTP answer other than that means.
        max_queue: messages that wait to be read before no more are taken from the network.

    Raises:
        ProviderError: there is none.
    """
    secure: dict[str, Any] = {"ssl": tls()} if url.startswith("wss:") else {}
    try:
        return await _Direct(
            url,
            additional_headers=headers,
            compression=None,
            logger=_quiet,
            open_timeout=connect_s,
            max_queue=max_queue,
            **secure,
        )
    except InvalidStatus as error:
        raise refused(error.response) from error
    except TimeoutError as error:
        raise Transient(f"no connection within {connect_s * 1_000:.0f} ms", "connect") from error
    except OSError as error:
        raise Transient(f"no connection: {error.strerror or type(error).__name__}", "connect") from error
    except (WebSocketException, EOFError, ValueError) as error:  # their texts quote the address, or what was answered
        raise Transient(f"no connection: {type(error).__name__}", "connect") from error
