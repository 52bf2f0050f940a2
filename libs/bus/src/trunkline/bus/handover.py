"""A call leaves a worker that is to stop: at a boundary, and only when somebody else has taken it.

The edge finds that somebody, tells everyone, and then releases the call here as it always does. Nothing is decided here
but when to ask, and when to ask again.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from trunkline.bus.connection import Bus
from trunkline.bus.errors import BusTimeout, BusUnavailable, NoWorker
from trunkline.proto import codec, subjects
from trunkline.proto.errors import BadMessage
from trunkline.proto.ids import WorkerId
from trunkline.proto.messages import Claim, HandOver

log = logging.getLogger("trunkline.bus.worker")

REST_S: Final = 15.0
"""How long a boundary is waited for; after that a call is handed over in the midst of a word."""
AT_ONCE: Final = 8
_ANSWER_S: Final = 3.0
_RELEASE_S: Final = 3.0
_AGAIN_S: Final = 1.0


class HandingOver:
    """Hands the calls of `worker` over, `AT_ONCE` at a time."""

    def __init__(self, bus: Bus, worker: WorkerId) -> None:
        self._bus = bus
        self._worker = worker
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def hand_over(self, claim: Claim, rest: Callable[[], Awaitable[None]], gone: asyncio.Event) -> None:
        """Have somebody else serve the call of `claim`. Returns when it is `gone`, to whomever; tries until then."""
        told = False
        while not gone.is_set():
            await self._rest(claim, rest)
            async with self._turns:
                problem = "" if gone.is_set() else await self._ask(claim)
                if not problem:
                    await _within(_RELEASE_S, gone.wait())
                    problem = "was not released"
            if gone.is_set():
                return
            if not told:
                log.warning("call not handed over; keeping it", extra={"call": claim.call, "why": problem})
                told = True
            await _within(_AGAIN_S, gone.wait())

    async def _rest(self, claim: Claim, rest: Callable[[], Awaitable[None]]) -> None:
        try:
            await _within(REST_S, rest())
        except Exception:
            log.exception("call gave no rest", extra={"call": claim.call})

    async def _ask(self, claim: Claim) -> str:
        """Return why nobody else has it; empty: somebody has."""
        order = HandOver(call=claim.call, stage=claim.stage, epoch=claim.epoch, worker=self._worker)
        try:
            data = await self._bus.request(subjects.handover(claim.edge), order, timeout_s=_ANSWER_S)
            return codec.decode(codec.HANDED_OVER, data).problem
        except (BusTimeout, BusUnavailable, NoWorker, BadMessage) as error:
            return str(error)


async def _within(seconds: float, what: Awaitable[object]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await what
