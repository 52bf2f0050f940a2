"""The services as the development set-up sees them: a module to run, a port for health, and who stops when."""

from collections.abc import Mapping
from typing import Final

import msgspec


class ServiceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How one service is started. `name` is also the tag of its log lines."""

    name: str
    module: str
    port_variable: str
    """Environment variable that takes the port of ``/health/ready``."""
    many: bool = False
    """Whether several processes may share the work."""
    stops_last: bool = False
    """Stop it after all others, because it still receives what they say at their end."""


def _service(name: str, *, many: bool = False, stops_last: bool = False) -> ServiceSpec:
    variable = f"TRUNKLINE_{name.upper()}_HTTP_PORT"
    return ServiceSpec(name=name, module=f"trunkline.{name}", port_variable=variable, many=many, stops_last=stops_last)


SERVICES: Final = (
    _service("edge"),
    _service("stt", many=True),
    _service("brain", many=True),
    _service("tts", many=True),
    _service("events", stops_last=True),
)


def parse_workers(words: str, services: tuple[ServiceSpec, ...] = SERVICES) -> dict[str, int]:
    """Read ``stt=2,tts=3`` into processes per service.

    Raises:
        ValueError: a service is unknown or runs once only, or a number is none of 1 to 32.
    """
    known: Mapping[str, ServiceSpec] = {spec.name: spec for spec in services}
    counts = {}
    for word in filter(None, (part.strip() for part in words.split(","))):
        name, _, number = word.partition("=")
        many = ", ".join(spec.name for spec in services if spec.many)
        if name not in known or not known[name].many:
            raise ValueError(f"{name!r} cannot be multiplied; these can: {many}")
        if not number.isdecimal() or not 1 <= int(number) <= 32:
            raise ValueError(f"{word!r}: expected {name}=<1 to 32>")
        counts[name] = int(number)
    return counts
