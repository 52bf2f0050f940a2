"""Settings of the process: the variables ``TRUNKLINE_STT_*``."""

from typing import Annotated

from msgspec import Meta

from trunkline.providers.settings import ProviderSettings


class SttSettings(ProviderSettings, frozen=True, kw_only=True):
    """How much one process takes on, and how long it waits."""

    capacity: Annotated[int, Meta(ge=1, le=2_000)] = 200
    """Calls served at once."""
    final_timeout_ms: Annotated[int, Meta(ge=100, le=60_000)] = 3_000
    """How long after its end an utterance may wait for its words; then the turn ends without them."""
    warm: str = "local"
    """Provider made ready before the first call; empty for none."""
