"""What hearing refuses or fails at.

SttError
├── Misconfigured    the agent asks for something that cannot be had; names the setting, the value and what is wrong
└── Unavailable      the provider itself cannot work here: its library, its model or its account is missing
"""


class SttError(Exception):
    """Base of all."""


class Misconfigured(SttError):
    """A setting of the agent cannot be honoured, here or anywhere. `setting` is its path in the agent file."""

    def __init__(self, setting: str, problem: str) -> None:
        self.setting = setting
        self.problem = problem
        super().__init__(f"{setting}: {problem}")


class Unavailable(SttError):
    """The provider cannot work in this process; another worker might do better."""
