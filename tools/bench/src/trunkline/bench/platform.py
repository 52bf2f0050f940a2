"""What the services and the bus pay while they are under load: processor time and memory, by service."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from trunkline.devserver.devserver import Devserver

SERVICES: Final = ("edge", "stt", "brain", "tts", "events")
BUS: Final = "nats-server"
_CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Reading(NamedTuple):
    """Of one service, over all its processes."""

    cpu_s: float
    """Processor time since its start."""
    rss_mib: float


def read(pids: Mapping[str, list[int]]) -> dict[str, Reading]:
    """Read every service once."""
    return {name: Reading(sum(map(cpu_s, found)), sum(map(_rss_mib, found))) for name, found in pids.items()}


def cpu_s(pid: int) -> float:
    """Return the processor time of a process so far, seconds (proc(5): utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS


def pids_of(dev: Devserver) -> dict[str, list[int]]:
    """Return the processes of every service, with those they started, and the bus."""
    children, names = _processes()

    def below(pid: int) -> list[int]:
        return [pid, *(found for child in children.get(pid, []) for found in below(child))]

    found = {service: [pid for child in dev.processes(service) for pid in below(child.pid)] for service in SERVICES}
    if dev.embedded:
        found[BUS] = [pid for pid in below(os.getpid()) if names.get(pid, "").startswith(BUS)]
    return found


def _rss_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES / 2**20


def _processes() -> tuple[dict[int, list[int]], dict[int, str]]:
    children: dict[int, list[int]] = {}
    names: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            names[int(entry.name)] = stat[stat.index("(") + 1 : stat.rindex(")")]
            children.setdefault(int(stat.rsplit(")", 1)[1].split()[1]), []).append(int(entry.name))
    return children, names
