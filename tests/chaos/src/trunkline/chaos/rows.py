"""The rows of the table of promises: what is done, when, on what bed, and what was promised for it."""

import asyncio
import contextlib
import random
import signal
from collections.abc import Awaitable, Callable
from typing import Final, Literal, NamedTuple

from trunkline.chaos.rig import STAGES, Bed, Rig
from trunkline.chaos.watch import State

HANG_S: Final = 3.0
NATS_DOWN_S: Final = 0.5
NODE_DOWN_S: Final = 3.0
PARTITION_S: Final = 5.0
RECEIVER_BACK_S: Final = 120.0
RECEIVER_AWAY_S: Final = 300.0
SURGE: Final = 10
SURGE_S: Final = 10.0

_BUSY: Final[dict[str, State]] = {"stt": "hearing", "brain": "thinking", "tts": "speaking"}
"""The state in which a stage is most missed."""

Inject = Callable[[Rig, random.Random], Awaitable[None]]
Figure = Literal["extra_silence_ms", "reclaim_ms", "first_frame_ms", "next_audio_ms"]


class Row(NamedTuple):
    """One kind of fault."""

    title: str
    inject: Inject
    promise: str
    """In words, as the caller hears it."""
    figure: Figure = "extra_silence_ms"
    """Which figure the promise is about."""
    p95_ms: float | None = None
    """What was promised for it."""
    settle_s: float = 8.0
    """How long to let it be before the next one."""
    bed: Bed = "one"
    may_refuse: bool = False
    environ: dict[str, str] = {}  # noqa: RUF012 - never written to
    """Settings of the services that differ from the defaults."""
    beside: Inject | None = None
    """What goes on all the while, if anything; cancelled in the end."""


def signalled(stage: str, state: State, number: signal.Signals, kind: str, hang_s: float = 0.0) -> Inject:
    """Return what sends a signal to the worker of a call in the midst of `state`."""

    async def inject(rig: Rig, rng: random.Random) -> None:
        found = await rig.until(state, stage, rng)
        if found is None:
            rig.say(f"no call was {state}; nothing done")
            return
        call, child = found
        fault = await rig.send(child, number, kind=kind, aimed_at=call, state=state)
        if hang_s:
            await asyncio.sleep(hang_s)
            child.signal(signal.SIGCONT)
            rig.undone(fault)

    return inject


def _kill(stage: str, state: State, kind: str) -> Inject:
    return signalled(stage, state, signal.SIGKILL, kind)


def _hang(stage: str, state: State) -> Inject:
    return signalled(stage, state, signal.SIGSTOP, f"{stage}-hang", HANG_S)


async def _nats_restart(rig: Rig, _: random.Random) -> None:
    if rig.nats is None:
        return
    fault = rig.note("nats-restart", "nats")
    rig.nats.kill()
    await asyncio.sleep(NATS_DOWN_S)
    rig.nats.start()
    rig.undone(fault)


def _node_kill(*, leader: bool) -> Inject:
    async def inject(rig: Rig, rng: random.Random) -> None:
        cluster = rig.cluster
        if cluster is None:
            return
        leading = await asyncio.to_thread(cluster.leader_of, "EVENTS")
        node = leading if leader else rng.choice([one for one in cluster.servers if one is not leading])
        fault = rig.note("leader-kill" if leader else "node-kill", "nats")
        node.kill()
        await asyncio.sleep(NODE_DOWN_S)
        node.start()  # not in a thread: the server dies with the thread that started it
        rig.undone(fault)
        await asyncio.to_thread(cluster.await_caught_up, 30.0)

    return inject


async def _partition(rig: Rig, rng: random.Random) -> None:
    far = rng.choice(rig.far)
    state = _BUSY[far.stage]
    worker = await rig.id_of(far)
    call = await rig.until_worker(state, far.stage, worker, rng) if worker else None
    if call is None:
        rig.say(f"no call of the {far.stage} behind the bad line was {state}; nothing done")
        return
    fault = rig.note("partition", far.stage, worker, aimed_at=call, state=state)
    far.proxy.drop()
    await asyncio.sleep(PARTITION_S)
    far.proxy.heal()
    rig.undone(fault)


async def _surge(rig: Rig, rng: random.Random) -> None:
    calls = SURGE * max(1, len(rig.watch.calls))
    fault = rig.note("surge", "")
    await rig.call(calls, seed=rng.randrange(10**6), stagger_s=SURGE_S / calls, once=True, questions=2)
    await asyncio.sleep(SURGE_S)
    rig.undone(fault)


async def _upgrade(rig: Rig, _: random.Random) -> None:
    for service in ("stt", "tts", "brain", "events", "edge"):
        fault = rig.note("upgrade", service)
        await rig.dev.relieve(service)
        rig.undone(fault)


def _none_left(stage: str) -> Inject:
    async def inject(rig: Rig, _: random.Random) -> None:
        killed = [
            await rig.send(child, signal.SIGKILL, kind="none-left") for child in rig.dev.processes(stage) if child.ready
        ]
        await rig.manned()
        for fault in killed:
            rig.undone(fault)

    return inject


async def _none_left_of_any(rig: Rig, rng: random.Random) -> None:
    await _none_left(rng.choice(STAGES))(rig, rng)


_KINDS: Final[tuple[tuple[str, str, State], ...]] = (
    ("stt-kill", "stt", "hearing"),
    ("brain-kill", "brain", "thinking"),
    ("brain-kill-tool", "brain", "tool"),
    ("tts-kill", "tts", "speaking"),
    ("edge-kill", "edge", "speaking"),
)


