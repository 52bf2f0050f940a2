"""The webhook sink: every fact is posted, those of one call in order, those of different calls beside each other.

A fact waits for the earlier ones of its call, however often those must be repeated. What the receiver refuses for good
is given up, and the call's next fact goes on. When to repeat is decided in `retry`, how to post in `post`.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable

from trunkline.bus import Delivery, EventReader
from trunkline.events.metrics import SinkMetrics
from trunkline.events.once import Once
from trunkline.events.post import Post
from trunkline.events.retry import Delivered, GiveUp, TryAgain, judge, refused
from trunkline.proto.ids import CallId

log = logging.getLogger("trunkline.events.webhook")


class WebhookSink:
    """Moves facts from `reader` to whoever `post` posts to."""

    name = "webhook"

    def __init__(
        self,
        reader: EventReader,
        post: Post,
        metrics: SinkMetrics,
        wall: Callable[[], float],
        *,
        concurrency: int = 16,
    ) -> None:
        self.reader = reader
        self.metrics = metrics
        self.target = post.shown
        self.trouble: str | None = None
        self._post = post
        self._wall = wall
        self._once = Once()
        self._room = asyncio.Semaphore(concurrency)
        self._lanes: dict[CallId, deque[Delivery]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._failing = False

    async def run(self) -> None:
        """Deliver until the reader closes or this is cancelled."""
        try:
            async for delivery in self.reader:
                call = delivery.record.call
                if call in self._lanes:
                    self._lanes[call].append(delivery)
                    continue
                self._lanes[call] = deque([delivery])
                task = asyncio.create_task(self._empty(call, self._lanes[call]), name=f"webhook {call}")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._post.close()

    async def _empty(self, call: CallId, lane: deque[Delivery]) -> None:
        while lane:
            await self._deliver(lane[0])
            lane.popleft()
        del self._lanes[call]

    async def _deliver(self, delivery: Delivery) -> None:
        record = delivery.record
        if not self._once.is_new(record):
            self.metrics.duplicate()
            await delivery.ack()
            return
        attempt = 0
        refused_since: float | None = None
        while True:
            attempt += 1
            async with self._room:
                outcome = await self._post.post(record)
            wall_at = self._wall()
            age_s = wall_at - record.wall_at
            refused_since = (wall_at if refused_since is None else refused_since) if refused(outcome) else None
            refused_s = 0.0 if refused_since is None else wall_at - refused_since
            jitter = random.random()  # noqa: S311 - spreads load, guards nothing
            match judge(outcome, attempt=attempt, age_s=age_s, refused_s=refused_s, jitter=jitter):
                case Delivered():
                    self.metrics.delivered(age_s)
                    self._works()
                    break
                case GiveUp(why=why):
                    self.metrics.given_up()
                    log.error(
                        "event given up",
                        extra={"call": record.call, "event": record.id, "kind": record.kind, "why": why},
                    )
                    break
                case TryAgain(wait_s=wait_s, why=why):
                    self.metrics.retried()
                    self._fails(why)
                    await asyncio.sleep(wait_s)
        self._once.done(record)
        await delivery.ack()

    def _fails(self, why: str) -> None:
        if not self._failing:
            self._failing = True
            log.warning("webhook does not take events; trying again", extra={"receiver": self.target, "why": why})

    def _works(self) -> None:
        if self._failing:
            self._failing = False
            log.info("webhook takes events again", extra={"receiver": self.target})
