"""What can go wrong with the servers and the caller of this library.

TestingError
├── NatsMissing        no nats-server binary on this machine
├── NatsNotStarted     the binary is there, the server did not come up
└── CallFailed         the call could not be placed: webhook, TwiML or WebSocket refused
"""


class TestingError(RuntimeError):
    """Something this library drives did not do its part."""

    __test__ = False  # or pytest takes the name for a test class


class NatsMissing(TestingError):
    """There is no nats-server binary; the text names the package that brings it."""


class NatsNotStarted(TestingError):
    """nats-server ended or stayed mute; the text carries its own words."""


class CallFailed(TestingError):
    """The far side refused the call; the text says at which step and what it answered.

    Attributes:
        status: HTTP status of the webhook or the WebSocket handshake; None if nothing answered.
    """

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status
