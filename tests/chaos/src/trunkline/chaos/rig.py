"""A deployment under test: the services, the bus they stand on, who is which process, and what may be done to them."""

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

from trunkline.bus import Bus
from trunkline.chaos.callers import Order
from trunkline.chaos.evidence import Fault
from trunkline.chaos.ledger import FILE_VARIABLE
from trunkline.chaos.receiver import Receiver, ids_in
from trunkline.chaos.watch import State, Watch, watching
from trunkline.chaos.who import noted, subscribed
from trunkline.devserver import ports
from trunkline.devserver.child import Child
from trunkline.devserver.devserver import Devserver, run_dev
from trunkline.devserver.journal import Journal
from trunkline.devserver.post import READY_TIMEOUT_S
from trunkline.devserver.settings import Plan
from trunkline.runtime.clock import SYSTEM
from trunkline.testing.nats_cluster import NatsCluster, run_cluster
from trunkline.testing.nats_server import NatsServer, run_nats
from trunkline.testing.ports import free_ports
from trunkline.testing.tcp_proxy import TcpProxy, run_proxy

AGENTS: Final = Path(__file__).parents[3] / "agents"
CALLER_PROCESSES: Final = 2
STAGES: Final = ("stt", "brain", "tts")
_DELIVERED_S: Final = 20.0

Bed = Literal["one", "cluster", "proxy"]
"""What the services stand on: one NATS, three of them, or one of which a worker hears through a bad line."""


class Folders(msgspec.Struct, frozen=True):
    """Where a run leaves what it leaves."""

    root: Path

    @property
    def journals(self) -> Path:
        """One file per process."""
        return self.root / "journals"

    @property
    def effects(self) -> Path:
        """What the tool has done."""
        return self.root / "effects.jsonl"

    @property
    def log(self) -> Path:
        """What the processes said."""
        return self.root / "processes.log"

    def callers(self) -> list[Path]:
        """Return the files of callers' records."""
        return sorted(self.root.glob("callers-*.jsonl"))

    def next_callers(self) -> Path:
        """Return a new one."""
        return self.root / f"callers-{len(self.callers()):02}.jsonl"


class Far(NamedTuple):
    """A worker whose line to the bus can be broken."""

    stage: str
    child: Child
    proxy: TcpProxy


