"""What can go wrong on the bus.

BusError
├── BusUnavailable    no connection: not yet, not any more, or closed for good
├── BusTimeout        nobody answered in time
├── NoWorker          nobody listens there: known at once, not after a time-out
├── Outdated          somebody else has written what was to be written
└── Unservable        a worker cannot take this call, and says why
"""


class BusError(Exception):
    """Base of all."""


class BusUnavailable(BusError, ConnectionError):
    """There is no connection to NATS."""


class BusTimeout(BusError):
    """A request was delivered, or may have been, and no answer came in time."""


class NoWorker(BusError):
    """A request found no subscriber."""


class Outdated(BusError):
    """Somebody else has written the key since the revision that was named."""


class Unservable(BusError):
    """Raised by a worker's `open_call`: this call cannot be served here.

    `retry` says whether another worker might do better; a wrong setting of the agent would fail everywhere.
    """

    def __init__(self, reason: str, *, retry: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry = retry
