"""Readings of every process while a run goes on, to see whether something grows that should not."""

import asyncio
import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import httpx
import msgspec

from trunkline.chaos.evidence import Sample
from trunkline.chaos.figures import Slope, slope
from trunkline.chaos.rig import Rig
from trunkline.runtime.clock import SYSTEM

EVERY_S: Final = 15.0
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_TASKS: Final = re.compile(r"^\s+tasks\s+(\d+)", re.MULTILINE)

_MONITORED: Final = {
    "rss_mib": ("/varz", "mem", 2**20),
    "subscriptions": ("/subsz", "num_subscriptions", 1),
    "streams": ("/jsz", "streams", 1),
}
"""What nats-server tells of itself: the page, its field, and how many of its units make one of ours."""


class Sampler:
    """Takes readings of a rig's processes."""

    def __init__(self, rig: Rig) -> None:
        self.samples: list[Sample] = []
        self._rig = rig

    async def run(self) -> None:
        """Read every `EVERY_S` until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.take()

    async def take(self) -> None:
        """Read every process once."""
        services = [spec.name for spec in self._rig.dev.plan.services]
        for service in services:
            for child in self._rig.dev.processes(service):
                self._note(child.pid, service, "rss_mib", _rss_mib(child.pid))
                self._note(child.pid, service, "fds", _fds(child.pid))
                self._note(child.pid, service, "tasks", await _tasks(child.port))
        if self._rig.monitor_port:
            for reading, (path, field, unit) in _MONITORED.items():
                value = await _monitored(self._rig.monitor_port, path, field)
                self._note(0, "nats", reading, None if value is None else value / unit)

    def _note(self, pid: int, service: str, reading: str, value: float | None) -> None:
        if value is not None:
            sample = Sample(t=SYSTEM.monotonic(), pid=pid, service=service, reading=reading, value=value)
            self.samples.append(sample)


def slopes(samples: Iterable[Sample]) -> dict[str, Slope | None]:
    """Return how every reading grew, by service: in the later half of the readings of the process watched longest.

    What a process learns and keeps in its first minutes (code, caches up to their limits) is no growth.
    """
    series: dict[tuple[str, str], dict[int, list[tuple[float, float]]]] = {}
    for sample in samples:
        by_pid = series.setdefault((sample.service, sample.reading), {})
        by_pid.setdefault(sample.pid, []).append((sample.t, sample.value))
    longest = {key: max(by_pid.values(), key=len) for key, by_pid in series.items()}
    return {f"{service} {reading}": slope(one[len(one) // 2 :]) for (service, reading), one in longest.items()}


def _rss_mib(pid: int) -> float | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES / 2**20
    return None


def _fds(pid: int) -> float | None:
    with contextlib.suppress(OSError):
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return None


async def _tasks(port: int) -> float | None:
    found = _TASKS.search(await _page(f"http://127.0.0.1:{port}/stats"))
    return None if found is None else float(found[1])


async def _monitored(port: int, path: str, field: str) -> float | None:
    with contextlib.suppress(msgspec.MsgspecError):
        value = msgspec.json.decode(await _page(f"http://127.0.0.1:{port}{path}")).get(field)
        return None if value is None else float(value)
    return None


async def _page(url: str) -> str:
    try:
        async with httpx.AsyncClient(timeout=1.0, trust_env=False) as client:
            return (await client.get(url)).text
    except httpx.HTTPError:
        return ""
