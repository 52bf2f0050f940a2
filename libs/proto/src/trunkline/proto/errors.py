"""What the contract refuses.

ProtoError
├── BadFrame      audio with a header or length that cannot be right
└── BadMessage    text that is no message of the expected union
"""


class ProtoError(ValueError):
    """Something on the bus, or in a file, is not what the contract says."""


class BadFrame(ProtoError):
    """An audio frame cannot be parsed."""


class BadMessage(ProtoError):
    """A message cannot be parsed; the text says where."""
