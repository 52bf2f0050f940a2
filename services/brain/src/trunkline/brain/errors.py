"""What can go wrong while thinking, beside what a provider does.

BrainError
└── ToolFailed         a tool gave no result; the text is fit to be told to a model
"""


class BrainError(Exception):
    """Something the brain was asked to do cannot be done."""


class ToolFailed(BrainError):
    """A tool gave no result. The text says why, in words a model can be told."""
