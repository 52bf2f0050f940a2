"""One call in the brain, as a shell around the conversation.

It tells the conversation what the bus, the model, the tools and the timers say, in one order, and carries out what the
conversation orders. It decides nothing.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from trunkline.brain.conversation import Conversation
from trunkline.brain.errors import ToolFailed
from trunkline.brain.llm import Finished, LlmDelta, LlmRequest, TextDelta, ToolCall
from trunkline.brain.moves import (
    ArmTimer,
    DisarmTimer,
    Emit,
    EndCall,
    Ignore,
    Opened,
    Order,
    RunTool,
    Speak,
    StopThinking,
    Think,
    ThoughtCame,
    ThoughtEnded,
    Timer,
    TimerFired,
    Told,
    ToolDone,
    ToolWanted,
    Void,
)
from trunkline.brain.tools import AgentTools, ToolCallInfo
from trunkline.bus import Bus, EventLog, Subscription
from trunkline.proto import codec, subjects
from trunkline.proto.errors import BadMessage
from trunkline.proto.events import TurnMeasured
from trunkline.proto.messages import Claim, HangUp, Interrupt, Say
from trunkline.providers.attempts import BrokeOff
from trunkline.providers.errors import ProviderError

log = logging.getLogger("trunkline.brain.session")

_HEARD_TOPICS: dict[str, msgspec.json.Decoder[Any]] = {
    "speech": codec.SPEECH,
    "playout": codec.PLAYOUT,
    "dtmf": codec.DTMF,
    "spoken": codec.SPOKEN,
    "control": codec.CONTROL,
}


class Mind(Protocol):
    """Whoever answers."""

    def stream(self, request: LlmRequest) -> AsyncGenerator[LlmDelta, None]:
        """Answer, as `LlmProvider.stream` does."""
        ...


class Means(NamedTuple):
    """What every call of the process uses."""

    bus: Bus
    events: EventLog
    now: Callable[[], float]
    """Steady seconds since 1970."""
    measured: Callable[[TurnMeasured], None] = lambda _: None
    """Is told where the time of each turn went."""


class BrainCall:
    """The shell around one `Conversation`."""

    def __init__(self, claim: Claim, means: Means, thinks_with: Mind, tools: AgentTools, counts: Counter[str]) -> None:
        self._claim = claim
        self._bus = means.bus
        self._events = means.events
        self._now = means.now
        self._measured = means.measured
        self._llm = thinks_with
        self._tools = tools
        self._counts = counts
        self._inbox: asyncio.Queue[Told] = asyncio.Queue()
        self._timers: dict[Timer, asyncio.TimerHandle] = {}
        self._thinking: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._story: Subscription | None = None
        self._living: asyncio.Task[None] | None = None
        self.conversation = Conversation(claim.agent, claim.started_at or self._now())

    async def open(self) -> None:
        """Listen to the call and begin the conversation."""
        self._story = await self._bus.subscribe(f"call.{self._claim.call}.*", self._on_message)
        self._living = asyncio.create_task(self._live(), name=f"call-{self._claim.call}")
        self._inbox.put_nowait(Opened(self._claim.generation, self._claim.greeting))

    async def close(self, reason: str) -> None:
        """Record what is left, wait for tools that are under way, and store every event."""
        log.debug("closing", extra={"call": self._claim.call, "reason": reason})
        if self._story is not None:
            await self._story.unsubscribe()
        self._stop_thinking()
        for timer in self._timers.values():
            timer.cancel()
        await self._carry_out(self.conversation.close(self._now()))
        if self._running:
            await asyncio.wait(self._running)
            while not self._inbox.empty():
                await self._tell(self._inbox.get_nowait())
        if self._living is not None:
            self._living.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._living
        await self._events.flush(timeout_s=1.0)

    async def _on_message(self, subject: str, data: bytes) -> None:
        decoder = _HEARD_TOPICS.get(subjects.last_token(subject))
        if decoder is None:
            return
        try:
            self._inbox.put_nowait(codec.decode(decoder, data))
        except BadMessage as error:
            self._counts["malformed"] += 1
            log.warning("message dropped", extra={"call": self._claim.call, "subject": subject, "error": str(error)})

    async def _live(self) -> None:
        while True:
            await self._tell(await self._inbox.get())

    async def _tell(self, event: Told) -> None:
        try:
            await self._carry_out(self.conversation.handle(event, self._now()))
        except Exception:
            # One event that cannot be handled must not silence the call.
            self._counts["failed"] += 1
            log.exception("event not handled", extra={"call": self._claim.call, "event": type(event).__name__})

    async def _carry_out(self, orders: list[Order]) -> None:
        call, epoch = self._claim.call, self._claim.epoch
        for order in orders:
            match order:
                case Speak(generation, utterance, text, goes_on, filler_at):
                    say = Say(
                        epoch=epoch,
                        generation=generation,
                        utterance=utterance,
                        text=text,
                        goes_on=goes_on,
                        filler_at=filler_at,
                    )
                    await self._bus.publish(subjects.speak(call), say)
                case Void(generation, reason, onset_at):
                    void = Interrupt(epoch=epoch, generation=generation, reason=reason, onset_at=onset_at)
                    await self._bus.publish(subjects.interrupt(call), void)
                case Think():
                    self._stop_thinking()
                    self._thinking = asyncio.create_task(self._think(order), name=f"think-{call}")
                case StopThinking():
                    self._stop_thinking()
                case RunTool():
                    task = asyncio.create_task(self._run_tool(order), name=f"tool-{call}-{order.tool_call}")
                    self._running.add(task)
                    task.add_done_callback(self._running.discard)
                case EndCall(generation, reason):
                    hang_up = HangUp(epoch=epoch, generation=generation, reason=reason)
                    await self._bus.publish(subjects.control(call), hang_up)
                case ArmTimer(timer, at):
                    self._arm(timer, at)
                case DisarmTimer(timer):
                    self._disarm(timer)
                case Emit(fact):
                    if isinstance(fact, TurnMeasured):
                        self._measured(fact)
                    self._events.emit(call, fact, self._claim.tenant)
                case Ignore(reason):
                    self._counts[reason] += 1

    # --- the model -------------------------------------------------------------------------------------------------

    async def _think(self, order: Think) -> None:
        agent = self._claim.agent
        request = LlmRequest(
            call=self._claim.call,
            turn=order.turn,
            llm=agent.llm,
            prompt=agent.prompt,
            messages=order.messages,
            tools=agent.tools if order.tools else (),
            tenant=self._claim.tenant,
        )
        failure: Literal["", "nobody", "broke-off"] = ""
        try:
            async with contextlib.aclosing(self._llm.stream(request)) as stream:
                async for delta in stream:
                    match delta:
                        case TextDelta(text):
                            self._inbox.put_nowait(ThoughtCame(order.thought, text))
                        case ToolCall():
                            self._inbox.put_nowait(ToolWanted(order.thought, delta))
                        case Finished():
                            pass
        except ProviderError as error:
            failure = "broke-off" if isinstance(error, BrokeOff) else "nobody"
            self._counts["llm_failed"] += 1
            log.warning("no answer", extra={"call": self._claim.call, "turn": order.turn, "error": str(error)})
        except Exception:
            failure = "nobody"
            self._counts["llm_failed"] += 1
            log.exception("provider broke", extra={"call": self._claim.call, "turn": order.turn})
        self._inbox.put_nowait(ThoughtEnded(order.thought, failure))

    def _stop_thinking(self) -> None:
        if self._thinking is not None:
            self._thinking.cancel()
            self._thinking = None

    # --- tools -----------------------------------------------------------------------------------------------------

    async def _run_tool(self, order: RunTool) -> None:
        info = ToolCallInfo(
            call=self._claim.call, turn=order.turn, tool_call=order.tool_call, tenant=self._claim.tenant
        )
        began = self._now()
        result, error = "", f"{order.name} failed unexpectedly."
        try:
            result, error = await self._tools.run(order.name, order.arguments, info), ""
        except ToolFailed as failed:
            error = str(failed)
        except Exception:
            log.exception("tool broke", extra={"call": self._claim.call, "tool": order.name})
        finally:
            # However it ended: a conversation that waits for a tool asks no model.
            took_ms = round((self._now() - began) * 1000, 2)
            self._inbox.put_nowait(
                ToolDone(tool_call=order.tool_call, name=order.name, took_ms=took_ms, result=result, error=error)
            )

    # --- time ------------------------------------------------------------------------------------------------------

    def _arm(self, timer: Timer, at: float) -> None:
        self._disarm(timer)
        delay = max(0.0, at - self._now())
        loop = asyncio.get_running_loop()
        self._timers[timer] = loop.call_later(delay, self._inbox.put_nowait, TimerFired(timer))

    def _disarm(self, timer: Timer) -> None:
        handle = self._timers.pop(timer, None)
        if handle is not None:
            handle.cancel()
