"""What the services and the bus pay while they are under load: processor time and memory, by service."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from trunkline.bench.scrape import Told, ask
from trunkline.devserver.devserver import Devserver, run_dev
from trunkline.devserver.journal import Journal
from trunkline.devserver.settings import Plan, find_agents
from trunkline.testing.nats_server import run_nats
from trunkline.testing.ports import free_ports

SERVICES: Final = ("edge", "stt", "brain", "tts", "events")
BUS: Final = "nats-server"
AGENT: Final = "bench"
_CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Reading(NamedTuple):
    """Of one service, over all its processes."""

    cpu_s: float
    """Processor time since its start."""
    rss_mib: float


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """Who is under load."""

    url: str
    """The voice webhook, query string included."""
    pids: dict[str, list[int]]
    """By service."""
    metrics: dict[str, list[str]] = {}
    """By service, the ``/metrics`` of every process."""
    monitoring: str = ""
    """nats-server's."""
    events: Path | None = None
    """Where facts are written."""

    def read(self) -> dict[str, Reading]:
        """Read every service once."""
        return {name: Reading(sum(map(cpu_s, found)), sum(map(_rss_mib, found))) for name, found in self.pids.items()}

    async def ask(self) -> Told:
        """Have all of them tell."""
        return await ask(self.metrics, self.monitoring)


@asynccontextmanager
async def trunkline(workers: dict[str, int], environ: dict[str, str]) -> AsyncIterator[Subject]:
    """Run the whole platform with agent ``bench``, whose providers cost nothing."""
    (monitoring,) = free_ports(1)
    with run_nats(config=f'http: "127.0.0.1:{monitoring}"') as server:
        plan = Plan(
            port=0,
            note=False,
            agents=find_agents(Path.cwd()),
            workers=workers,
            environ=environ,
            nats_url=server.url,
        )
        lines: list[str] = []
        async with run_dev(plan, Journal(lines.append, [], colour=False)) as dev:
            yield Subject(
                url=f"{dev.edge_url}/twilio/voice-hook?agent={AGENT}",
                pids={**pids_of(dev), BUS: [server.pid]},
                metrics={
                    service: [f"http://127.0.0.1:{child.port}/metrics" for child in dev.processes(service)]
                    for service in SERVICES
                },
                monitoring=f"http://127.0.0.1:{monitoring}",
                events=dev.events_file,
            )


def cpu_s(pid: int) -> float:
    """Return the processor time of a process so far, seconds (proc(5): utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS


def pids_of(dev: Devserver) -> dict[str, list[int]]:
    """Return the processes of every service, with those they started."""
    children = _children()

    def below(pid: int) -> list[int]:
        return [pid, *(found for child in children.get(pid, []) for found in below(child))]

    return {service: [pid for child in dev.processes(service) for pid in below(child.pid)] for service in SERVICES}


def _rss_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES / 2**20


def _children() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            children.setdefault(int(stat.rsplit(")", 1)[1].split()[1]), []).append(int(entry.name))
    return children
