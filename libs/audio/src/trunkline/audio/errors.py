"""What the audio library refuses.

AudioError
├── BadAudio    bytes that are no whole number of samples, or a rate that cannot be
└── BadWav      a file that cannot be read as PCM16 or μ-law; the text names it and the reason
"""

from pathlib import Path


class AudioError(ValueError):
    """Audio is not what it was said to be."""


class BadAudio(AudioError):
    """Samples cannot be made of these bytes, or a rate is out of range."""


class BadWav(AudioError):
    """A WAV file cannot be read."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason
