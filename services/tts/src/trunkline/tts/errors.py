"""What speaking refuses or fails at.

TtsError
├── Misconfigured      the agent asks for a provider or a voice that is not there; names setting, value and choice
├── Unavailable        the provider itself cannot work here: its library or its account is missing
└── SynthesisFailed    one sentence could not be spoken
"""

from collections.abc import Iterable


class TtsError(Exception):
    """Base of all."""


class Misconfigured(TtsError):
    """A setting of the agent cannot be honoured."""

    def __init__(self, setting: str, value: str, allowed: Iterable[str]) -> None:
        self.setting = setting
        self.value = value
        self.allowed = tuple(allowed)
        super().__init__(f"{setting} = {value!r} is not there; expected one of {', '.join(self.allowed)}")


class Unavailable(TtsError):
    """The provider cannot work in this process."""


class SynthesisFailed(TtsError):
    """The provider gave up on a sentence."""
