"""Many callers in one process: their sockets, their pace, and how late the process itself was.

    python -m trunkline.bench.lines --url http://127.0.0.1:8080/twilio/voice-hook?agent=bench --calls 100

Open loop: a caller speaks its frame when the frame is due, whatever came of the ones before. Callers are spread over
the 20 ms of a frame, as calls of a carrier are. What it has seen goes to standard output as JSON, when all calls have
ended.
"""

import argparse
import asyncio
import contextlib
import gc
import secrets
import sys
import time
from collections.abc import Sequence
from typing import Final

import msgspec
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from trunkline.audio.g711 import pcm16_to_mulaw
from trunkline.bench.talk import FRAME_S, Caller, Seen, Speech, speech_of
from trunkline.call.caller import NOISE_FRAMES, LineNoise
from trunkline.call.scenario import Scenario, Step
from trunkline.call.speech import prepare_speech
from trunkline.runtime.loop import new_event_loop
from trunkline.testing.twilio.dial import Dial, new_call_sid
from trunkline.testing.twilio.line import Line as TwilioLine
from trunkline.testing.twilio.line import StreamIds
from trunkline.testing.twilio.twiml import ConnectVerb, RedirectVerb
from trunkline.testing.twilio.webhook import ask

WORDS: Final = "I would like to know whether my order has left your house already and when it will be here"
"""Four seconds without a pause: one turn."""
SLOTS: Final = 10
"""A frame's time has so many beginnings."""
_NOISE_DBFS: Final = -65.0


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be made."""

    url: str
    """The voice webhook, query string included; several, separated by spaces, are called in turns."""
    calls: int
    per_s: float = 10.0
    """Calls that begin in a second."""
    last_s: float = 20.0
    """How long a call lasts, once all have begun."""
    interrupt_every: int = 3
    each_s: float = 0.0
    """A call is over after so long, whatever the others do; 0: all are over at the same time."""


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. Seconds are those of the steady clock of this machine."""

    load: Load
    all_there_s: float
    """When the last call had begun."""
    over_s: float
    """When the first was hung up."""
    calls: list[Seen]
    lag_ms: list[float]
    """By how much every slot was late, while all calls were there."""
    cpu_s: float
    """Processor time of this process in that while."""
    failed: int
    """Calls that could not be placed."""


