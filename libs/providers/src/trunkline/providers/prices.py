"""What providers charge: a table of list prices with a date, and the cost of a use by it. Prices are data, in TOML."""

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from trunkline.proto.ids import Stage

SETTING: Final = "TRUNKLINE_PRICES"
_Rate = Annotated[float, Meta(ge=0)]


class BadPrices(ValueError):
    """The price table cannot be used; the text says where it is wrong and which setting names it."""


class Quantities(msgspec.Struct, frozen=True, kw_only=True):
    """What was used of a provider."""

    audio_s: float = 0.0
    characters: int = 0
    input_tokens: int = 0
    """All of them, the cached ones too."""
    cached_tokens: int = 0
    output_tokens: int = 0

    def plus(self, other: "Quantities") -> "Quantities":
        """Return the sum."""
        return Quantities(
            audio_s=self.audio_s + other.audio_s,
            characters=self.characters + other.characters,
            input_tokens=self.input_tokens + other.input_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
        )


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a provider charges for the models whose names begin with `model`; US dollars. Nothing given: it is free."""

    provider: str
    model: str
    audio_minute: _Rate = 0.0
    million_characters: _Rate = 0.0
    million_input: _Rate = 0.0
    million_cached: _Rate | None = None
    """Of cached input tokens; None: as other input."""
    million_output: _Rate = 0.0

    def fits(self, stage: Stage) -> bool:
        """Tell whether it is a price of what `stage` uses: a voice may be named like a model that thinks."""
        rates = {"stt": self.audio_minute, "brain": self.million_input, "tts": self.million_characters}
        return rates[stage] > 0 or not any((*rates.values(), self.million_output))

    def of(self, used: Quantities) -> float:
        """Return the cost of `used`."""
        cached = min(used.cached_tokens, used.input_tokens)
        cached_rate = self.million_input if self.million_cached is None else self.million_cached
        millionths = (
            used.characters * self.million_characters
            + (used.input_tokens - cached) * self.million_input
            + cached * cached_rate
            + used.output_tokens * self.million_output
        )
        return used.audio_s / 60.0 * self.audio_minute + millionths / 1e6


class Prices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table."""

    as_of: str
    """Day on which these were the prices, ISO 8601."""
    price: tuple[Price, ...] = ()

    def find(self, stage: Stage, provider: str, model: str) -> Price | None:
        """Return the price of `model` at `provider` (``name`` or ``name/endpoint``); None if it is not known."""
        fitting = [
            entry
            for entry in self.price
            if entry.provider == provider and model.startswith(entry.model) and entry.fits(stage)
        ]
        return max(fitting, key=lambda entry: len(entry.model), default=None)


def load(environ: Mapping[str, str]) -> Prices:
    """Return the table that ``TRUNKLINE_PRICES`` names, or ours.

    Raises:
        BadPrices: the file cannot be read or is no such table.
    """
    named = environ.get(SETTING, "")
    try:
        if named:
            text = Path(named).read_text("utf-8")
        else:
            text = (resources.files("trunkline.providers") / "prices.toml").read_text("utf-8")
        return msgspec.convert(tomllib.loads(text), Prices)
    except (OSError, ValueError) as error:
        raise BadPrices(f"{SETTING}={named}: {error}") from error