class _Soak:
    """A kill of every kind, in an order drawn anew for every round.

    The first process of every post is spared: what it gathers over the whole run is what leaks.
    """

    def __init__(self) -> None:
        self._left: list[tuple[str, str, State]] = []

    async def __call__(self, rig: Rig, rng: random.Random) -> None:
        if not self._left:
            self._left = rng.sample(_KINDS, len(_KINDS))
        kind, stage, state = self._left.pop()
        with contextlib.suppress(TimeoutError):
            await rig.manned()
        child = rig.dev.processes(stage)[-1]
        worker = await rig.worker_of(child)
        call = await rig.until_worker(state, stage, worker, rng) if worker else None
        if call is None:
            rig.say(f"no call of {child.name} was {state}; nothing done")
            return
        await rig.send(child, signal.SIGKILL, kind=kind, aimed_at=call, state=state)


async def _receiver_away(rig: Rig, _: random.Random) -> None:
    receiver = rig.receiver
    if receiver is None:
        return
    while True:
        await asyncio.sleep(RECEIVER_BACK_S)
        rig.say("the webhook's receiver is away")
        await receiver.be_away(RECEIVER_AWAY_S, rig.emitted)
        rig.say(f"it is back; {len(receiver.away[-1].waiting)} facts wait")


class _OneOfEach:
    """One fault of every kind that a deployment on one machine can have, in turn."""

    def __init__(self) -> None:
        self._next = 0
        self._kinds: tuple[Inject, ...] = (
            _kill("stt", "hearing", "stt-kill"),
            _kill("brain", "thinking", "brain-kill"),
            _kill("tts", "speaking", "tts-kill"),
            _nats_restart,
            _kill("edge", "speaking", "edge-kill"),
        )

    async def __call__(self, rig: Rig, rng: random.Random) -> None:
        inject = self._kinds[self._next % len(self._kinds)]
        self._next += 1
        await inject(rig, rng)


async def _nothing(rig: Rig, _: random.Random) -> None:
    rig.say("left in peace")


ROWS: Final[dict[str, Row]] = {
    "calm": Row("no fault", _nothing, "nothing"),
    "stt-kill": Row(
        "STT worker kill -9 while the caller speaks",
        _kill("stt", "hearing", "stt-kill"),
        "nothing; claimed again ≤ 150 ms, no word lost",
        "reclaim_ms",
        150.0,
    ),
    "brain-kill": Row(
        "brain kill -9 while thinking",
        _kill("brain", "thinking", "brain-kill"),
        "a pause ≤ 0.6 s + one LLM turn",
        p95_ms=1_300.0,
    ),
    "brain-kill-tool": Row(
        "brain kill -9 while a tool runs",
        _kill("brain", "tool", "brain-kill-tool"),
        "a pause ≤ 0.6 s + one LLM turn; no tool runs twice",
        p95_ms=1_300.0,
    ),
    "tts-kill": Row(
        "TTS kill -9 while speaking",
        _kill("tts", "speaking", "tts-kill"),
        "a short gap ≤ 500 ms, nothing said twice",
        p95_ms=500.0,
    ),
    "stt-hang": Row(
        "STT worker hangs 3 s", _hang("stt", "hearing"), "≤ 1.2 s; stale output fenced", p95_ms=1_200.0, settle_s=4.0
    ),
    "brain-hang": Row(
        "brain hangs 3 s", _hang("brain", "thinking"), "≤ 1.2 s; stale output fenced", p95_ms=1_200.0, settle_s=4.0
    ),
    "tts-hang": Row(
        "TTS hangs 3 s", _hang("tts", "speaking"), "≤ 1.2 s; stale output fenced", p95_ms=1_200.0, settle_s=4.0
    ),
    "edge-kill": Row(
        "edge kill -9 mid-call",
        _kill("edge", "speaking", "edge-kill"),
        "silence, then “sorry, go on”; media back ≤ 3 s",
        "reclaim_ms",
        3_000.0,
        settle_s=14.0,
    ),
    "nats-restart": Row("nats-server restart, 0.5 s down", _nats_restart, "a gap ≤ 0.7 s", p95_ms=700.0, settle_s=6.0),
    "node-kill": Row(
        "one of three NATS nodes dies",
        _node_kill(leader=False),
        "nothing; ≤ 100 ms",
        p95_ms=100.0,
        settle_s=5.0,
        bed="cluster",
    ),
    "leader-kill": Row(
        "JetStream leader lost",
        _node_kill(leader=True),
        "nothing; no event lost",
        p95_ms=100.0,
        settle_s=8.0,
        bed="cluster",
    ),
    "partition": Row(
        "a worker cut off for 5 s",
        _partition,
        "≤ 1.2 s; stale output fenced",
        p95_ms=1_200.0,
        settle_s=5.0,
        bed="proxy",
    ),
    "surge": Row(
        "ten times the calls in 10 s",
        _surge,
        "the rest hear “all lines are busy”; admitted calls unharmed",
        settle_s=30.0,
        may_refuse=True,
        environ={f"TRUNKLINE_{name}_CAPACITY": "15" for name in ("EDGE", "STT", "BRAIN", "TTS")},
    ),
    "upgrade": Row("rolling upgrade of everything", _upgrade, "nothing; 0 calls dropped", p95_ms=100.0, settle_s=20.0),
    "none-left": Row(
        "no worker left of a stage",
        _none_left_of_any,
        "fillers until one is back; no call dropped; who calls meanwhile hears “all lines are busy”",
        settle_s=8.0,
        may_refuse=True,
    ),
    "quick": Row("one of each", _OneOfEach(), "as above", settle_s=10.0),
    "random": Row(
        "a random kill every 10 s", _Soak(), "as above, and nothing grows", settle_s=10.0, beside=_receiver_away
    ),
}
