"""Settings of the process: the variables ``TRUNKLINE_TTS_*``."""

from typing import Annotated

from msgspec import Meta

from trunkline.providers.settings import ProviderSettings
from trunkline.tts.floor import CAPACITY


class TtsSettings(ProviderSettings, frozen=True, kw_only=True):
    """How much one process takes on, and how long it waits."""

    give_up_s: Annotated[float, Meta(gt=0, le=3.5)] = 3.0
    """How long a sentence may look for a voice. The brain holds it for lost after 4 s without a sound."""
    capacity: Annotated[int, Meta(ge=1, le=10_000)] = 200
    """Calls served at once."""
    queue_sentences: Annotated[int, Meta(ge=1, le=10_000)] = CAPACITY
    """Sentences of a call that may wait; further ones are refused."""
    pieces_stall_ms: Annotated[int, Meta(ge=50, le=60_000)] = 10_000
    """How long a sentence that is still being written may stay as it is before it counts as complete."""
    clips_after_ms: Annotated[int, Meta(ge=0, le=60_000)] = 2_000
    """How long a call has the providers to itself before missing clips of its agent are made."""
