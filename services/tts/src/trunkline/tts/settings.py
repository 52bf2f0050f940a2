"""Settings of the process: the variables ``TRUNKLINE_TTS_*``."""

from typing import Annotated

import msgspec
from msgspec import Meta

from trunkline.tts.floor import CAPACITY


class TtsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How much one process takes on, and how long it waits."""

    capacity: Annotated[int, Meta(ge=1, le=10_000)] = 200
    """Calls served at once."""
    queue_sentences: Annotated[int, Meta(ge=1, le=10_000)] = CAPACITY
    """Sentences of a call that may wait; further ones are refused."""
    stall_ms: Annotated[int, Meta(ge=100, le=60_000)] = 5_000
    """Silence of a provider in mid-sentence after which the sentence is given up."""
