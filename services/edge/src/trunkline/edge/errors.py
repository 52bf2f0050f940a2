"""What the edge refuses.

EdgeError
├── NotStarted        a message was asked of a carrier's stream that has not begun
├── NoStageWorker     no worker of a stage takes the call
├── LineClosed        the carrier's socket is gone; `code` says how
├── NotPlaced         the carrier did not place a call
└── RequestRefused    an HTTP request that is answered with `status` and this text
"""

from trunkline.proto.ids import Stage


class EdgeError(Exception):
    """Something the edge was asked to do cannot be done."""


class NotStarted(EdgeError):
    """A carrier's stream has to begin before anything can be sent on it."""


class NoStageWorker(EdgeError):
    """Nobody takes the call for `stage`."""

    def __init__(self, stage: Stage, why: str) -> None:
        super().__init__(f"no {stage} worker: {why}")
        self.stage = stage
        self.why = why


class LineClosed(EdgeError):
    """The carrier's socket is closed; `code` is the WebSocket close code, 1005 or 1006 when there was none."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"closed with {code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class NotPlaced(EdgeError):
    """The carrier did not place a call. `detail` is in the carrier's words, which may repeat the number."""

    def __init__(self, why: str, detail: str) -> None:
        super().__init__(why)
        self.detail = detail


class RequestRefused(EdgeError):
    """An HTTP request that gets `status` and this text; `reason` labels a counter.

    `private` is for whoever asked: it may hold numbers, and is logged as such.
    """

    def __init__(self, status: int, reason: str, text: str, private: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.private = private
        self.reason = reason
