"""How long a service takes from its start to its readiness: what scaling out has to wait for."""

import os
import signal
import statistics
import time
from collections.abc import Mapping
from typing import Final

from trunkline.devserver.child import Child
from trunkline.devserver.services import SERVICES, ServiceSpec
from trunkline.testing.nats_server import run_nats
from trunkline.testing.ports import free_ports

_TIMES: Final = 5
_GIVE_UP_S: Final = 30.0


async def startups_s(environ: Mapping[str, str]) -> dict[str, float]:
    """Start every service some times, alone; return the median of each, seconds.

    Raises:
        StartFailed: one does not become ready.
    """
    with run_nats() as server:
        given = {**os.environ, **environ, "TRUNKLINE_NATS_URL": server.url}
        return {spec.name: statistics.median([await _start(spec, given) for _ in range(_TIMES)]) for spec in SERVICES}


async def _start(spec: ServiceSpec, environ: Mapping[str, str]) -> float:
    health, carriers = free_ports(2)
    given = {**environ, spec.port_variable: str(health), "TRUNKLINE_EDGE_PORT": str(carriers)}
    began = time.monotonic()
    child = await Child.start(spec.name, spec.module, given, health, lambda _name, _line: None)
    try:
        await child.until_ready(_GIVE_UP_S)
        return time.monotonic() - began
    finally:
        child.signal(signal.SIGTERM)
        await child.wait()
