"""What ends a simulated call before it can be judged.

CallToolError
├── BadScenario    the scenario file cannot be read; the text says where
├── BadTarget      what is to be called is no URL
└── NoVoice        the caller's words cannot be turned into audio

A call that cannot be placed raises `trunkline.testing.errors.CallFailed`, a bus that cannot be watched
`trunkline.bus.BusUnavailable`.
"""


class CallToolError(Exception):
    """Something is wrong with what the caller was given."""


class BadScenario(CallToolError):
    """A scenario is not what the README says; the text names file and place."""


class BadTarget(CallToolError):
    """Nobody can be called there."""


class NoVoice(CallToolError):
    """The caller cannot speak; the text says what is missing."""