class Line(WSListener):
    """A caller's socket."""

    def __init__(self, caller: Caller, start: Sequence[str]) -> None:
        self.caller: Final = caller
        self._start = start
        self._transport: WSTransport | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Begin the stream."""
        self._transport = transport
        for message in self._start:
            transport.send(WSMsgType.TEXT, message.encode())

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Take what the application says."""
        if frame.msg_type is WSMsgType.TEXT:
            for message in self.caller.receive(frame.get_payload_as_bytes(), time.monotonic()):
                transport.send(WSMsgType.TEXT, message)
        elif frame.msg_type is WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()

    def on_ws_disconnected(self, _transport: WSTransport) -> None:
        """Note that the application hung up, if it did."""
        self.caller.seen.closed_early |= self._transport is not None
        self._transport = None

    def tick(self, now: float) -> None:
        """Let 20 ms pass."""
        if self._transport is not None:
            for message in self.caller.tick(now):
                self._transport.send(WSMsgType.TEXT, message)

    def hang_up(self) -> None:
        """End the call."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.send(WSMsgType.TEXT, self.caller.stop())
            transport.send_close()
            transport.disconnect()


class Lines:
    """All the callers of this process."""

    def __init__(self, load: Load, speech: Speech) -> None:
        self._load = load
        self._speech = speech
        self._slots: list[list[Line]] = [[] for _ in range(SLOTS)]
        self._lines: list[Line] = []
        self._lag: list[float] = []
        self._noting = False
        self._failed = 0

    async def run(self) -> Made:
        """Place the calls, live through them, hang up."""
        pace = asyncio.create_task(self._pace())
        placing = asyncio.create_task(self._place_all())
        if self._load.each_s:
            await asyncio.sleep(self._load.each_s)  # from here on as many end as begin
        else:
            await placing
        self._noting = True
        began_s, began_cpu = time.monotonic(), time.process_time()
        if self._load.each_s:
            await placing
        else:
            await asyncio.sleep(self._load.last_s)
        over_s, cpu_s = time.monotonic(), time.process_time() - began_cpu
        self._noting = False
        for line in self._lines:
            line.hang_up()
        pace.cancel()
        await asyncio.gather(pace, return_exceptions=True)
        await asyncio.sleep(0.5)
        return Made(
            load=self._load,
            all_there_s=began_s,
            over_s=over_s,
            calls=[line.caller.seen for line in self._lines],
            lag_ms=self._lag,
            cpu_s=cpu_s,
            failed=self._failed,
        )

    async def _place_all(self) -> None:
        placing = []
        for number in range(self._load.calls):
            placing.append(asyncio.create_task(self._place(number)))
            await asyncio.sleep(1 / self._load.per_s)
        await asyncio.gather(*placing)

    async def _place(self, number: int) -> None:
        urls = self._load.url.split()
        dial = Dial(voice_url=urls[number % len(urls)], call_sid=new_call_sid())
        try:
            document = await ask(dial, RedirectVerb(dial.voice_url, "POST"), "ringing", "voice webhook")
            (verb,) = [verb for verb in document.verbs if isinstance(verb, ConnectVerb)]
            ids = StreamIds(dial.account_sid, dial.call_sid, "MZ" + secrets.token_hex(16))
            caller = Caller(ids, self._speech, self._load.interrupt_every, 37 * number)
            line = Line(caller, TwilioLine(ids, verb.stream.parameters).open())
            await ws_connect(lambda: line, verb.stream.url)
        except Exception as error:  # noqa: BLE001 - whatever it was: this caller was not served
            self._failed += 1
            sys.stderr.write(f"call {number} was not placed: {error}\n")
        else:
            slot = self._slots[number % SLOTS]
            slot.append(line)
            self._lines.append(line)
            if self._load.each_s:
                asyncio.get_running_loop().call_later(self._load.each_s, _end, slot, line)

    async def _pace(self) -> None:
        due = time.monotonic()
        while True:
            for slot in self._slots:
                now = time.monotonic()
                if self._noting:
                    self._lag.append(1_000 * max(0.0, now - due))
                for line in slot:
                    line.tick(now)
                due += FRAME_S / SLOTS
                await asyncio.sleep(max(0.0, due - time.monotonic()))


def _end(slot: list[Line], line: Line) -> None:
    slot.remove(line)
    line.hang_up()


async def speech() -> Speech:
    """Return what every caller says, in the local voice, on a line with some hiss."""
    scenario = Scenario(name="load", description="", steps=(Step(say=WORDS), Step(hang_up=True)))
    (words,) = (await prepare_speech(scenario)).values()
    hiss = LineNoise(_NOISE_DBFS)
    return speech_of(pcm16_to_mulaw(words.astype("<i2").tobytes()), [hiss.over(None) for _ in range(NOISE_FRAMES)])


async def _main(load: Load) -> None:
    lines = Lines(load, await speech())
    gc.collect()
    gc.freeze()
    sys.stdout.buffer.write(msgspec.json.encode(await lines.run()))


def main(argv: Sequence[str] | None = None) -> None:
    """Make the load that the options describe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="the voice webhook, or several, separated by spaces")
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--per-s", type=float, default=10.0, help="calls that begin in a second (10)")
    parser.add_argument("--last-s", type=float, default=20.0, help="how long all of them talk (20)")
    parser.add_argument("--each-s", type=float, default=0.0, help="how long each call lasts (0: as long as all)")
    parser.add_argument("--interrupt-every", type=int, default=3, help="every how many answers are interrupted (3)")
    options = parser.parse_args(argv)
    load = Load(**vars(options))
    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_main(load))


if __name__ == "__main__":
    main()
