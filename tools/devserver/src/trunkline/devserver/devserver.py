"""The whole set-up: a bus, five services, and what keeps them running.

`run_dev` is what the command, the demo and the end-to-end tests use.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from watchfiles import awatch

from trunkline.devserver import ports, whereabouts
from trunkline.devserver.child import Child
from trunkline.devserver.errors import BusFailed, PortTaken
from trunkline.devserver.folder import temporary_folder
from trunkline.devserver.journal import Journal
from trunkline.devserver.post import Post
from trunkline.devserver.reload import concerned, watched
from trunkline.devserver.services import ServiceSpec
from trunkline.devserver.settings import Plan
from trunkline.testing.errors import NatsMissing, NatsNotStarted
from trunkline.testing.nats_server import run_nats


class Devserver:
    """A running set-up. Made by `run_dev`."""

    def __init__(self, plan: Plan, journal: Journal, *, port: int, nats_url: str, data: Path) -> None:
        self.plan = plan
        self.port = port
        self.nats_url = nats_url
        self.data = data
        self.agents = plan.agents
        self._journal = journal
        self._posts: dict[str, list[Post]] = {spec.name: self._posts_of(spec) for spec in plan.services}
        self._reloading: asyncio.Task[None] | None = None

    @property
    def edge_url(self) -> str:
        """Where the edge is, for example ``http://127.0.0.1:8080``."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.plan.host, self.plan.host)  # noqa: S104 - compared
        return f"http://{host}:{self.port}"

    @property
    def embedded(self) -> bool:
        """Whether the NATS is ours."""
        return not self.plan.nats_url

    @property
    def events_file(self) -> Path:
        """Where the facts of all calls are written, a JSON object a line."""
        return Path(self.plan.environ.get("TRUNKLINE_EVENTS_FILE") or self.data / "events.jsonl")

    def processes(self, service: str) -> tuple[Child, ...]:
        """Return the processes that serve as `service` now (those that only drain are not among them)."""
        return tuple(post.current for post in self._posts[service] if post.current is not None)

    def restarts(self, service: str) -> int:
        """Return how often a process of `service` died and was replaced."""
        return sum(post.restarts for post in self._posts[service])

    def stats_urls(self) -> list[tuple[str, str]]:
        """Return name and ``/stats`` URL of every process."""
        return [
            (child.name, f"http://127.0.0.1:{child.port}/stats")
            for posts in self._posts.values()
            for post in posts
            if (child := post.current) is not None
        ]

    async def start(self) -> None:
        """Start all services at once; return when all are ready.

        Raises:
            StartFailed: one of them is not; the others may run and are to be stopped.
        """
        async with _first_error(), asyncio.TaskGroup() as group:
            for posts in self._posts.values():
                for post in posts:
                    group.create_task(post.man())
        if self.plan.reload:
            self._reloading = asyncio.create_task(self._reload(), name="reload")

    async def relieve(self, service: str) -> None:
        """Replace the processes of `service`, one after the other, while their calls go on."""
        for post in self._posts[service]:
            await post.relieve()

    async def stop(self) -> None:
        """Drain and stop all services, those that listen to the others last."""
        if self._reloading is not None:
            self._reloading.cancel()
            await asyncio.gather(self._reloading, return_exceptions=True)
        for last in (False, True):
            names = [spec.name for spec in self.plan.services if spec.stops_last is last]
            posts = [post for name in names for post in self._posts[name]]
            await asyncio.gather(*(post.stop(self.plan.drain_s) for post in posts))

    def kill(self) -> None:
        """End every process at once; `stop` then has nothing to wait for."""
        for posts in self._posts.values():
            for post in posts:
                post.kill()

    def _posts_of(self, spec: ServiceSpec) -> list[Post]:
        async def launch(name: str) -> Child:
            port = ports.any_free()
            env = {**self._environ(), spec.port_variable: str(port)}
            return await Child.start(name, spec.module, env, port, self._journal.line)

        count = self.plan.workers.get(spec.name, 1)
        names = [spec.name] + [f"{spec.name}-{number}" for number in range(2, count + 1)]
        return [Post(name, launch, self._journal.say) for name in names]

    def _environ(self) -> dict[str, str]:
        environ = {
            "TRUNKLINE_LOG_FORMAT": "text",
            **self.plan.environ,
            "TRUNKLINE_NATS_URL": self.nats_url,
            "TRUNKLINE_EDGE_HOST": self.plan.host,
            "TRUNKLINE_EDGE_PORT": str(self.port),
            "TRUNKLINE_EVENTS_FILE": str(self.events_file),
        }
        if self.agents is not None:
            environ["TRUNKLINE_AGENTS"] = str(self.agents)
        return environ

    async def _reload(self) -> None:
        modules = {spec.name: spec.module for spec in self.plan.services}
        what = watched(modules, self.agents)
        self._journal.say(f"watching {len(what.paths)} folders; new code takes over while live calls go on")
        async for changes in awatch(*what.paths, debounce=300, recursive=True):
            found = concerned((Path(path) for _, path in changes), what)
            for agent in found.agents:
                self._journal.say(f"agent {agent} has changed; its next call is answered by the new file")
            await asyncio.gather(*(self.relieve(name) for name in self._posts if name in found.services))


