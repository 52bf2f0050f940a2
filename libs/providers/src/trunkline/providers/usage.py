"""What one call has used of one stage's providers so far, and what that costs. Pure."""

from collections.abc import Callable

from trunkline.proto.agent import Choice
from trunkline.proto.ids import Epoch, Stage
from trunkline.proto.messages import Used
from trunkline.providers.health import label_of
from trunkline.providers.prices import Prices, Quantities


def _nobody(provider: str, usd: float) -> None:
    """Count nothing."""


class Meter:
    """One assignment's: it begins at nought for each worker that takes the call.

    Args:
        stage: whose providers.
        epoch: of the assignment.
        prices: the table.
        spent: is told each cost as it arises, by provider, for counters.
    """

    def __init__(
        self, stage: Stage, epoch: Epoch, prices: Prices, spent: Callable[[str, float], None] = _nobody
    ) -> None:
        self._stage = stage
        self._epoch = epoch
        self._prices = prices
        self._spent = spent
        self._totals: dict[tuple[str, str], tuple[Quantities, bool]] = {}
        self._changed: set[tuple[str, str]] = set()

    def add(self, choice: Choice, used: Quantities, *, model: str = "", estimated: bool = False) -> None:
        """Count what was used of `choice`.

        Args:
            choice: the provider as the agent names it.
            used: since the last time.
            model: the one that was really asked, where the agent leaves it to the adapter.
            estimated: whether we counted, because the provider did not tell.
        """
        key = label_of(choice), choice.model or model
        total, guessed = self._totals.get(key, (Quantities(), False))
        self._totals[key] = total.plus(used), guessed or estimated
        self._changed.add(key)
        price = self._prices.find(self._stage, *key)
        if price is not None:
            self._spent(key[0], price.of(used))

    def used(self) -> list[Used]:
        """Return the totals that have changed since this was last asked."""
        changed, self._changed = sorted(self._changed), set()
        return [self._total(*key) for key in changed]

    def _total(self, provider: str, model: str) -> Used:
        total, estimated = self._totals[provider, model]
        price = self._prices.find(self._stage, provider, model)
        return Used(
            stage=self._stage,
            epoch=self._epoch,
            provider=provider,
            model=model,
            audio_s=round(total.audio_s, 3),
            characters=total.characters,
            input_tokens=total.input_tokens,
            cached_tokens=total.cached_tokens,
            output_tokens=total.output_tokens,
            usd=0.0 if price is None else price.of(total),
            priced=price is not None,
            estimated=estimated,
        )
