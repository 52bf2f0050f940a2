"""Providers by name. Ours are imported when first asked for; others are found as installed entry points.

A distribution adds one with::

    [project.entry-points."trunkline.stt_providers"]
    acme = "acme_ears.trunkline:AcmeProvider"

A name of ours cannot be taken over.
"""

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from trunkline.stt.errors import Misconfigured, Unavailable
from trunkline.stt.provider import MakeProvider, SttProvider

GROUP: Final = "trunkline.stt_providers"
_OURS: Final = {
    "local": "trunkline.stt.providers.local:LocalProvider",
    "bench": "trunkline.stt.providers.bench:BenchProvider",
}

Load = Callable[[], MakeProvider]
"""Imports a provider and returns what makes it."""


def installed() -> dict[str, Load]:
    """Return what can be loaded, by name."""
    ours = (EntryPoint(name, where, GROUP) for name, where in _OURS.items())
    return {point.name: point.load for point in (*entry_points(group=GROUP), *ours)}


class Registry:
    """The providers of one process, each made once."""

    def __init__(self, environ: Mapping[str, str], known: Mapping[str, Load] | None = None) -> None:
        self._environ = environ
        self._known = installed() if known is None else known
        self._made: dict[str, SttProvider] = {}

    def names(self) -> tuple[str, ...]:
        """Return what an agent may ask for."""
        return tuple(sorted(self._known))

    def get(self, name: str) -> SttProvider:
        """Return the provider called `name`.

        Raises:
            Misconfigured: there is none of that name.
            Unavailable: it is installed but cannot be made.
        """
        if name in self._made:
            return self._made[name]
        if name not in self._known:
            raise Misconfigured("stt.provider", f"no provider {name!r} here; expected one of {', '.join(self.names())}")
        try:
            made = self._made[name] = self._known[name]()(self._environ)
        except Exception as error:
            raise Unavailable(f"stt.provider: {name!r} cannot be made: {error}") from error
        return made

    async def aclose(self) -> None:
        """Close every provider that was made."""
        while self._made:
            _, provider = self._made.popitem()
            await provider.aclose()
