"""The process between its start and its stop: a `Worker` of stage ``tts`` whose calls are `CallSpeech`es."""

import logging
from collections.abc import Iterable

from trunkline.bus import Bus, BusError, CallSession, Unservable, Worker
from trunkline.proto.agent import Tts
from trunkline.proto.ids import new_worker_id
from trunkline.proto.messages import Claim
from trunkline.providers.errors import Unusable
from trunkline.runtime.metrics import Counts
from trunkline.runtime.plugins import PluginError, Plugins
from trunkline.runtime.process import Chassis
from trunkline.tts.metrics import TtsMetrics
from trunkline.tts.provider import TtsCapabilities, TtsProvider, providers
from trunkline.tts.session import CallSpeech, Surroundings
from trunkline.tts.settings import TtsSettings

log = logging.getLogger("trunkline.tts")

_DEFAULTS = Tts()


class TtsService:
    """Speaks for the calls it claims. Made by `build`."""

    def __init__(
        self, chassis: Chassis, bus: Bus, settings: TtsSettings, known: Plugins[TtsProvider] | None = None
    ) -> None:
        self.bus = bus
        self._providers = known or providers(chassis.environ)
        self._metrics = TtsMetrics(chassis.registry)
        self._shared = Surroundings(bus, chassis.clock, self._metrics, settings)
        self.worker = Worker(
            bus,
            stage="tts",
            worker=new_worker_id("tts"),
            capacity=settings.capacity,
            open_call=self.open_call,
        )
        chassis.ready_check("bus", bus.problem)
        chassis.stats("speech", self._rows)
        chassis.stats("media lane", bus.media.counts.items)
        Counts(chassis.registry, "trunkline_tts_bus_media", "Frames on the media lane", lambda: bus.media.counts)

    async def start(self) -> None:
        """Take calls."""
        await self.worker.start()

    async def drain(self) -> None:
        """Take no more calls and wait for those there are."""
        await self.worker.drain()

    async def stop(self) -> None:
        """Let every call go and leave the bus."""
        await self.worker.stop()
        await self._providers.aclose()
        await self.bus.close()

    async def open_call(self, claim: Claim) -> CallSession:
        """Open the agent's voice for a call and listen.

        Raises:
            Unservable: there is no such provider or voice here.
        """
        tts = claim.agent.tts
        try:
            provider = self._providers.get(tts.provider)
            voice = await provider.open(tts)
        except (Unusable, PluginError) as error:
            raise Unservable(f"agent {claim.agent.name}: {error}") from error
        for setting in _ignored(tts, provider.capabilities):
            log.warning(
                "setting not honoured by the provider",
                extra={"agent": claim.agent.name, "provider": tts.provider, "setting": setting},
            )
        speech = CallSpeech(claim, voice, provider.capabilities, self._shared)
        try:
            await speech.start()
        except BusError:
            await speech.close("not-opened")
            raise
        return speech

    def _rows(self) -> Iterable[tuple[str, object]]:
        yield "worker", self.worker.worker
        yield "calls", f"{self.worker.calls} of {self.worker.capacity}"
        yield "providers", ", ".join(self._providers.names())
        waiting = [speech.waiting for _, speech in self.worker.sessions() if isinstance(speech, CallSpeech)]
        yield "sentences waiting", sum(waiting)
        yield from self._metrics.rows()


def _ignored(tts: Tts, capabilities: TtsCapabilities) -> list[str]:
    """Return the settings that differ from the default and that the provider does not honour."""
    differs = {"speed": tts.speed != _DEFAULTS.speed, "pitch": tts.pitch != _DEFAULTS.pitch}
    return [f"tts.{name}" for name, changed in differs.items() if changed and name not in capabilities.adjusts]


async def build(settings: TtsSettings, chassis: Chassis) -> TtsService:
    """Connect to the bus and return the service, not started yet.

    Raises:
        BusUnavailable: NATS cannot be reached.
    """
    bus = await Bus.connect(chassis.base.nats_url, name="tts", on_lost=chassis.fail)
    return TtsService(chassis, bus, settings)
