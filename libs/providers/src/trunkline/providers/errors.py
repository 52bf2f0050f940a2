"""What can go wrong with a provider, in the few kinds that policies tell apart.

Unusable                said before any request
├── Misconfigured       an agent asks for what is not there; `setting` is its path in the agent file, or a variable
└── Unavailable         it cannot work in this process: its library, its model or its account is missing

ProviderError           base; `kind` is a label for counters and records
├── Transient           the same request may work at once, here or elsewhere
│   └── Throttled       … but not before `retry_after_s`, if the provider said so
└── Refusal             the same request will be refused here again; elsewhere it may work
    ├── Unauthorised    the key is wrong, or the account may not
    └── Rejected        the request itself

Adapters turn whatever their library raises into one of these; nothing else leaves an adapter.
"""

from typing import Literal

Kind = Literal[
    "connect",
    "first-byte",
    "stall",
    "dropped",
    "server",
    "throttled",
    "unauthorised",
    "rejected",
    "malformed",
    "silent",
    "breaker-open",
    "internal",
]
LONGEST_TEXT = 300


class Unusable(Exception):
    """A provider that cannot be asked at all."""


class Misconfigured(Unusable):
    """A setting cannot be honoured, here or anywhere. `setting` is its path in the agent file, or a variable."""

    def __init__(self, setting: str, problem: str) -> None:
        self.setting = setting
        self.problem = problem
        super().__init__(f"{setting}: {problem}")


class Unavailable(Unusable):
    """The provider cannot work in this process; another worker might do better."""


class ProviderError(Exception):
    """A provider did not do what it was asked. The text is for people; it holds no key and nobody's words.

    What of it a provider wrote is cut short and made one line of printable characters.
    """

    kind: Kind = "internal"

    def __init__(self, text: str, kind: Kind | None = None) -> None:
        super().__init__(_plain(text[:LONGEST_TEXT]))
        if kind is not None:
            self.kind = kind


class Transient(ProviderError):
    """The same request may work at once: it was not reached, broke off, was too slow, or made no sense.

    `kind` is one of ``connect`` (no connection), ``first-byte`` and ``stall`` (too slow), ``dropped`` (the connection
    broke), ``server`` (5xx and the like), ``malformed`` (an answer that cannot be read), ``silent`` (no words).
    """

    kind: Kind = "server"


class Throttled(Transient):
    """The provider wants fewer requests, and none for `retry_after_s` if it said so."""

    kind: Kind = "throttled"

    def __init__(self, text: str, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class Refusal(ProviderError):
    """The same request will be refused here again."""

    kind: Kind = "rejected"


class Unauthorised(Refusal):
    """The key is wrong, or its account may not do this."""

    kind: Kind = "unauthorised"


class Rejected(Refusal):
    """The provider understood the request and refused it."""


def _plain(text: str) -> str:
    """Return `text` in one line that can be sent and shown: JSON can hold half a character, and any control."""
    whole = text.encode(errors="replace").decode()
    return "".join(character if character.isprintable() else " " for character in whole)


def of_status(status: int, text: str, retry_after: str | None = None) -> ProviderError:
    """Return the error that an HTTP `status` (or one sent in a WebSocket's refusal) stands for.

    Args:
        status: HTTP status code.
        text: what the provider said, without keys.
        retry_after: the header of that name, seconds; anything else in it is ignored (RFC 9110, 10.2.3).
    """
    if status in {401, 402, 403}:
        return Unauthorised(text)
    if status == 429:
        return Throttled(text, seconds_of(retry_after))
    if status in {408, 409, 425} or status >= 500:
        return Transient(text, "server")
    return Rejected(text)


def seconds_of(retry_after: str | None) -> float | None:
    """Return the seconds a ``retry-after`` header asks for, at most an hour; None if it says nothing usable."""
    try:
        seconds = float(retry_after or "")
    except ValueError:
        return None
    return min(seconds, 3_600.0) if seconds >= 0 else None