@contextlib.asynccontextmanager
async def run_dev(plan: Plan, journal: Journal) -> AsyncIterator[Devserver]:
    """Run a set-up for the length of a block, and leave nothing of it behind.

    Call it on the main thread: Linux counts a child's parent by thread, and the embedded NATS dies with its own.

    Raises:
        PortTaken: the plan names a port that somebody else has.
        BusFailed: the embedded NATS does not start.
        StartFailed: a service is not ready; it and all others are stopped.
    """
    port = choose_port(plan, journal)
    with contextlib.ExitStack() as stack:
        data = plan.data or stack.enter_context(temporary_folder())
        data = data.resolve()
        data.mkdir(parents=True, exist_ok=True)
        nats_url = plan.nats_url or stack.enter_context(_embedded_nats(data / "nats"))
        dev = Devserver(plan, journal, port=port, nats_url=nats_url, data=data)
        try:
            await dev.start()
            if plan.note:
                _leave_note(dev, stack)
            yield dev
        finally:
            await dev.stop()


def choose_port(plan: Plan, journal: Journal) -> int:
    """Return the edge's port.

    Raises:
        PortTaken: the plan fixes one that somebody else has.
    """
    if plan.port == 0:
        return ports.any_free(plan.host)
    if ports.is_free(plan.port, plan.host):
        return plan.port
    taken = PortTaken(plan.port, ports.holder(plan.port), ports.next_free(plan.port, plan.host))
    if plan.port_is_fixed:
        raise taken
    by = f" by {taken.holder}" if taken.holder else ""
    journal.say(f"port {plan.port} is taken{by}; using {taken.free}")
    return taken.free


@contextlib.contextmanager
def _embedded_nats(folder: Path) -> Iterator[str]:
    try:
        context = run_nats(store_dir=folder)
        server = context.__enter__()
    except (NatsMissing, NatsNotStarted, OSError) as error:
        raise BusFailed(f"the embedded NATS did not start: {error}") from error
    try:
        yield server.url
    finally:
        context.__exit__(None, None, None)


def _leave_note(dev: Devserver, stack: contextlib.ExitStack) -> None:
    note = whereabouts.Whereabouts(dev.nats_url, dev.edge_url, os.getpid())
    # Without it everything works, but other commands have to be told where.
    with contextlib.suppress(OSError):
        stack.enter_context(whereabouts.left(note, whereabouts.note_path(dev.plan.environ)))


@contextlib.asynccontextmanager
async def _first_error() -> AsyncIterator[None]:
    """Raise the first error of a group alone: one sentence is enough to act on."""
    try:
        yield
    except* Exception as group:  # noqa: BLE001 - raised again at once
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


def stop_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that ask the command to stop."""
    return (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
