"""What a call's providers have cost so far, as its workers tell it. Pure.

Workers tell totals, so a message that is lost or comes twice does no harm; the totals of a worker that is gone stay.
"""

from typing import Final

from trunkline.proto.events import CallBilled, CostItem
from trunkline.proto.ids import Epoch, Stage
from trunkline.proto.messages import Used

_MOST_ITEMS: Final = 256
"""A call has a handful; more than this is somebody's mistake, and is not kept."""


class Bill:
    """One call's.

    Args:
        most_usd: what it may cost; None for any amount.
    """

    def __init__(self, most_usd: float | None) -> None:
        self._most_usd = most_usd
        self._totals: dict[tuple[Stage, Epoch, str, str], Used] = {}
        self.complete = True
        """Whether every worker has told its last; set to False when one was lost."""

    def take(self, used: Used) -> None:
        """Enter a worker's total."""
        key = used.stage, used.epoch, used.provider, used.model
        if key in self._totals or len(self._totals) < _MOST_ITEMS:
            self._totals[key] = used

    @property
    def totals(self) -> tuple[Used, ...]:
        """What was told, newest totals."""
        return tuple(self._totals.values())

    @property
    def usd(self) -> float:
        """The sum so far."""
        return sum(used.usd for used in self._totals.values())

    @property
    def exceeded(self) -> bool:
        """Whether the call has cost what it may."""
        return self._most_usd is not None and self.usd >= self._most_usd

    def fact(self) -> CallBilled | None:
        """Return the bill; None when no provider was used."""
        if not self._totals:
            return None
        items: dict[tuple[Stage, str, str], CostItem] = {}
        for (stage, _, provider, model), used in sorted(self._totals.items()):
            before = items.get((stage, provider, model), CostItem(stage=stage, provider=provider, model=model))
            items[stage, provider, model] = CostItem(
                stage=stage,
                provider=provider,
                model=model,
                audio_s=round(before.audio_s + used.audio_s, 3),
                characters=before.characters + used.characters,
                input_tokens=before.input_tokens + used.input_tokens,
                cached_tokens=before.cached_tokens + used.cached_tokens,
                output_tokens=before.output_tokens + used.output_tokens,
                usd=before.usd + used.usd,
                priced=before.priced and used.priced,
                estimated=before.estimated or used.estimated,
            )
        complete = self.complete and all(item.priced for item in items.values())
        return CallBilled(items=tuple(items.values()), usd=self.usd, complete=complete)
