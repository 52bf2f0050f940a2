"""What can go wrong with the servers and the caller of this library.

TestingError
├── NatsMissing        no nats-server binary on this machine
├── NatsNotStarted     the binary is there, the server did not come up
├── NatsNotReloaded    the server refuses the configuration it was to take while running
├── NoQuorum           a cluster has no leader, for itself or for a stream
└── CallFailed         the call could not be placed: webhook, TwiML or WebSocket refused
"""


class TestingError(RuntimeError):
    """Something this library drives did not do its part."""

    __test__ = False  # or pytest takes the name for a test class


class NatsMissing(TestingError):
    """There is no nats-server binary; the text names the package that brings it."""


class NatsNotStarted(TestingError):
    """nats-server ended or stayed mute; the text carries its own words."""


class NatsNotReloaded(TestingError):
    """The server goes on with the configuration it had; the text says what it thinks of the new one."""


class NoQuorum(TestingError):
    """Too few servers of a cluster agree on who leads; the text names what has no leader."""


class CallFailed(TestingError):
    """The far side refused the call; the text says at which step and what it answered.

    Attributes:
        status: HTTP status of the webhook or the WebSocket handshake; None if nothing answered.
    """

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status
