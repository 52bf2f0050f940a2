"""A worker that drains hands its calls over: when it asks, how many at a time, and what it does when nobody is free."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest

from trunkline.bus import Bus, Worker, handover
from trunkline.bus.handover import AT_ONCE
from trunkline.proto import codec, subjects
from trunkline.proto.agent import Agent
from trunkline.proto.ids import CallId, Epoch, call_id_of, new_worker_id
from trunkline.proto.messages import Claim, HandedOver, HandOver, Holds, Release
from trunkline.testing.nats_server import run_nats
from trunkline.testing.patience import PATIENCE_S, until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with run_nats(jetstream=False) as server:
        yield server.url


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nobody asked again because the machine stood still."""
    for limit in ("_ANSWER_S", "_RELEASE_S"):
        monkeypatch.setattr(handover, limit, PATIENCE_S)


class Session:
    def __init__(self) -> None:
        self.may_rest = asyncio.Event()
        self.closed: tuple[str, bool] | None = None

    async def close(self, reason: str, *, goes_on: bool) -> None:
        self.closed = (reason, goes_on)

    async def rest(self) -> None:
        await self.may_rest.wait()

    def forget(self) -> None:
        self.may_rest.set()


class Rig:
    """A worker with calls, and the edge that it asks."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.edge = new_worker_id("edge")
        self.sessions: dict[CallId, Session] = {}
        self.asked: list[HandOver] = []
        self.problems: list[str] = []
        self.under_way = 0
        self.most_under_way = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.worker = Worker(bus, stage="tts", worker=new_worker_id("tts"), capacity=50, open_call=self.open_call)

    async def open_call(self, claim: Claim) -> Session:
        self.sessions[claim.call] = Session()
        return self.sessions[claim.call]

    async def start(self, calls: int) -> None:
        await self.worker.start()
        await self.bus.serve(subjects.handover(self.edge), self.on_hand_over)
        self.beat = asyncio.create_task(self.live())
        for number in range(calls):
            await self.claim(f"call-{number}")

    async def claim(self, name: str) -> CallId:
        call = call_id_of("test", name)
        claim = Claim(call=call, stage="tts", epoch=Epoch(3), edge=self.edge, agent=Agent(name="test"))
        await self.bus.request(subjects.claim_of("tts", self.worker.worker), claim, timeout_s=PATIENCE_S)
        return call

    async def live(self) -> None:
        while True:
            await self.bus.publish(subjects.alive("edge", self.edge), Holds(worker=self.edge, stage="tts", calls=()))
            await asyncio.sleep(0.2)

    async def on_hand_over(self, data: bytes) -> HandedOver:
        order = codec.decode(codec.HAND_OVER, data)
        self.asked.append(order)
        if self.problems:
            return HandedOver(problem=self.problems.pop(0))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await self.may_answer.wait()
        asyncio.get_running_loop().call_later(0.02, lambda: asyncio.ensure_future(self.release(order)))
        return HandedOver()

    async def release(self, order: HandOver) -> None:
        self.under_way -= 1
        release = Release(call=order.call, epoch=order.epoch, reason="handed-over", goes_on=True)
        await self.bus.request(subjects.release(order.worker), release, timeout_s=PATIENCE_S)


def run(url: str, story: Callable[[Rig], Awaitable[None]], calls: int) -> None:
    async def tell() -> None:
        bus = await Bus.connect(url, name="test", on_lost=pytest.fail)
        rig = Rig(bus)
        async with asyncio.timeout(2 * PATIENCE_S):
            await rig.start(calls)
            await story(rig)
            rig.beat.cancel()
            await rig.worker.stop()
            await bus.close()

    asyncio.run(tell())


def test_a_call_is_handed_over_once_it_is_at_rest(url):
    async def story(rig: Rig) -> None:
        ((call, session),) = rig.sessions.items()
        drain = asyncio.create_task(rig.worker.drain())
        await asyncio.sleep(0.1)
        assert not rig.asked
        session.may_rest.set()
        await drain
        assert rig.asked == [HandOver(call=call, stage="tts", epoch=Epoch(3), worker=rig.worker.worker)]
        assert session.closed == ("handed-over", True)

    run(url, story, calls=1)


def test_a_worker_without_calls_is_drained_at_once(url):
    async def story(rig: Rig) -> None:
        await rig.worker.drain()

    run(url, story, calls=0)


def test_a_call_for_which_nobody_is_free_is_kept_and_offered_again(url):
    async def story(rig: Rig) -> None:
        (session,) = rig.sessions.values()
        session.may_rest.set()
        rig.problems = ["nobody is free"]
        drain = asyncio.create_task(rig.worker.drain())
        await until(lambda: rig.asked)
        assert session.closed is None
        await drain
        assert len(rig.asked) == 2

    run(url, story, calls=1)


def test_many_calls_are_handed_over_side_by_side_but_not_all_at_once(url):
    async def story(rig: Rig) -> None:
        for session in rig.sessions.values():
            session.may_rest.set()
        rig.may_answer.clear()
        drain = asyncio.create_task(rig.worker.drain())
        await until(lambda: rig.under_way == AT_ONCE)
        await asyncio.sleep(0.05)
        rig.may_answer.set()
        await drain
        assert rig.most_under_way == AT_ONCE
        assert len(rig.asked) == 30

    run(url, story, calls=30)


def test_a_call_that_ends_by_itself_meanwhile_is_not_handed_over(url):
    async def story(rig: Rig) -> None:
        (call,) = rig.sessions
        drain = asyncio.create_task(rig.worker.drain())
        await asyncio.sleep(0.05)
        await rig.bus.request(
            subjects.release(rig.worker.worker), Release(call=call, epoch=Epoch(3)), timeout_s=PATIENCE_S
        )
        await drain
        assert not rig.asked
        assert rig.sessions[call].closed == ("call-ended", False)

    run(url, story, calls=1)


def test_a_drain_that_is_cut_short_hands_nothing_over_any_more(url):
    async def story(rig: Rig) -> None:
        (session,) = rig.sessions.values()
        drain = asyncio.create_task(rig.worker.drain())
        await asyncio.sleep(0.05)
        drain.cancel()
        await asyncio.gather(drain, return_exceptions=True)
        session.may_rest.set()
        await rig.worker.stop()
        assert not rig.asked
        assert session.closed == ("worker-stopped", True)

    run(url, story, calls=1)
