"""The process between its start and its stop: a `Worker` of stage ``stt`` whose calls are `CallHearing`s."""

import asyncio
import logging
from collections.abc import Iterable

from trunkline.bus import Bus, CallSession, EventLog, Unservable, Worker
from trunkline.proto import codec, subjects
from trunkline.proto.agent import Stt
from trunkline.proto.ids import new_worker_id
from trunkline.proto.messages import Claim
from trunkline.providers import prices
from trunkline.providers.errors import Misconfigured, Unusable
from trunkline.providers.health import Health
from trunkline.providers.roster import Roster
from trunkline.providers.strain import Strained
from trunkline.runtime.metrics import Counts
from trunkline.runtime.plugins import Plugins
from trunkline.runtime.process import Chassis
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


class SttService:
    """Hears the calls it claims. Made by `build`."""

    def __init__(
        self, chassis: Chassis, bus: Bus, settings: SttSettings, known: Plugins[SttProvider] | None = None
    ) -> None:
        self._chassis = chassis
        self._bus = bus
        self._settings = settings
        self._roster: Roster[SttProvider, Stt] = Roster(
            "stt",
            known or providers(chassis.environ),
            lambda agent: (agent.stt, *agent.stt.fallbacks),
            lambda provider, _, stt: provider.check(stt),
        )
        self._metrics = SttMetrics(chassis.registry)
        # One more than may be held: a call claimed again is opened before the worker has counted it off.
        detector = VoiceDetector(settings.capacity + 1)
        self._cadence = Cadence(detector, chassis.clock, self._metrics)
        self._outbox = Outbox(bus, chassis.clock.monotonic, self._metrics.counts)
        self._events = EventLog(bus, chassis.clock.wall, replicas=chassis.base.nats_replicas)
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
            chassis.journal,
        )
        self._strained = Strained(chassis.lag, self._health.states, "no recogniser can be asked")
        self._hearing: dict[str, CallHearing] = {}
        """By the subject of their audio."""
        self._tasks: list[asyncio.Task[None]] = []
        self.worker = Worker(
            bus,
            stage="stt",
            worker=new_worker_id("stt"),
            capacity=settings.capacity,
            open_call=self.open_call,
            strained=self._strained,
        )
        self.worker.guard(self._events)
        chassis.journal.who = self.worker.worker
        chassis.ready_check("bus", bus.problem)
        chassis.stats("hearing", self._rows)
        chassis.stats("providers", self._health.states)
        chassis.report("providers", lambda: dict(self._health.states()))
        chassis.stats("media lane", bus.media.counts.items)
        Counts(chassis.registry, "trunkline_stt_bus_media", "Frames on the media lane", lambda: bus.media.counts)

    async def start(self) -> None:
        """Warm up, listen, and take calls."""
        await self._warm_up()
        parts = (("cadence", self._cadence.run()), ("outbox", self._outbox.run()))
        for name, run in parts:
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
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._roster.aclose()
        await self._events.close()
        await self._bus.close()

    def on_frame(self, subject: str, data: bytes) -> None:
        """Hand a frame to its call."""
        hearing = self._hearing.get(subject)
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
            await hearing.close("not-opened", goes_on=False)
            raise Unservable(
                f"agent {claim.agent.name}: {error}", retry=not isinstance(error, Misconfigured)
            ) from error
        except BaseException:
            await hearing.close("not-opened", goes_on=False)
            raise
        subject = subjects.media(self.worker.worker, claim.call)
        self._hearing[subject] = hearing
        return _Held(hearing, subject, self._hearing)

    def _lender(self, agent: str, choice: Stt) -> Lender:
        async def lend(on_heard: OnHeard) -> tuple[SttStream, SttCapabilities]:
            provider = await self._roster.get(choice.provider)
            for setting in _ignored(choice, provider.capabilities):
                log.warning(
                    "setting not honoured by the provider",
                    extra={"agent": agent, "provider": choice.provider, "setting": setting},
                )
            return await provider.open(choice, on_heard), provider.capabilities

        return Lender(choice, lend)

    def _on_ringing(self, _subject: str, data: bytes) -> None:
        """A call is about to come: have what it needs ready, unless it would go elsewhere anyway."""
        if self.worker.calls < self.worker.capacity:
            self._roster.ring(codec.decode(codec.RINGING, data).agent)

    async def _warm_up(self) -> None:
        """Meet what the agents need, as far as it can be known.

        Raises:
            SettingsError: an agent needs a provider or a key that is not there; names both.
        """
        named = await self._roster.meet(self._chassis.base.agents, self._chassis.environ)
        for name in sorted({*named, self._settings.warm} - {""}):
            await self._warm_up_one(name)

    async def _warm_up_one(self, name: str) -> None:
        try:
            await (await self._roster.get(name)).warm_up()
        except Unusable as error:
            # Agents with another provider can be served all the same.
            log.warning("provider not warmed up", extra={"provider": name, "problem": str(error)})

    def _on_task_over(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a part of the process died", extra={"part": task.get_name()}, exc_info=error)
            self._chassis.fail(f"{task.get_name()} died: {error}")

    def _rows(self) -> Iterable[tuple[str, object]]:
        yield "worker", self.worker.worker
        yield "calls", f"{self.worker.calls} of {self.worker.capacity}"
        yield "providers", ", ".join(self._roster.names)
        yield "providers not warmed in time", self._roster.not_warmed
        yield from self._metrics.rows()


class _Held:
    """A call as the worker holds it: closing it also ends the look-up of its frames."""

    def __init__(self, hearing: CallHearing, subject: str, calls: dict[str, CallHearing]) -> None:
        self._hearing = hearing
        self._subject = subject
        self._calls = calls

    async def close(self, reason: str, *, goes_on: bool) -> None:
        """Let the call go."""
        if self._calls.get(self._subject) is self._hearing:
            del self._calls[self._subject]
        await self._hearing.close(reason, goes_on=goes_on)

    async def rest(self) -> None:
        """Return when nothing is half heard."""
        await self._hearing.rest()

    def forget(self) -> None:
        """Let go of everything."""
        self._hearing.forget()


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
