"""How JetStream streams are made, and how long to wait for one; the stream EVENTS, which keeps the facts of every call.

A stream is made by whoever needs it first. What is in it is the business of those who read and write it.
"""

import contextlib
import logging
import random
from typing import Final, Protocol

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext, api

from trunkline.bus.direct import DirectClient
from trunkline.bus.errors import BusUnavailable
from trunkline.bus.storing import Storing
from trunkline.proto import subjects

log = logging.getLogger("trunkline.bus.streams")

MAX_AGE_S: Final = 7 * 24 * 3600.0
MAX_BYTES: Final = 2**30
SMALLEST_MAX_BYTES: Final = 2**24
DUPLICATE_WINDOW_S: Final = 600.0
API_TIMEOUT_S: Final = 2.0
_FIRST_RETRY_S: Final = 0.1
_LONGEST_RETRY_S: Final = 5.0
_NO_STORAGE: Final = 10047
"""JetStream's error for a stream whose limit is more than the server may still promise."""

AWAY: Final = (nats.errors.Error, TimeoutError, OSError)
"""What nats-py raises when the server, or JetStream, does not answer as hoped."""


class HasControl(Protocol):
    """What is needed of a `Bus`."""

    control: DirectClient
    storing: Storing


async def ensure_events_stream(bus: HasControl, *, max_bytes: int = MAX_BYTES, replicas: int = 1) -> None:
    """Make the stream EVENTS unless there is one. One that exists is left as it is, however it is configured.

    Where the server cannot promise `max_bytes`, less is asked for, down to 16 MiB. `replicas` servers keep it.

    Raises:
        BusUnavailable: JetStream is away, switched off, or refuses the stream.
    """
    config = api.StreamConfig(
        name=subjects.EVENTS_STREAM,
        description="Lifecycle facts of every call",
        subjects=[subjects.EVENTS_ALL],
        storage=api.StorageType.FILE,
        retention=api.RetentionPolicy.LIMITS,
        discard=api.DiscardPolicy.OLD,
        max_age=MAX_AGE_S,
        max_bytes=max_bytes,
        duplicate_window=DUPLICATE_WINDOW_S,
        num_replicas=replicas,
    )
    try:
        await ensure_stream(bus.control.jetstream(timeout=API_TIMEOUT_S), config, SMALLEST_MAX_BYTES)
    except AWAY as error:
        raise BusUnavailable(f"no stream {subjects.EVENTS_STREAM}: {why(error)}") from error


async def ensure_stream(jetstream: JetStreamContext, config: api.StreamConfig, smallest_max_bytes: int) -> None:
    """Make the stream `config` describes unless there is one of its name; one that exists is left as it is.

    Where the server cannot promise so many bytes, a quarter is asked for, and so on down to `smallest_max_bytes`.

    Raises:
        nats.errors.Error: JetStream is away, or refuses the stream.
    """
    name = str(config.name)
    with contextlib.suppress(nats.js.errors.NotFoundError):
        await jetstream.stream_info(name)
        return
    while True:
        try:
            await jetstream.add_stream(config)
        except nats.js.errors.APIError as error:
            # Two processes may have asked at once, the other one with a newer idea of the configuration.
            with contextlib.suppress(nats.js.errors.NotFoundError):
                await jetstream.stream_info(name)
                return
            smaller = (config.max_bytes or 0) // 4
            if error.err_code != _NO_STORAGE or smaller < smallest_max_bytes:
                raise
            config = config.evolve(max_bytes=smaller)
        else:
            log.info("stream made", extra={"stream": name, "max_bytes": config.max_bytes})
            return


def retry_s(failures: int) -> float:
    """Return how long to wait after `failures` in a row: exponential, spread, at most 5 s."""
    longest = min(_LONGEST_RETRY_S, _FIRST_RETRY_S * 2.0 ** min(failures - 1, 10))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing


def why(error: BaseException) -> str:
    """Return what `error` says, without the library's prefix."""
    return str(error).removeprefix("nats: ") or type(error).__name__
