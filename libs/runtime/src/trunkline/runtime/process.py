"""The life of a process: start → ready → drain → stop.

SIGTERM asks politely: not ready any more, the service drains (leaves its claim group, waits for its calls), bounded by
``TRUNKLINE_DRAIN_S``, then stops. SIGINT (Ctrl-C), or a second signal, stops at once; calls are still closed cleanly.
A permanent failure (`Chassis.fail`) stops the process with exit code 1, so that whoever runs it starts it again.
"""

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

import msgspec
from prometheus_client import CollectorRegistry, Gauge, ProcessCollector
from starlette.routing import Route

from trunkline.runtime import http, logs
from trunkline.runtime.clock import SYSTEM, Clock
from trunkline.runtime.journal import Journal
from trunkline.runtime.loop import CollectorPauses, LoopLag, await_turns, new_event_loop
from trunkline.runtime.settings import BaseSettings, HttpSettings, SettingsError, load, unknown

S = TypeVar("S", bound=msgspec.Struct)
Check = Callable[[], str | None]
Rows = Callable[[], Iterable[tuple[str, object]]]

EXIT_FAILED = 1
EXIT_SETTINGS = 2
_STOP_S = 15.0
_GC_THRESHOLDS = (10_000, 20, 20)
"""Python's own first one, 700, is less than what hundreds of calls allocate in 20 ms."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Service(Protocol):
    """What a process does between its start and its stop."""

    async def start(self) -> None:
        """Do all that is needed to serve; the process is ready when this returns."""
        ...

    async def drain(self) -> None:
        """Take nothing new and wait for what is under way. Cancelled when its time is up."""
        ...

    async def stop(self) -> None:
        """Close what is left."""
        ...


class Chassis:
    """What the process gives its service."""

    def __init__(
        self, name: str, base: BaseSettings, environ: Mapping[str, str] = MappingProxyType({}), clock: Clock = SYSTEM
    ) -> None:
        self.name = name
        self.environ = environ
        """The process's variables, for providers that bring settings of their own."""
        self.base = base
        self.clock = clock
        self.registry = CollectorRegistry()
        self.log = logging.getLogger(f"trunkline.{name}")
        self.journal = Journal(base.journal, name)
        self.started = False
        self.draining = False
        self.failure: str | None = None
        self.stop_asked = asyncio.Event()
        self.at_once = asyncio.Event()
        self._checks: dict[str, Check] = {}
        self._stats: list[tuple[str, Rows]] = []
        self._reports: dict[str, Callable[[], object]] = {}
        self._born = clock.monotonic()
        self.lag = LoopLag(clock, self.registry)
        self.pauses = CollectorPauses(clock, self.registry)
        ProcessCollector(registry=self.registry)
        Gauge("trunkline_up_info", "1 while the process lives", ["service"], registry=self.registry).labels(name).set(1)

    def ready_check(self, name: str, check: Check) -> None:
        """Let `check` decide about readiness too: it returns None, or why not."""
        self._checks[name] = check

    def stats(self, title: str, rows: Rows) -> None:
        """Show `rows` under `title` on ``/stats``."""
        self._stats.append((title, rows))

    def report(self, name: str, value: Callable[[], object]) -> None:
        """Show `value`, JSON, under `name` on ``/health``."""
        self._reports[name] = value

    def fail(self, reason: str) -> None:
        """End the process with exit code 1: something it cannot live without is gone for good."""
        if self.failure is None and not self.stop_asked.is_set():
            self.log.error("process failed", extra={"reason": reason})
            self.failure = reason
        self.stop_asked.set()
        self.at_once.set()

    def routes(self) -> list[Route]:
        """Return the routes ``/health``, ``/health/live``, ``/health/ready``, ``/metrics`` and ``/stats``."""
        return http.routes(lambda: self.failure, self.problems, self.page, self.registry, self._report)

    def problems(self) -> dict[str, str]:
        """Return why the process is not ready; empty when it is."""
        if self.draining:
            return {"draining": "asked to stop; no new calls"}
        if not self.started:
            return {"starting": "not started yet"}
        found = {name: check() for name, check in self._checks.items()}
        return {name: problem for name, problem in found.items() if problem}

    def _report(self) -> dict[str, object]:
        return {name: value() for name, value in self._reports.items()}

    def page(self) -> str:
        """Return ``/stats``: a page for people."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        state = "draining" if self.draining else "ready" if not self.problems() else "not ready"
        rows: list[tuple[str, Iterable[tuple[str, object]]]] = [
            (
                f"trunkline {self.name}",
                [
                    ("state", state),
                    *self.problems().items(),
                    ("up", f"{self.clock.monotonic() - self._born:.0f} s"),
                    ("memory", f"{_resident_mib():.0f} MiB"),
                    ("tasks", len(asyncio.all_tasks())),
                    ("cpu", f"{usage.ru_utime + usage.ru_stime:.1f} s"),
                    ("loop lag, worst of a minute", f"{self.lag.worst_s * 1000:.1f} ms"),
                ],
            ),
            *((title, list(lines())) for title, lines in self._stats),
        ]
        out = []
        for title, lines in rows:
            out.append(title)
            out.extend(f"  {name:<32} {value}" for name, value in lines)
            out.append("")
        return "\n".join(out)

    def on_signal(self, number: signal.Signals) -> None:
        """Begin to stop; at once on SIGINT or when asked again."""
        again = self.stop_asked.is_set()
        self.log.info("asked to stop", extra={"signal": number.name, "at_once": again or number is signal.SIGINT})
        self.stop_asked.set()
        if again or number is signal.SIGINT:
            self.at_once.set()


Build = Callable[[S, Chassis], Awaitable[Service]]


def run(name: str, settings_type: type[S], build: Build[S]) -> None:
    """Run a service from its environment until it is asked to stop; end the interpreter with its exit code."""
    prefix = f"TRUNKLINE_{name.upper()}_"
    try:
        base = load(BaseSettings, "TRUNKLINE_", os.environ)
        web = load(HttpSettings, prefix, os.environ)
        settings = load(settings_type, prefix, os.environ)
    except SettingsError as error:
        print(f"trunkline-{name}: {error}", file=sys.stderr)  # noqa: T201 - logs are not configured yet
        sys.exit(EXIT_SETTINGS)
    logs.configure(name, base.log_level, base.log_format, show_pii=base.log_pii)
    for sentence in unknown((settings_type, HttpSettings), prefix, os.environ):
        logging.getLogger(f"trunkline.{name}").warning("unknown setting", extra={"hint": sentence})
    await_turns()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        code = runner.run(_live(name, base, web, settings, build))
    sys.exit(code)


async def _live(name: str, base: BaseSettings, web: HttpSettings, settings: S, build: Build[S]) -> int:
    chassis = Chassis(name, base, os.environ)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: _unhandled(chassis.log, context))
    for number in _SIGNALS:
        loop.add_signal_handler(number, chassis.on_signal, number)
    lag = asyncio.create_task(chassis.lag.watch(), name="loop-lag")
    try:
        return await _with_health(chassis, web, settings, build)
    finally:
        lag.cancel()
        for number in _SIGNALS:  # from here on a signal ends a process that a stuck thread keeps alive
            loop.remove_signal_handler(number)


async def _with_health(chassis: Chassis, web: HttpSettings, settings: S, build: Build[S]) -> int:
    try:
        server = http.HttpServer(http.app_of(chassis.routes()), http.listen(web.http_host, web.http_port))
        await server.start()
    except OSError as error:
        chassis.log.error(  # noqa: TRY400 - the sentence says it all
            "cannot serve health",
            extra={"problem": str(error), "setting": f"TRUNKLINE_{chassis.name.upper()}_HTTP_PORT"},
        )
        return EXIT_SETTINGS
    try:
        return await _serve(chassis, settings, build, server)
    except SettingsError as error:
        print(f"trunkline-{chassis.name}: {error}", file=sys.stderr)  # noqa: T201 - a line for whoever typed the setting
        return EXIT_SETTINGS
    except OSError as error:
        # What it needs (the bus, a port, a file) is not there; the error says what and which setting to change.
        chassis.log.error("cannot start", extra={"problem": str(error)})  # noqa: TRY400
        return EXIT_FAILED
    finally:
        await server.stop()


def _unhandled(log: logging.Logger, context: dict[str, Any]) -> None:
    """Log what no task or callback caught. asyncio's own line would quote the exception's message and arguments."""
    task = context.get("task") or context.get("future")
    name = task.get_name() if isinstance(task, asyncio.Task) else None
    extra = {"task": name, "pii.what": context.get("message")}
    log.error("unhandled exception", extra=extra, exc_info=context.get("exception"))


async def _serve(chassis: Chassis, settings: S, build: Build[S], server: http.HttpServer) -> int:
    asked = asyncio.create_task(chassis.stop_asked.wait(), name="until-asked")
    starting = asyncio.create_task(_start(chassis, settings, build), name="start")
    await asyncio.wait({asked, starting}, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if not starting.done():
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        return EXIT_FAILED if chassis.failure else 0
    service = starting.result()
    # What start-up made lives as long as the process: keep the collector from walking it on every pass.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    chassis.pauses.watch()
    chassis.started = chassis.lag.serving = True
    chassis.log.info("ready", extra={"http": f"http://{server.host}:{server.port}"})
    await chassis.stop_asked.wait()
    chassis.draining = True
    await _drain(chassis, service)
    try:
        async with asyncio.timeout(_STOP_S):
            await service.stop()
    except TimeoutError:
        chassis.log.error("stop took too long; leaving", extra={"after_s": _STOP_S})  # noqa: TRY400
    chassis.log.info("stopped", extra={"failure": chassis.failure})
    return EXIT_FAILED if chassis.failure else 0


async def _start(chassis: Chassis, settings: S, build: Build[S]) -> Service:
    service = await build(settings, chassis)
    await service.start()
    return service


async def _drain(chassis: Chassis, service: Service) -> None:
    if chassis.at_once.is_set():
        return
    drained = asyncio.create_task(service.drain(), name="drain")
    at_once = asyncio.create_task(chassis.at_once.wait(), name="at-once")
    done, _ = await asyncio.wait({drained, at_once}, timeout=chassis.base.drain_s, return_when=asyncio.FIRST_COMPLETED)
    at_once.cancel()
    if drained in done:
        drained.result()
        return
    chassis.log.warning("drain cut short", extra={"limit_s": chassis.base.drain_s})
    drained.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await drained


def _resident_mib() -> float:
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - a kernel table, not a path
            return int(statm.read().split()[1]) * resource.getpagesize() / 2**20
    except OSError:  # not Linux: the peak is the next best
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
