"""How long a service takes from its start to its readiness: what scaling out has to wait for."""

import os
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Final

from trunkline.bench.platform import SERVICES
from trunkline.testing.nats_server import run_nats
from trunkline.testing.ports import free_ports

_TIMES: Final = 5
_GIVE_UP_S: Final = 30.0


def startups_s(environ: Mapping[str, str]) -> dict[str, float]:
    """Start every service some times, alone; return the median of each, seconds.

    Raises:
        RuntimeError: one does not become ready.
    """
    with run_nats() as server:
        return {
            service: statistics.median(
                _start(service, {**environ, "TRUNKLINE_NATS_URL": server.url}) for _ in range(_TIMES)
            )
            for service in SERVICES
        }


def _start(service: str, environ: dict[str, str]) -> float:
    (port,) = free_ports(1)
    variable = f"TRUNKLINE_{service.upper()}_{'PORT' if service == 'edge' else 'HTTP_PORT'}"
    began = time.monotonic()
    process = subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", f"trunkline.{service}"],
        env={**os.environ, **environ, variable: str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not _ready(port):
            if process.poll() is not None or time.monotonic() - began > _GIVE_UP_S:
                raise RuntimeError(f"{service} does not become ready")
            time.sleep(0.005)
        return time.monotonic() - began
    finally:
        process.terminate()
        process.wait()


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
