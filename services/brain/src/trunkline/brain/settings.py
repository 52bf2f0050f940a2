"""Settings of the brain: the variables ``TRUNKLINE_BRAIN_*``."""

from typing import Annotated

from msgspec import Meta

from trunkline.providers.settings import ProviderSettings


class BrainSettings(ProviderSettings, frozen=True, kw_only=True):
    """How much one process takes on."""

    capacity: Annotated[int, Meta(ge=1, le=10_000)] = 500
    """Calls at once."""
