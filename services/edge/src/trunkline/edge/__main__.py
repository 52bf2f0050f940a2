"""The process: start → ready → drain (stop listening, keep the calls) → stop."""

import logging
from collections.abc import Iterable, Mapping

from trunkline.agents import AgentFileError, AgentFolder
from trunkline.bus import Bus
from trunkline.edge import settings as setting
from trunkline.edge.exchange import Exchange
from trunkline.edge.gate import Gate
from trunkline.edge.http import Reception
from trunkline.edge.metrics import EdgeMetrics, show_bus
from trunkline.edge.outbound import Dialler
from trunkline.edge.settings import EdgeSettings, Setup
from trunkline.edge.signature import PublicUrl, Signatures
from trunkline.runtime.http import HttpServer, PortTaken, listen
from trunkline.runtime.metrics import Counts
from trunkline.runtime.process import Chassis, run
from trunkline.runtime.settings import SettingsError

log = logging.getLogger("trunkline.edge")


class Edge:
    """The edge as a service of a chassis."""

    def __init__(self, bus: Bus, exchange: Exchange, server: HttpServer, dialler: Dialler, public: PublicUrl) -> None:
        self.exchange = exchange
        self.server = server
        self._bus = bus
        self._dialler = dialler
        self._public = public

    async def start(self) -> None:
        """Take calls."""
        await self.exchange.start()
        await self.server.start()
        log.info(
            "listening",
            extra={"host": self.server.host, "port": self.server.port, "public_url": str(self._public)},
        )

    async def drain(self) -> None:
        """Let a successor take the port; keep the calls until they end."""
        self.server.stop_listening()
        await self.exchange.drain()

    async def stop(self) -> None:
        """End what is left. No new call may come in while the others are ended."""
        self.server.stop_listening()
        await self.exchange.stop()
        await self._dialler.close()
        await self.server.stop()
        await self._bus.close()


async def build(settings: EdgeSettings, chassis: Chassis, environ: Mapping[str, str] = setting.ENVIRONMENT) -> Edge:
    """Put the edge together.

    Raises:
        SettingsError: a variable or an agent file is wrong, or the port is taken.
        BusUnavailable: NATS does not answer.
    """
    setup = setting.read(settings, environ)
    agents = AgentFolder(setup.agents, setup.environ)
    try:
        agents.load()
        sock = listen(settings.host, settings.port, shared=True)
    except AgentFileError as error:
        raise SettingsError(str(error)) from error
    except PortTaken as error:
        raise SettingsError(f"TRUNKLINE_EDGE_PORT={settings.port}: {error}") from error
    bus = await Bus.connect(chassis.base.nats_url, name="edge", on_lost=chassis.fail)
    metrics = EdgeMetrics(chassis.registry, lambda: len(exchange.calls))
    exchange = Exchange(bus, agents, settings, metrics, chassis)
    Counts(chassis.registry, "trunkline_edge_reaper", "Calls that nobody had", lambda: exchange.reaper.counts)
    show_bus(chassis.registry, bus.media, exchange.events)
    public = setup.public_url(sock.getsockname()[1])
    dialler = Dialler(setup, public)
    reception = Reception(
        exchange=exchange,
        gate=_gate(setup, public),
        public=public,
        dialler=dialler,
        metrics=metrics,
        settings=settings,
    )
    server = HttpServer(reception.app(chassis.routes()), sock, upgrade=reception.sockets().connection)
    chassis.ready_check("bus", bus.problem)
    chassis.stats("calls", lambda: _rows(exchange, metrics, bus))
    return Edge(bus, exchange, server, dialler, public)


def _gate(setup: Setup, public: PublicUrl) -> Gate:
    token = setup.twilio.auth_token
    return Gate(Signatures(token, public) if token else None)


def _rows(exchange: Exchange, metrics: EdgeMetrics, bus: Bus) -> Iterable[tuple[str, object]]:
    yield "edge", exchange.edge
    yield "live", len(exchange.calls)
    yield "agents", ", ".join(exchange.agents.names)
    yield "clips kept", len(exchange.clips)
    yield "other processes heard", exchange.heard
    for title, tally in (
        ("ended", metrics.ended),
        ("traffic", metrics.traffic),
        ("claims", metrics.claims),
        ("refused", metrics.refused),
        ("bad messages", metrics.bad),
        ("fenced", metrics.fenced),
        ("dropped", metrics.dropped),
        ("media lane", bus.media.counts),
        ("events", exchange.events.counts),
        ("reaper", exchange.reaper.counts),
    ):
        for what, count in sorted(tally.items()):
            yield f"{title}: {what}", count
    yield "events: pending", exchange.events.pending


def main() -> None:
    """Run until asked to stop."""
    run("edge", EdgeSettings, build)


if __name__ == "__main__":
    main()
