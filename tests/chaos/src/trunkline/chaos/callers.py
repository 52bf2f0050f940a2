"""A process full of callers: as many calls at once as told, one after the other, until asked to stop.

``SIGTERM`` lets the calls come to their end and begins no more; a second one breaks them off. Each call's record is a
line of the file named, written when the call is over.
"""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import numpy as np

from trunkline.call import prepare_speech
from trunkline.call.scenario import Scenario, Step, Voice
from trunkline.chaos.caller import Caller, Clips
from trunkline.chaos.evidence import CallerRecord
from trunkline.chaos.script import QUESTIONS, plan
from trunkline.proto.ids import call_id_of
from trunkline.runtime.clock import SYSTEM
from trunkline.testing.errors import CallFailed
from trunkline.testing.twilio import Dial, Heard, LineEvent, Uttered, new_call_sid, place

AFTER_S: Final = 0.3
"""Between a slot's calls."""
AFTER_NOTHING_S: Final = 1.0
"""After one in which nothing was asked."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a process of callers is to do."""

    voice_url: str
    out: str
    calls: int
    """At once."""
    stagger_s: float
    """Between the first calls."""
    questions: int = 5
    seed: int = 0
    once: bool = False
    """Whether every caller calls once only."""


class _Ticking:
    """A `Party` that tells its caller the time."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def tick(self, heard: Heard) -> Uttered:
        return self._caller.tick(heard, SYSTEM.monotonic())


async def voices() -> Clips:
    """Return the sound of every question."""
    steps = tuple(Step(say=question) for question in QUESTIONS)
    clips = await prepare_speech(Scenario(name="questions", steps=steps, caller=Voice(voice="en-us")))
    return {number: np.asarray(clip) for number, clip in clips.items()}


async def call_once(order: Order, seed: int, clips: Clips) -> CallerRecord:
    """Hold one call to its end, whatever that is."""
    sid = new_call_sid()
    call = call_id_of("twilio", sid)
    began_t = SYSTEM.monotonic()
    caller = Caller(plan(sid, seed, order.questions), call, clips, began_t)

    def observe(event: LineEvent) -> None:
        match event.what:
            case "closed":
                caller.line_closed(SYSTEM.monotonic())
            case "start":
                caller.line_open(SYSTEM.monotonic())
            case _:
                pass

    try:
        recording = await place(Dial(voice_url=order.voice_url, call_sid=sid), _Ticking(caller), observe)
    except CallFailed as error:
        if caller.asked:
            return caller.record("application", problem=str(error))
        return CallerRecord(
            call=call,
            sid=sid,
            questions=caller.plan.questions,
            began_t=began_t,
            ended_t=SYSTEM.monotonic(),
            ended_by="application",
            refused=str(error),
        )
    except asyncio.CancelledError:
        return caller.record("nobody", problem="broken off")
    told = " ".join(recording.said)
    refused = told if not caller.asked else ""
    warned = "; ".join(f"{warning.code} {warning.text}" for warning in recording.warnings)
    problem = f"warned: {warned}" if warned else f"told by the carrier's voice: {told}" if told else ""
    return caller.record(recording.ended_by, refused=refused, problem=problem, latest_ms=recording.latest_ms)


async def run(order: Order) -> None:
    """Call until asked to stop."""
    clips = await voices()
    stopping = asyncio.Event()
    slots: list[asyncio.Task[None]] = []

    def on_signal() -> None:
        if stopping.is_set():
            for slot in slots:
                slot.cancel()
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    with _appending(order.out) as out:
        slots += (
            asyncio.create_task(_slot(order, number, clips, stopping, out.write), name=f"slot {number}")
            for number in range(order.calls)
        )
        print("calling", flush=True)
        await asyncio.gather(*slots, return_exceptions=True)


def _appending(name: str) -> BinaryIO:
    return Path(name).open("ab", buffering=0)


async def _slot(
    order: Order, number: int, clips: Clips, stopping: asyncio.Event, write: Callable[[bytes], object]
) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(number * order.stagger_s or 0.001):
            await stopping.wait()
    seed = order.seed * 1_000_003 + number * 1_009
    while not stopping.is_set():
        seed += 1
        record = await call_once(order, seed, clips)
        write(msgspec.json.encode(record) + b"\n")
        if order.once:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AFTER_S if record.asked else AFTER_NOTHING_S):
                await stopping.wait()


if __name__ == "__main__":
    asyncio.run(run(msgspec.json.decode(sys.argv[1], type=Order)))
