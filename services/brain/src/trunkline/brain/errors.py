"""What can go wrong while thinking.

BrainError
├── Misconfigured      the agent asks for what is not there; `setting` is the path to it in the agent file
├── LlmError           a model gave no answer
│   ├── Transient          it may work at once: a connection broke, the provider failed or was too slow
│   ├── Throttled          it may work after `retry_after_s`
│   └── Rejected           it will not work: the provider understood the request and refused it
└── ToolFailed         a tool gave no result; the text is fit to be told to a model

Adapters map whatever their library raises to one of these; nothing else leaves a provider.
"""


class BrainError(Exception):
    """Something the brain was asked to do cannot be done."""


class Misconfigured(BrainError):
    """The agent asks for what is not there.

    Attributes:
        setting: path in the agent file, for example ``llm.provider`` or ``tools[0].name``.
    """

    def __init__(self, setting: str, text: str) -> None:
        super().__init__(f"{setting}: {text}")
        self.setting = setting


class LlmError(BrainError):
    """A model gave no answer, or only the beginning of one."""


class Transient(LlmError):
    """Trying again, or elsewhere, may work at once."""


class Throttled(LlmError):
    """The provider wants fewer requests."""

    def __init__(self, text: str, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class Rejected(LlmError):
    """The provider refused the request; the same one will be refused again."""


class ToolFailed(BrainError):
    """A tool gave no result. The text says why, in words a model can be told."""
