"""The process between its start and its stop: a `Worker` of stage ``stt`` whose calls are `CallHearing`s."""

import asyncio
import contextlib
import logging
from collections.abc import Iterable

from trunkline.agents.needs import agents_in, unmet
from trunkline.bus import Bus, CallSession, EventLog, Unservable, Worker
from trunkline.proto import codec, subjects
from trunkline.proto.agent import Agent, Stt
from trunkline.proto.ids import CallId, new_worker_id
from trunkline.proto.messages import Claim
from trunkline.providers import prices
from trunkline.providers.errors import Misconfigured, Unavailable, Unusable
from trunkline.providers.health import Health
from trunkline.runtime.metrics import Counts
from trunkline.runtime.plugins import NoPlugin, PluginError, Plugins
from trunkline.runtime.process import Chassis
from trunkline.runtime.settings import SettingsError
from trunkline.stt.cadence import Cadence
from trunkline.stt.metrics import SttMetrics
from trunkline.stt.outbox import Outbox
from trunkline.stt.provider import OnHeard, SttCapabilities, SttProvider, SttStream, providers
from trunkline.stt.relay import Lender
from trunkline.stt.session import CallHearing, Surroundings
from trunkline.stt.settings import SttSettings
from trunkline.stt.vad import VoiceDetector

log = logging.getLogger("trunkline.stt")

_DEFAULTS = Stt()
_MOST_WARMING = 8
_WARMING_S = 2.0


