"""One call in the brain, as a shell around the conversation.

It tells the conversation what the bus, the model, the tools and the timers say, in one order, and carries out what the
conversation orders. It decides nothing.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import msgspec

from trunkline.brain.alarms import Alarms
from trunkline.brain.asking import Mind, ask
from trunkline.brain.conversation import Conversation
from trunkline.brain.errors import ToolFailed
from trunkline.brain.inbox import Inbox
from trunkline.brain.keeper import Deposed, Keeper
from trunkline.brain.llm import LlmRequest
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
    Told,
    TookOver,
    ToolDone,
    Void,
)
from trunkline.brain.tools import AgentTools, ToolCallInfo
from trunkline.brain.wire import Wire
from trunkline.bus import Bus, CallStore, EventLog, Subscription, Unservable
from trunkline.proto import codec, subjects
from trunkline.proto.errors import BadMessage
from trunkline.proto.events import StageSettled, TurnMeasured
from trunkline.proto.messages import Claim, PlayoutCut, PlayoutFinished, Used
from trunkline.runtime.journal import Journal

log = logging.getLogger("trunkline.brain.session")

MOST_WAITING: Final = 10_000
"""Messages a call may have waiting. Nobody speaks so fast: more of them is a fault, and must not take the process."""
INTENT_S: Final = 1.0
"""How long a tool waits for its intent to be stored before the edge is asked."""
OUT_OF_REACH_S: Final = 5.0
"""A tool is given up when neither the store nor the edge can be reached for so long."""
_AGAIN_S: Final = 0.1
HANDED_S: Final = 0.5
"""How long whoever goes on with a call may have to wait for the newest of it."""

_HEARD_TOPICS: dict[str, msgspec.json.Decoder[Any]] = {
    "speech": codec.SPEECH,
    "playout": codec.PLAYOUT,
    "dtmf": codec.DTMF,
    "spoken": codec.SPOKEN,
    "control": codec.CONTROL,
}


class Means(NamedTuple):
    """What every call of the process uses."""

    bus: Bus
    events: EventLog
    store: CallStore
    journal: Journal
    now: Callable[[], float]
    """Steady seconds since 1970."""
    still_ours: Callable[[Claim], Awaitable[bool]]
    """Asks whether a call that was claimed is still served here; False as well when nobody can be asked."""
    measured: Callable[[TurnMeasured], None] = lambda _: None
    """Is told where the time of each turn went."""


class BrainCall:
    """The shell around one `Conversation`."""

    def __init__(
        self,
        claim: Claim,
        means: Means,
        thinks_with: Mind,
        tools: AgentTools,
        counts: Counter[str],
        used: Callable[[], tuple[Used, ...]] = tuple,
    ) -> None:
        self._claim = claim
        self._bus = means.bus
        self._events = means.events
        self._journal = means.journal
        self._now = means.now
        self._still_ours = means.still_ours
        self._measured = means.measured
        self._llm = thinks_with
        self._tools = tools
        self._counts = counts
        self._used = used
        self._inbox = Inbox()
        self._alarms = Alarms(means.now, self._inbox.put)
        self._thinking: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._story: Subscription | None = None
        self._living: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()
        self._wire = Wire(means.bus, means.journal, claim.call, claim.epoch)
        self._busy = asyncio.Lock()
        """Held while an event is handled: what it orders is carried out whole."""
        self._closing = False
        self._keeper = Keeper(means.store, claim.call, claim.epoch, self._depose)
        self._to_keep = False
        self.conversation = Conversation(claim.agent, claim.started_at or self._now())

    async def open(self) -> None:
        """Listen to the call and begin the conversation, or go on with it.

        Raises:
            Unservable: somebody else has it.
        """
        claim = self._claim
        self._story = await self._bus.subscribe(f"call.{claim.call}.*", self._on_message)
        if claim.recap is None and claim.epoch <= 1 and not claim.line:
            first: Told = Opened(claim.generation, claim.greeting, claim.voice)
        else:
            first = await self._take_over()
        self._living = asyncio.create_task(self._live(first), name=f"call-{claim.call}")

    async def _take_over(self) -> TookOver:
        claim = self._claim
        try:
            snapshot = await self._keeper.take_over()
        except Deposed as error:
            if self._story is not None:
                await self._story.unsubscribe()
            raise Unservable(str(error), retry=True) from error
        self._counts["took_over"] += 1
        self._counts["took_over_without_snapshot"] += snapshot is None
        recap = claim.recap
        self._journal.note(
            "took-over",
            claim.call,
            epoch=claim.epoch,
            generation=claim.generation,
            snapshot=snapshot is not None,
            said=len(recap.said) if recap is not None else 0,
            line=claim.line,
        )
        return TookOver(
            generation=claim.generation,
            snapshot=snapshot,
            recap=recap,
            line=claim.line,
            greeting=claim.greeting,
            voice=claim.voice,
        )

    async def rest(self) -> None:
        """Return when nothing is half heard, thought or said. May be cancelled, and asked again."""
        while self._inbox or not self.conversation.at_rest:
            self._moved.clear()
            await self._moved.wait()
        await asyncio.sleep(0)  # what was decided last is kept now
        await self._keeper.flush(HANDED_S)

    async def close(self, reason: str, *, goes_on: bool) -> None:
        """Let the call go.

        With `goes_on` the newest of it is stored for whoever has it next, and nothing is recorded: that is theirs.
        Without, what is left is recorded, once the tools under way have answered, and what was kept is deleted; unless
        the edge was lost, because then the caller may come back.
        """
        log.debug("closing", extra={"call": self._claim.call, "reason": reason})
        await self._fall_silent()
        if self._keeper.deposed:
            await self._keeper.aclose()
            if reason == "edge-lost":  # whoever has the call now has never been told
                await self._settle()
            return
        if goes_on or reason == "edge-lost":
            self._keep()
            await self._keeper.flush(HANDED_S)
            await self._keeper.aclose()
        if goes_on:
            return
        await self._carry_out(self.conversation.close(self._now()))
        if self._running:
            await asyncio.wait(self._running)
            await self._hear_out()
        if reason == "edge-lost":
            await self._settle()
        else:
            await self._events.flush()
            await self._keeper.forget()

    def forget(self) -> None:
        """Let go of everything, when the last tool is done that runs on."""
        if self._running:
            next(iter(self._running)).add_done_callback(lambda _: self.forget())
        else:
            vars(self).clear()

    async def _settle(self) -> None:
        """Record what was used: the edge that was told of it is gone."""
        settled = StageSettled(stage="brain", epoch=self._claim.epoch, used=self._used())
        self._events.emit(self._claim.call, settled, self._claim.tenant)
        await self._events.flush()

    async def _fall_silent(self) -> None:
        """Hear, think and await nothing more; tools run on."""
        self._closing = True
        if self._story is not None:
            await self._story.unsubscribe()
        if self._living is not None:
            async with self._busy:
                self._living.cancel()
            await asyncio.wait({self._living})
        thinking = self._thinking
        self._stop_thinking()
        if thinking is not None:
            await asyncio.wait({thinking}, timeout=1.0)  # it tells what it has used
        self._alarms.stop()
        await self._hear_out()

    async def _hear_out(self) -> None:
        """Take in what has come already of what became of sentences and tools."""
        while self._inbox:
            event = await self._inbox.get()
            if isinstance(event, PlayoutFinished | PlayoutCut | ToolDone) and not self._keeper.deposed:
                await self._tell(event)

    def _depose(self) -> None:
        """Somebody else has the call: not another word of ours."""
        if self._closing:
            return
        self._counts["deposed"] += 1
        log.warning("call is somebody else's", extra={"call": self._claim.call, "epoch": self._claim.epoch})
        self._stop_thinking()
        self._alarms.stop()
        if self._living is not None:
            self._living.cancel()

    # --- what is kept ----------------------------------------------------------------------------------------------

    def _keep_soon(self) -> None:
        """Keep the conversation once it has taken in all that is there: often several events come at once."""
        if not self._to_keep:
            self._to_keep = True
            asyncio.get_running_loop().call_soon(self._keep)

    def _keep(self) -> None:
        self._to_keep = False
        try:
            self._keeper.keep(self.conversation.snapshot())
        except Exception:
            self._counts["not_kept"] += 1
            log.exception("conversation not kept", extra={"call": self._claim.call})

    # --- what happens ----------------------------------------------------------------------------------------------

    def _on_message(self, subject: str, data: bytes) -> None:
        decoder = _HEARD_TOPICS.get(subjects.last_token(subject))
        if decoder is None or self._keeper.deposed:
            return
        if len(self._inbox) >= MOST_WAITING:
            self._counts["overrun"] += 1
            return
        try:
            self._inbox.put(codec.decode(decoder, data))
        except BadMessage as error:
            self._counts["malformed"] += 1
            log.warning("message dropped", extra={"call": self._claim.call, "subject": subject, "error": str(error)})

    async def _live(self, first: Told) -> None:
        await self._tell(first)  # what has come meanwhile happened after what the edge told with its claim
        while True:
            await self._tell(await self._inbox.get())

    async def _tell(self, event: Told) -> None:
        before = self.conversation.boundary
        async with self._busy:
            try:
                await self._carry_out(self.conversation.handle(event, self._now()))
            except Exception:
                # One event that cannot be handled must not silence the call.
                self._counts["failed"] += 1
                log.exception("event not handled", extra={"call": self._claim.call, "event": type(event).__name__})
            if self.conversation.boundary > before:
                self._keep_soon()
        self._moved.set()

    async def _carry_out(self, orders: list[Order]) -> None:
        call = self._claim.call
        for order in orders:
            if self._closing and not isinstance(order, Emit | Ignore):
                continue  # what is to be done next is for whoever goes on with it, if anybody
            match order:
                case Speak() | Void() | EndCall():
                    await self._wire.send(order, self.conversation.voice)
                case Think():
                    self._stop_thinking()
                    self._thinking = asyncio.create_task(self._think(order), name=f"think-{call}")
                case StopThinking():
                    self._stop_thinking()
                case RunTool():
                    task = asyncio.create_task(self._run_tool(order), name=f"tool-{call}-{order.tool_call}")
                    self._running.add(task)
                    task.add_done_callback(self._running.discard)
                case ArmTimer(timer, at):
                    self._alarms.arm(timer, at)
                case DisarmTimer(timer):
                    self._alarms.disarm(timer)
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
        await ask(self._llm, request, order.thought, self._inbox.put, self._counts)

    def _stop_thinking(self) -> None:
        if self._thinking is not None:
            self._thinking.cancel()
            self._thinking = None

    # --- tools -----------------------------------------------------------------------------------------------------

    async def _run_tool(self, order: RunTool) -> None:
        info = ToolCallInfo(
            call=self._claim.call, turn=order.turn, tool_call=order.tool_call, tenant=self._claim.tenant
        )
        if not await self._may_have_effects():
            if not self._keeper.deposed:
                error = f"{order.name} was not run: the rest of the system is out of reach."
                self._inbox.put(ToolDone(tool_call=order.tool_call, name=order.name, took_ms=0.0, error=error))
            return
        self._journal.note("tool-started", info.call, key=info.idempotency_key, tool_call=order.tool_call)
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
            self._journal.note("tool-done", info.call, key=info.idempotency_key, tool_call=order.tool_call)
            self._inbox.put(
                ToolDone(tool_call=order.tool_call, name=order.name, took_ms=took_ms, result=result, error=error)
            )

    async def _may_have_effects(self) -> bool:
        """Return whether a tool may run: it is stored that it will, so that no successor runs it once more.

        While the store is away it is enough that the edge still counts on this worker. One that reaches neither may
        have been replaced already.
        """
        self._keep()
        given_up_at = self._now() + OUT_OF_REACH_S
        while not (await self._keeper.flush(INTENT_S) or await self._still_ours(self._claim)):
            if self._keeper.deposed or self._now() > given_up_at:
                return False
            await asyncio.sleep(_AGAIN_S)
        return not self._keeper.deposed
