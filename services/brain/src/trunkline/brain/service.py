"""The brain as a process: claims calls and gives each a conversation."""

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine, Iterable
from importlib.metadata import entry_points
from typing import Final

from prometheus_client import Gauge

from trunkline.brain.imports import Imported, import_all
from trunkline.brain.llm import LlmProvider, llm_providers
from trunkline.brain.metrics import TurnParts
from trunkline.brain.session import BrainCall, Means
from trunkline.brain.settings import BrainSettings
from trunkline.brain.thinker import Mind, Thinker
from trunkline.brain.tools import ENTRY_POINTS, InstalledTools
from trunkline.bus import Bus, BusError, CallStore, EventLog, Unservable, Worker, ended
from trunkline.proto import codec, subjects
from trunkline.proto.agent import Agent, Llm
from trunkline.proto.events import ProviderFailed
from trunkline.proto.ids import CallId, WorkerId, new_worker_id
from trunkline.proto.messages import Claim, Used
from trunkline.providers import prices
from trunkline.providers.errors import Unusable
from trunkline.providers.health import Health
from trunkline.providers.roster import Roster
from trunkline.providers.strain import Strained
from trunkline.providers.usage import Meter
from trunkline.runtime.clock import Steady
from trunkline.runtime.metrics import Counts
from trunkline.runtime.process import Chassis

log = logging.getLogger("trunkline.brain")

PROVIDERS: Final = "trunkline.llm_providers"
_LAST_WORDS_S: Final = 1.0


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
        replicas = chassis.base.nats_replicas
        self._events = EventLog(bus, chassis.clock.wall, replicas=replicas)
        self._roster: Roster[LlmProvider, Llm] = Roster(
            "llm",
            llm_providers(chassis.environ, providers),
            lambda agent: (agent.llm, *agent.llm.fallbacks),
            lambda provider, agent, llm: provider.check(llm, agent.tools),
        )
        self._tools = InstalledTools(tools)
        self._chassis = chassis
        self._rules = settings.retry_rules
        self._health = Health("brain", settings.breaker_rules, chassis.clock.monotonic, chassis.registry)
        self._prices = prices.load(chassis.environ)
        self._background: set[asyncio.Task[None]] = set()
        self._counts: Counter[str] = Counter()
        self._worker = Worker(
            bus,
            stage="brain",
            worker=new_worker_id("brain"),
            capacity=settings.capacity,
            open_call=self._open_call,
            strained=Strained(chassis.lag, self._health.states, "no model can be asked"),
            wall=chassis.clock.wall,
        )
        self._means = Means(
            bus,
            self._events,
            CallStore(bus, replicas),
            chassis.journal,
            Steady(chassis.clock).now,
            self._worker.still_ours,
            TurnParts(chassis.registry).measured,
        )
        self._worker.guard(self._events)
        chassis.journal.who = self._worker.worker
        chassis.ready_check("bus", bus.problem)
        chassis.stats("calls", lambda: [(call, self._line(s)) for call, s in self._worker.sessions()])
        chassis.stats("providers", self._health.states)
        chassis.report("providers", lambda: dict(self._health.states()))
        chassis.stats("counts", lambda: sorted({**self._counts, **self._worker.counts}.items()))
        chassis.stats("event log", lambda: [*self._events.counts.items(), ("pending", self._events.pending)])
        Counts(chassis.registry, "trunkline_brain_events", "What the brain ignored or failed at", lambda: self._counts)
        Counts(chassis.registry, "trunkline_brain_event_log", "Facts stored and given up", lambda: self._events.counts)
        Counts(chassis.registry, "trunkline_brain_claims", "Claims by outcome", lambda: self._worker.counts)
        gauge = Gauge("trunkline_brain_calls", "Calls held", registry=chassis.registry)
        gauge.set_function(lambda: self._worker.calls)

    @property
    def worker(self) -> WorkerId:
        """Who claims the calls."""
        return self._worker.worker

    @property
    def holds(self) -> int:
        """How many calls are held."""
        return self._worker.calls

    @property
    def counts(self) -> Counter[str]:
        """What was ignored, failed at, or lost."""
        return self._counts

    async def start(self) -> None:
        """Meet what the agents need, as far as it can be known, and begin to claim.

        Raises:
            SettingsError: an agent needs a provider or a key that is not there; names both.
        """
        await self._roster.meet(self._chassis.base.agents, self._chassis.environ)
        await self._bus.subscribe(subjects.RINGING, self._on_ringing)
        await self._worker.start()

    async def drain(self) -> None:
        """Take no more calls and wait for the last."""
        await self._worker.drain()

    async def stop(self) -> None:
        """Let every call go."""
        await self._worker.stop()
        if self._background:
            await asyncio.wait(self._background, timeout=_LAST_WORDS_S)  # what was used must be told
        await ended(*self._background)
        await self._roster.aclose()
        await self._events.close()
        await self._bus.close()

    async def _open_call(self, claim: Claim) -> BrainCall:
        agent = claim.agent
        try:
            minds = await self._minds(agent)
            tools = self._tools.open(agent)
        except Unusable as error:
            raise Unservable(f"agent {agent.name}: {error}") from error

        def failed(fact: ProviderFailed) -> None:
            self._health.record(claim.call, claim.tenant, fact)
            self._events.emit(claim.call, fact, claim.tenant)

        totals: dict[tuple[str, str], Used] = {}

        def tell_usage(used: list[Used]) -> None:
            totals.update({(total.provider, total.model): total for total in used})
            self._spawn(self._publish_usage(claim.call, used), "usage")

        meter = Meter("brain", claim.epoch, self._prices, self._health.spent)
        now = self._chassis.clock.monotonic
        thinker = Thinker(minds, self._health, self._rules, now, meter, failed, tell_usage)
        call = BrainCall(claim, self._means, thinker, tools, self._counts, lambda: tuple(totals.values()))
        await call.open()
        return call

    async def _minds(self, agent: Agent) -> list[Mind]:
        """Return the minds of `agent` that can be asked here.

        Raises:
            Unusable: there is none; says why of the first.
        """
        minds: list[Mind] = []
        problem: Unusable | None = None
        for choice in (agent.llm, *agent.llm.fallbacks):
            try:
                provider = await self._roster.get(choice.provider)
                provider.check(choice, agent.tools)
            except Unusable as error:
                log.warning("mind not to be had", extra={"agent": agent.name, "problem": str(error)})
                problem = problem or error
            else:
                minds.append(Mind(choice, provider))
        if not minds and problem is not None:
            raise problem
        return minds

    async def _publish_usage(self, call: CallId, used: list[Used]) -> None:
        for total in used:
            try:
                await self._bus.publish(subjects.usage(call), total)
            except BusError:
                self._counts["usage_unsent"] += 1

    def _on_ringing(self, _subject: str, data: bytes) -> None:
        """A call is about to come: have a connection ready, unless it would go elsewhere anyway."""
        if self._worker.calls < self._worker.capacity:
            self._roster.ring(codec.decode(codec.RINGING, data).agent)

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

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