class Rig:
    """What a run works with. Made by `rig`."""

    def __init__(self, dev: Devserver, bus: Bus, watch: Watch, folders: Folders, say: Callable[[str], None]) -> None:
        self.dev: Final = dev
        self.bus: Final = bus
        self.watch: Final = watch
        self.folders: Final = folders
        self.say: Final = say
        self.faults: Final[list[Fault]] = []
        self.nats: NatsServer | None = None
        self.cluster: NatsCluster | None = None
        self.monitor_port = 0
        """Of the one NATS, for its own figures."""
        self.far: list[Far] = []
        """Workers beside those of the posts, whose lines to the bus are bad ones."""
        self.receiver: Receiver | None = None
        """Where facts are posted to, if anywhere."""
        self._callers: list[asyncio.subprocess.Process] = []
        self._known: dict[int, str] = {}

    # --- who is who ------------------------------------------------------------------------------------------------

    async def worker_of(self, child: Child) -> str:
        """Return the id of a process; empty if it does not tell."""
        if child.pid not in self._known:
            found = noted(self.folders.journals, child.pid)
            if not found and self.monitor_port:
                found = await subscribed(self.monitor_port, child.pid)
            if found:
                self._known[child.pid] = found
        return self._known.get(child.pid, "")

    async def process_of(self, service: str, worker: str) -> Child | None:
        """Return the live process with this worker's id."""
        for child in self.dev.processes(service):
            if child.exit_code is None and await self.worker_of(child) == worker:
                return child
        return None

    # --- what is done to them --------------------------------------------------------------------------------------

    async def until(self, state: State, stage: str, draw: random.Random) -> tuple[str, Child] | None:
        """Wait for a call in the midst of `state`; return it and the process that serves its `stage`; None if none."""
        with contextlib.suppress(TimeoutError):
            call, worker = await self.watch.ripe(state, stage, draw)
            child = await self.process_of(stage, worker)
            if child is not None:
                return call, child
            self.say(f"nobody knows which process {worker} is")
        return None

    async def until_worker(self, state: State, stage: str, worker: str, draw: random.Random) -> str | None:
        """Wait for a call of `worker` in the midst of `state`; None if there was none."""
        with contextlib.suppress(TimeoutError):
            call, _ = await self.watch.ripe(state, stage, draw, of=worker)
            return call
        return None

    async def send(
        self, child: Child, number: signal.Signals, *, kind: str, aimed_at: str = "", state: str = ""
    ) -> Fault:
        """Send a signal, and remember it as a fault."""
        worker = await self.worker_of(child)
        t = SYSTEM.monotonic()
        child.signal(number)
        fault = Fault(
            t=t,
            kind=kind,
            service=child.name.partition("-")[0],
            worker=worker,
            pid=child.pid,
            aimed_at=aimed_at,
            state=state,
        )
        self.faults.append(fault)
        self.say(f"{number.name} to {child.name} ({worker or child.pid})" + (f", {state}" if state else ""))
        return fault

    def undone(self, fault: Fault) -> None:
        """Remember that a fault is over."""
        at = self.faults.index(fault)
        self.faults[at] = msgspec.structs.replace(fault, until_t=SYSTEM.monotonic())

    def note(self, kind: str, service: str, worker: str = "", *, aimed_at: str = "", state: str = "") -> Fault:
        """Remember something that was done otherwise."""
        t = SYSTEM.monotonic()
        fault = Fault(t=t, kind=kind, service=service, worker=worker, aimed_at=aimed_at, state=state)
        self.faults.append(fault)
        self.say(f"{kind} {worker}".rstrip())
        return fault

    async def manned(self, timeout_s: float = 30.0) -> None:
        """Return once every post has a process that is ready.

        Raises:
            TimeoutError: one has none.
        """
        wanted = {spec.name: self.dev.plan.workers.get(spec.name, 1) for spec in self.dev.plan.services}
        async with asyncio.timeout(timeout_s):
            while any(
                sum(child.ready and child.exit_code is None for child in self.dev.processes(name)) < count
                for name, count in wanted.items()
            ):
                await asyncio.sleep(0.05)

    async def add_far(self, stage: str, proxy: TcpProxy, environ: dict[str, str], write: Callable[[str], None]) -> None:
        """Start one more worker of `stage`, which hears the bus through `proxy`.

        Raises:
            StartFailed: it is not ready in time.
        """
        port = ports.any_free()
        env = {**environ, "TRUNKLINE_NATS_URL": proxy.url, f"TRUNKLINE_{stage.upper()}_HTTP_PORT": str(port)}
        env["TRUNKLINE_LOG_FORMAT"] = "text"
        child = await Child.start(
            f"{stage}-far", f"trunkline.{stage}", env, port, lambda name, line: write(f"{name} │ {line}")
        )
        self.far.append(Far(stage, child, proxy))
        await child.until_ready(READY_TIMEOUT_S)

    async def id_of(self, far: Far) -> str:
        """Return the id of a far worker: the one of its stage that lives and is none of the others."""
        near = {await self.worker_of(child) for child in self.dev.processes(far.stage)}
        others = [worker for worker in self.watch.alive(far.stage) if worker not in near]
        return noted(self.folders.journals, far.child.pid) or (others[0] if len(others) == 1 else "")

    # --- callers ---------------------------------------------------------------------------------------------------

    async def call(self, calls: int, *, seed: int, stagger_s: float, once: bool = False, questions: int = 5) -> None:
        """Have so many calls in flight from now on, by processes of their own."""
        url = f"{self.dev.edge_url}/twilio/voice-hook?agent=chaos"
        share, more = divmod(calls, CALLER_PROCESSES)
        for number in range(CALLER_PROCESSES):
            count = share + (number < more)
            if not count:
                continue
            out = self.folders.next_callers()
            out.touch()
            order = Order(
                voice_url=url,
                out=str(out),
                calls=count,
                stagger_s=stagger_s * CALLER_PROCESSES,
                questions=questions,
                seed=seed * 100 + len(self._callers),
                once=once,
            )
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "trunkline.chaos.callers", msgspec.json.encode(order).decode()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
            self._callers.append(process)
            if process.stdout is not None:
                await asyncio.wait_for(process.stdout.readline(), READY_TIMEOUT_S)

    async def hang_up(self, timeout_s: float = 90.0) -> None:
        """Let all calls come to their end, and begin no more."""
        for patience_s in (timeout_s, 5.0):
            for process in self._callers:
                if process.returncode is None:
                    process.send_signal(signal.SIGTERM)
            waiting = [asyncio.create_task(process.wait()) for process in self._callers]
            if not waiting:
                return
            _, late = await asyncio.wait(waiting, timeout=patience_s)
            if not late:
                break
            self.say(f"{len(late)} processes of callers are not done; breaking off")
        for process in self._callers:
            if process.returncode is None:
                process.kill()
        self._callers.clear()

    async def delivered(self, calls: int) -> None:
        """Wait until so many ends of calls have been delivered, for as long as that may take."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DELIVERED_S):
                while self._ends() < calls:
                    await asyncio.sleep(0.2)
        await asyncio.sleep(0.5)

    def emitted(self) -> set[str]:
        """Return the ids of all facts that were delivered to the file so far."""
        return ids_in(self.dev.events_file)

    def _ends(self) -> int:
        path = self.dev.events_file
        return path.read_bytes().count(b'"type":"call.ended"') if path.exists() else 0


@contextlib.asynccontextmanager
async def rig(
    folder: Path,
    say: Callable[[str], None],
    *,
    bed: Bed = "one",
    receives: bool = False,
    environ: dict[str, str] | None = None,
) -> AsyncIterator[Rig]:
    """Run a deployment for the length of the block.

    Args:
        folder: where everything is left that the run leaves; made if need be.
        say: told what happens.
        bed: what the services stand on.
        receives: whether facts are posted to somebody as well.
        environ: more settings for the services.

    Raises:
        DevError: a service does not start.
        NatsNotStarted: the bus does not.
    """
    folders = Folders(folder)
    folders.journals.mkdir(parents=True, exist_ok=True)
    counts = {"edge": 2, "stt": 2, "brain": 2, "tts": 2}
    receiver = Receiver() if receives else None
    if receiver is not None:
        await receiver.start()
    posts = {"TRUNKLINE_EVENTS_WEBHOOK_URL": receiver.url} if receiver is not None else {}
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(run_cluster(store_dir=folder / "nats")) if bed == "cluster" else None
        (monitor_port,) = free_ports(1)
        config = f'http: "127.0.0.1:{monitor_port}"\n'
        nats = None if cluster is not None else stack.enter_context(run_nats(store_dir=folder / "nats", config=config))
        url = cluster.url if cluster is not None else nats.url if nats is not None else ""
        log = stack.enter_context(folders.log.open("a"))

        def write(line: str) -> None:
            log.write(f"{SYSTEM.monotonic():.3f} {line}\n")

        plan = Plan(
            port=0,
            note=False,
            nats_url=url,
            workers=counts,
            data=folder,
            agents=AGENTS,
            drain_s=20.0,
            environ={
                **os.environ,
                "TRUNKLINE_JOURNAL": str(folders.journals),
                "TRUNKLINE_NATS_REPLICAS": "3" if cluster is not None else "1",
                "TRUNKLINE_POCKETSPHINX_DECODERS": "2",
                "TRUNKLINE_EDGE_DEFAULT_AGENT": "chaos",
                FILE_VARIABLE: str(folders.effects),
                **posts,
                **(environ or {}),
            },
        )
        async with run_dev(plan, Journal(write, [], colour=False)) as dev, watching(url) as (watch, bus):
            made = Rig(dev, bus, watch, folders, say)
            made.nats, made.cluster, made.receiver = nats, cluster, receiver
            made.monitor_port = monitor_port if nats is not None else 0
            try:
                if bed == "proxy" and nats is not None:
                    for stage in STAGES:
                        proxy = stack.enter_context(run_proxy("127.0.0.1", nats.port))
                        await made.add_far(stage, proxy, plan.environ, write)
                yield made
            finally:
                await made.hang_up(0.1)
                for far in made.far:
                    far.child.kill()
                    await far.child.wait()
                if receiver is not None:
                    await receiver.stop()
