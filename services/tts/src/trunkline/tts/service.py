"""The process between its start and its stop: a `Worker` of stage ``tts`` whose calls are `CallSpeech`es."""

import logging
from collections.abc import Iterable

from trunkline.bus import Bus, CallSession, ClipStore, EventLog, Subscription, Unservable, Worker
from trunkline.proto import codec, subjects
from trunkline.proto.agent import Tts
from trunkline.proto.errors import BadMessage
from trunkline.proto.ids import new_worker_id
from trunkline.proto.messages import Claim, ClipMade
from trunkline.providers import prices
from trunkline.providers.errors import Misconfigured, Unusable
from trunkline.providers.health import Health
from trunkline.providers.roster import Roster
from trunkline.providers.strain import Strained
from trunkline.runtime.metrics import Counts
from trunkline.runtime.plugins import Plugins
from trunkline.runtime.process import Chassis
from trunkline.tts.clips import ClipMaker, Clips
from trunkline.tts.metrics import TtsMetrics
from trunkline.tts.provider import TtsCapabilities, TtsProvider, providers
from trunkline.tts.session import CallSpeech, Surroundings
from trunkline.tts.settings import TtsSettings
from trunkline.tts.voices import Opened

log = logging.getLogger("trunkline.tts")

_DEFAULTS = Tts()


class TtsService:
    """Speaks for the calls it claims. Made by `build`."""

    def __init__(
        self, chassis: Chassis, bus: Bus, settings: TtsSettings, known: Plugins[TtsProvider] | None = None
    ) -> None:
        self.bus = bus
        self._chassis = chassis
        self._roster: Roster[TtsProvider, Tts] = Roster(
            "tts",
            known or providers(chassis.environ),
            lambda agent: (agent.tts, *agent.tts.fallbacks),
            lambda provider, _, tts: provider.check(tts),
        )
        self._metrics = TtsMetrics(chassis.registry)
        replicas = chassis.base.nats_replicas
        self._events = EventLog(bus, chassis.clock.wall, replicas=replicas)
        health = Health("tts", settings.breaker_rules, chassis.clock.monotonic, chassis.registry)
        table = prices.load(chassis.environ)
        maker = ClipMaker(self._open_voice, health, table, chassis.clock.monotonic)
        self._clips = Clips(ClipStore(bus, replicas=replicas), maker, self._metrics, settings.clips_after_ms / 1_000)
        self._shared = Surroundings(
            bus,
            chassis.clock,
            self._metrics,
            settings,
            self._events,
            health,
            settings.retry_rules,
            table,
            self._clips,
            chassis.journal,
        )
        self._strained = Strained(chassis.lag, health.states, "no voice can be asked")
        self._orders: Subscription | None = None
        self.worker = Worker(
            bus,
            stage="tts",
            worker=new_worker_id("tts"),
            capacity=settings.capacity,
            open_call=self.open_call,
            strained=self._strained,
        )
        self.worker.guard(self._events)
        chassis.journal.who = self.worker.worker
        chassis.ready_check("bus", bus.problem)
        chassis.stats("speech", self._rows)
        chassis.stats("providers", health.states)
        chassis.report("providers", lambda: dict(health.states()))
        chassis.stats("media lane", bus.media.counts.items)
        Counts(chassis.registry, "trunkline_tts_bus_media", "Frames on the media lane", lambda: bus.media.counts)
        Counts(chassis.registry, "trunkline_tts_facts", "Facts by what became of them", lambda: self._events.counts)

    async def start(self) -> None:
        """Take calls, and orders for clips.

        Raises:
            SettingsError: an agent needs a provider or a key that is not there; names both.
        """
        await self._roster.meet(self._chassis.base.agents, self._chassis.environ)
        await self.bus.subscribe(subjects.RINGING, self._on_ringing)
        await self.bus.subscribe(subjects.missed(self.worker.worker), self._on_missed)
        self._orders = await self.bus.serve(subjects.MAKE_CLIP, self._on_make_clip, queue="tts")
        await self.worker.start()

    async def drain(self) -> None:
        """Take no more calls and wait for those there are."""
        await self._take_no_orders()
        await self.worker.drain()

    async def stop(self) -> None:
        """Let every call go and leave the bus."""
        await self._take_no_orders()
        await self.worker.stop()
        await self._clips.close()
        await self._roster.aclose()
        await self._events.close()
        await self.bus.close()

    async def open_call(self, claim: Claim) -> CallSession:
        """Open the agent's voice for a call and listen.

        Raises:
            Unservable: none of the agent's voices is to be had here.
        """
        speech = CallSpeech(claim, self._open_voice, self._shared)
        try:
            await speech.start()
        except Unusable as error:
            await speech.close("not-opened", goes_on=False)
            retry = not isinstance(error, Misconfigured)
            raise Unservable(f"agent {claim.agent.name}: {error}", retry=retry) from error
        except BaseException:
            await speech.close("not-opened", goes_on=False)
            raise
        return speech

    async def _open_voice(self, tts: Tts) -> Opened:
        provider = await self._roster.get(tts.provider)
        opened = Opened(await provider.open(tts), provider.capabilities)
        for setting in _ignored(tts, provider.capabilities):
            log.warning(
                "setting not honoured by the provider", extra={"provider": tts.provider, "setting": f"tts.{setting}"}
            )
        return opened

    async def _on_make_clip(self, data: bytes) -> ClipMade:
        try:
            order = codec.decode(codec.MAKE_CLIP, data)
        except BadMessage as error:
            return ClipMade(problem=f"malformed order: {error}")
        return ClipMade(problem=await self._clips.order(order.tts, order.text))

    async def _take_no_orders(self) -> None:
        orders, self._orders = self._orders, None
        if orders is not None:
            await orders.drain()

    def _on_missed(self, _subject: str, data: bytes) -> None:
        missed = codec.decode(codec.MISSED, data)
        speech = self.worker.session(missed.call)
        if isinstance(speech, CallSpeech):
            speech.repeat(missed)

    def _on_ringing(self, _subject: str, data: bytes) -> None:
        """A call is about to come: have what it needs ready, unless it would go elsewhere anyway."""
        if self.worker.calls < self.worker.capacity:
            self._roster.ring(codec.decode(codec.RINGING, data).agent)

    def _rows(self) -> Iterable[tuple[str, object]]:
        yield "worker", self.worker.worker
        yield "calls", f"{self.worker.calls} of {self.worker.capacity}"
        yield "providers", ", ".join(self._roster.names)
        yield "providers not warmed in time", self._roster.not_warmed
        waiting = [speech.waiting for _, speech in self.worker.sessions() if isinstance(speech, CallSpeech)]
        yield "sentences waiting", sum(waiting)
        yield "clips in memory", f"{len(self._clips.shelf)}, {self._clips.shelf.bytes / 2**20:.1f} MiB"
        yield from self._metrics.rows()


def _ignored(tts: Tts, capabilities: TtsCapabilities) -> list[str]:
    """Return the settings that differ from the default and that the provider does not honour."""
    differs = {
        "speed": tts.speed != _DEFAULTS.speed,
        "pitch": tts.pitch != _DEFAULTS.pitch,
        "language": tts.language != _DEFAULTS.language,
    }
    return [name for name, changed in differs.items() if changed and name not in capabilities.adjusts]


async def build(settings: TtsSettings, chassis: Chassis) -> TtsService:
    """Connect to the bus and return the service, not started yet.

    Raises:
        BusUnavailable: NATS cannot be reached.
    """
    bus = await Bus.connect(chassis.base.nats_url, name="tts", on_lost=chassis.fail)
    return TtsService(chassis, bus, settings)
