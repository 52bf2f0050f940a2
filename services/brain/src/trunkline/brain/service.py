"""The brain as a process: claims calls and gives each a conversation."""

from collections import Counter
from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Final

from prometheus_client import Gauge

from trunkline.brain.imports import Imported, import_all
from trunkline.brain.llm import llm_providers, provider_of
from trunkline.brain.session import BrainCall, Means
from trunkline.brain.settings import BrainSettings
from trunkline.brain.tools import ENTRY_POINTS, InstalledTools
from trunkline.bus import Bus, EventLog, Unservable, Worker
from trunkline.proto.ids import new_worker_id
from trunkline.proto.messages import Claim
from trunkline.providers.errors import Misconfigured
from trunkline.runtime.clock import Steady
from trunkline.runtime.metrics import Counts
from trunkline.runtime.plugins import PluginError
from trunkline.runtime.process import Chassis

PROVIDERS: Final = "trunkline.llm_providers"


class Brain:
    """The service. Installed tools and providers come imported, because calls are claimed and held on the loop."""

    def __init__(
        self,
        settings: BrainSettings,
        chassis: Chassis,
        bus: Bus,
        tools: Iterable[Imported],
        providers: Iterable[Imported],
    ) -> None:
        self._bus = bus
        self._events = EventLog(bus, chassis.clock.wall)
        self._providers = llm_providers(chassis.environ, providers)
        self._tools = InstalledTools(tools)
        self._means = Means(bus, self._events, Steady(chassis.clock).now)
        self._counts: Counter[str] = Counter()
        self._worker = Worker(
            bus, stage="brain", worker=new_worker_id("brain"), capacity=settings.capacity, open_call=self._open_call
        )
        chassis.ready_check("bus", bus.problem)
        chassis.stats("calls", lambda: [(call, self._line(s)) for call, s in self._worker.sessions()])
        chassis.stats("counts", lambda: sorted({**self._counts, **self._worker.counts}.items()))
        chassis.stats("event log", lambda: [*self._events.counts.items(), ("pending", self._events.pending)])
        Counts(chassis.registry, "trunkline_brain_events", "What the brain ignored or failed at", lambda: self._counts)
        Counts(chassis.registry, "trunkline_brain_event_log", "Facts stored and given up", lambda: self._events.counts)
        Counts(chassis.registry, "trunkline_brain_claims", "Claims by outcome", lambda: self._worker.counts)
        gauge = Gauge("trunkline_brain_calls", "Calls held", registry=chassis.registry)
        gauge.set_function(lambda: self._worker.calls)

    async def start(self) -> None:
        """Begin to claim."""
        await self._worker.start()

    async def drain(self) -> None:
        """Take no more calls and wait for the last."""
        await self._worker.drain()

    async def stop(self) -> None:
        """Let every call go."""
        await self._worker.stop()
        await self._providers.aclose()
        await self._events.close()
        await self._bus.close()

    async def _open_call(self, claim: Claim) -> BrainCall:
        try:
            provider = provider_of(claim.agent, self._providers)
            tools = self._tools.open(claim.agent)
        except (Misconfigured, PluginError) as error:
            raise Unservable(f"agent {claim.agent.name}: {error}") from error
        call = BrainCall(claim, self._means, provider, tools, self._counts)
        await call.open()
        return call

    @staticmethod
    def _line(session: object) -> str:
        if not isinstance(session, BrainCall):
            return ""
        machine = session.conversation
        return f"{machine.state}, turn {machine.turn}, generation {machine.generation}"


async def build(settings: BrainSettings, chassis: Chassis) -> Brain:
    """Import what is installed, connect to the bus and return the service."""
    tools = await import_all(entry_points(group=ENTRY_POINTS))
    providers = await import_all(entry_points(group=PROVIDERS))
    bus = await Bus.connect(chassis.base.nats_url, name="brain", on_lost=chassis.fail)
    return Brain(settings, chassis, bus, tools, providers)
