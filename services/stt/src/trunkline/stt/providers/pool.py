"""Decoder processes and who may use them when.

Questions have a rank: is this grammar right (a claim waits for it), what was said (a caller waits), what was probably
all that was said (a caller may soon wait), what has been said so far (nobody waits). The last kind should only be asked
while `spare` says that a decoder has nothing else to do and another stays free. It knows nothing of calls.
"""

import asyncio
import contextlib
import itertools
import logging
import sys
from enum import IntEnum
from typing import Final

import msgspec

from trunkline.providers.errors import Unavailable
from trunkline.stt.providers.decoder import LENGTH, Answer, Question, pack

log = logging.getLogger("trunkline.stt.pool")

MODULE: Final = "trunkline.stt.providers.decoder"
_START_S: Final = 30.0
_ANSWER_S: Final = 10.0
"""A decoder that takes longer is hung: 30 s of speech take 3."""
_RESTART_S: Final = 0.5
_START_AGAIN_S: Final = 5.0
_ANSWERS: Final = msgspec.msgpack.Decoder(Answer)

MOST_WAITING: Final = 1_000
"""Questions; further ones fail at once."""

Answering = asyncio.Future[Answer]


class Rank(IntEnum):
    """What goes first."""

    CHECK = 0
    FINAL = 1
    EARLY = 2
    PARTIAL = 3


class DecoderPool:
    """`size` decoder processes. Made in the event loop; start it before use."""

    def __init__(self, size: int) -> None:
        self.size: Final = size
        self._turns: asyncio.PriorityQueue[tuple[Rank, int, Answering]] = asyncio.PriorityQueue()
        self._waiting: dict[Answering, Question] = {}
        """What no decoder has begun. A turn whose question is not here any more is void."""
        self._count = itertools.count()
        self._busy = 0
        self._keepers: list[asyncio.Task[None]] = []
        self._started: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        """Start the processes; return when the first can answer.

        Raises:
            Unavailable: it ended instead. It is tried again by itself; a later `start` tells how that went.
        """
        if not self._keepers:
            self._keepers = [asyncio.create_task(self._keep(), name=f"decoder-{n}") for n in range(self.size)]
        try:
            async with asyncio.timeout(_START_S):
                await asyncio.shield(self._started)
        except TimeoutError:
            raise Unavailable(f"the decoder did not start within {_START_S:.0f} s") from None

    async def aclose(self) -> None:
        """End the processes."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for answering in list(self._waiting):
            answering.cancel()

    @property
    def spare(self) -> bool:
        """Whether a decoder may be spent on what nobody waits for."""
        reserved = 1 if self.size > 1 else 0
        return not self._waiting and self._busy < self.size - reserved

    def ask(self, rank: Rank, question: Question) -> Answering:
        """Return the answer to come; it fails with `Unavailable`. Cancel it when it is not wanted any more."""
        answering: Answering = asyncio.get_running_loop().create_future()
        if len(self._waiting) >= MOST_WAITING:
            answering.set_exception(Unavailable("too many questions wait for a decoder"))
            return answering
        self._waiting[answering] = question
        # Once cancelled it is not kept until its turn: under load that may never come, and the question holds audio.
        answering.add_done_callback(self._forget)
        self._queue(rank, answering)
        return answering

    def promote(self, answering: Answering, rank: Rank) -> None:
        """Give a question a better `rank`, unless a decoder has begun with it."""
        if answering in self._waiting:
            self._queue(rank, answering)

    def _queue(self, rank: Rank, answering: Answering) -> None:
        if self._turns.qsize() > 2 * MOST_WAITING:  # most are void
            turns = [self._turns.get_nowait() for _ in range(self._turns.qsize())]
            for turn in turns:
                if turn[2] in self._waiting:
                    self._turns.put_nowait(turn)
        self._turns.put_nowait((rank, next(self._count), answering))

    def _forget(self, answering: Answering) -> None:
        self._waiting.pop(answering, None)

    async def _keep(self) -> None:
        """Keep one process running."""
        while True:
            answered = False
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                MODULE,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,  # a Ctrl-C on the terminal is for the worker, which ends it in its own time
            )
            try:
                await _answer(process, _START_S)
                answered = True
                if not self._started.done():
                    self._started.set_result(None)
                await self._feed(process)
            except (OSError, EOFError, TimeoutError, msgspec.MsgspecError) as error:
                log.error("decoder ended; starting another", extra={"problem": repr(error)})  # noqa: TRY400 - expected
                if not self._started.done():
                    self._fail_start()
            finally:
                await _end(process)
            await asyncio.sleep(_RESTART_S if answered else _START_AGAIN_S)

    def _fail_start(self) -> None:
        failed, self._started = self._started, asyncio.get_running_loop().create_future()
        failed.set_exception(Unavailable("the decoder process ended while starting; its last words are in the log"))
        failed.exception()  # seen: it need not have been awaited

    async def _feed(self, process: asyncio.subprocess.Process) -> None:
        while True:
            _, _, answering = await self._turns.get()
            question = self._waiting.pop(answering, None)
            if question is None or answering.done():
                continue
            self._busy += 1
            try:
                assert process.stdin is not None  # noqa: S101 - it is a pipe; told to the type checker
                process.stdin.write(pack(question))
                answer = await _answer(process, _ANSWER_S)
            except BaseException as error:
                if not answering.done():
                    answering.set_exception(Unavailable(f"the decoder failed: {error!r}"))
                raise
            finally:
                self._busy -= 1
            if not answering.done():
                answering.set_result(answer)


async def _answer(process: asyncio.subprocess.Process, within_s: float) -> Answer:
    assert process.stdout is not None  # noqa: S101 - it is a pipe; told to the type checker
    async with asyncio.timeout(within_s):
        (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
        return _ANSWERS.decode(await process.stdout.readexactly(length))


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill and reap; it holds nothing that needs a farewell."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    await process.wait()