class SttService:
    """Hears the calls it claims. Made by `build`."""

    def __init__(
        self, chassis: Chassis, bus: Bus, settings: SttSettings, known: Plugins[SttProvider] | None = None
    ) -> None:
        self._chassis = chassis
        self._bus = bus
        self._settings = settings
        self._providers = known or providers(chassis.environ)
        self._metrics = SttMetrics(chassis.registry)
        # One more than may be held: a call claimed again is opened before the worker has counted it off.
        detector = VoiceDetector(settings.capacity + 1)
        self._cadence = Cadence(detector, chassis.clock, self._metrics)
        self._outbox = Outbox(bus)
        self._events = EventLog(bus, chassis.clock.wall)
        self._health = Health("stt", settings.breaker_rules, chassis.clock.monotonic, chassis.registry)
        self._shared = Surroundings(
            detector,
            self._cadence,
            self._outbox,
            chassis.clock,
            self._metrics,
            settings,
            self._events,
            self._health,
            prices.load(chassis.environ),
        )
        self._warming: set[asyncio.Task[None]] = set()
        self._hearing: dict[str, CallHearing] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.worker = Worker(
            bus, stage="stt", worker=new_worker_id("stt"), capacity=settings.capacity, open_call=self.open_call
        )
        chassis.ready_check("bus", bus.problem)
        chassis.stats("hearing", self._rows)
        chassis.stats("providers", self._health.states)
        chassis.report("providers", lambda: dict(self._health.states()))
        chassis.stats("media lane", bus.media.counts.items)
        Counts(chassis.registry, "trunkline_stt_bus_media", "Frames on the media lane", lambda: bus.media.counts)

    async def start(self) -> None:
        """Warm up, listen, and take calls."""
        await self._warm_up()
        for name, run in (("cadence", self._cadence.run()), ("outbox", self._outbox.run())):
            task = asyncio.create_task(run, name=name)
            task.add_done_callback(self._on_task_over)
            self._tasks.append(task)
        await self._bus.media.subscribe(subjects.media_of(self.worker.worker), self.on_frame)
        await self._bus.media.flush()
        await self._bus.subscribe(subjects.RINGING, self._on_ringing)
        await self.worker.start()

    async def drain(self) -> None:
        """Take no more calls and wait for those there are."""
        await self.worker.drain()

    async def stop(self) -> None:
        """Let every call go and leave the bus."""
        await self.worker.stop()
        await self._outbox.flush()
        for task in (*self._tasks, *self._warming):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._warming, return_exceptions=True)
        await self._providers.aclose()
        await self._events.close()
        await self._bus.close()

    def on_frame(self, subject: str, data: bytes) -> None:
        """Hand a frame to its call."""
        hearing = self._hearing.get(subjects.last_token(subject))
        if hearing is None:
            self._metrics.frames["unclaimed"] += 1
        else:
            hearing.on_frame(data)

    async def open_call(self, claim: Claim) -> CallSession:
        """Begin to hear a call.

        Raises:
            Unservable: there is no such provider here, or it cannot do what the agent asks for.
        """
        stt = claim.agent.stt
        hearing = CallHearing(claim, self._shared)
        try:
            await hearing.listen([self._lender(claim.agent.name, choice) for choice in (stt, *stt.fallbacks)])
        except Unusable as error:
            await hearing.close("not-opened")
            raise Unservable(
                f"agent {claim.agent.name}: {error}", retry=not isinstance(error, Misconfigured)
            ) from error
        except BaseException:
            await hearing.close("not-opened")
            raise
        self._hearing[claim.call] = hearing
        return _Held(hearing, self._hearing)

    def _lender(self, agent: str, choice: Stt) -> Lender:
        async def lend(on_heard: OnHeard) -> tuple[SttStream, SttCapabilities]:
            try:
                provider = await self._providers.load(choice.provider)
            except NoPlugin as error:
                raise Misconfigured("stt.provider", str(error)) from error
            except PluginError as error:
                raise Unavailable(str(error)) from error
            for setting in _ignored(choice, provider.capabilities):
                log.warning(
                    "setting not honoured by the provider",
                    extra={"agent": agent, "provider": choice.provider, "setting": setting},
                )
            return await provider.open(choice, on_heard), provider.capabilities

        return Lender(choice, lend)

    async def _on_ringing(self, _subject: str, data: bytes) -> None:
        """A call is about to come: have what it needs ready, unless it would go elsewhere anyway."""
        stt = codec.decode(codec.RINGING, data).agent.stt
        if self.worker.calls >= self.worker.capacity or len(self._warming) >= _MOST_WARMING:
            return
        task = asyncio.create_task(self._warm(stt), name="warming")
        self._warming.add(task)
        task.add_done_callback(self._warming.discard)

    async def _warm(self, stt: Stt) -> None:
        try:
            async with asyncio.timeout(_WARMING_S):
                await (await self._providers.load(stt.provider)).warm(stt)
        except (TimeoutError, PluginError):
            self._metrics.counts["not_warmed"] += 1

    async def _warm_up(self) -> None:
        """Meet what the agents need, as far as it can be known.

        Raises:
            SettingsError: an agent needs a provider or a key that is not there; names both.
        """
        agents = agents_in(self._chassis.base.agents, self._chassis.environ)
        named = {choice.provider for agent in agents for _, choice in _choices(agent)}
        for name in sorted(named & set(self._providers.names())):
            with contextlib.suppress(PluginError):  # told by the check
                await self._providers.load(name)
        if problems := unmet(agents, _choices, self._problem):
            raise SettingsError("\n".join(problems))
        for name in sorted({*named, self._settings.warm} - {""}):
            await self._warm_up_one(name)

    def _problem(self, _agent: Agent, stt: Stt) -> str | None:
        try:
            self._providers.get(stt.provider).check(stt)
        except (Unusable, PluginError) as error:
            return str(error)
        return None

    async def _warm_up_one(self, name: str) -> None:
        try:
            await (await self._providers.load(name)).warm_up()
        except (Unusable, PluginError) as error:
            # Agents with another provider can be served all the same.
            log.warning("provider not warmed up", extra={"provider": name, "problem": str(error)})

    def _on_task_over(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a part of the process died", extra={"part": task.get_name()}, exc_info=error)
            self._chassis.fail(f"{task.get_name()} died: {error}")

    def _rows(self) -> Iterable[tuple[str, object]]:
        yield "worker", self.worker.worker
        yield "calls", f"{self.worker.calls} of {self.worker.capacity}"
        yield "providers", ", ".join(self._providers.names())
        yield from self._metrics.rows()


class _Held:
    """A call as the worker holds it: closing it also ends the look-up of its frames."""

    def __init__(self, hearing: CallHearing, calls: dict[str, CallHearing]) -> None:
        self._hearing = hearing
        self._calls = calls

    async def close(self, reason: str) -> None:
        """Let the call go."""
        if self._calls.get(self._hearing.call) is self._hearing:
            del self._calls[CallId(self._hearing.call)]
        await self._hearing.close(reason)


def _choices(agent: Agent) -> Iterable[tuple[str, Stt]]:
    yield "stt.provider", agent.stt
    for number, fallback in enumerate(agent.stt.fallbacks):
        yield f"stt.fallbacks[{number}].provider", fallback


def _ignored(stt: Stt, capabilities: SttCapabilities) -> list[str]:
    """Return the settings that differ from the default and that the provider does not heed."""
    differs = {
        "grammar": stt.grammar != _DEFAULTS.grammar,
        "language": stt.language != _DEFAULTS.language,
        "keyterms": stt.keyterms != _DEFAULTS.keyterms,
        "model": stt.model != _DEFAULTS.model,
    }
    return [f"stt.{name}" for name, changed in differs.items() if changed and name not in capabilities.honours]


async def build(settings: SttSettings, chassis: Chassis) -> SttService:
    """Connect to the bus and return the service, not started yet.

    Raises:
        BusUnavailable: NATS cannot be reached.
    """
    bus = await Bus.connect(chassis.base.nats_url, name="stt", on_lost=chassis.fail)
    return SttService(chassis, bus, settings)
