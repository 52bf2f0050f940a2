"""The bus seen from the caller's chair: every message and event of one call, and what of it is judged."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from trunkline.bus import Bus
from trunkline.call.judge import BusRecord
from trunkline.call.seen import Seen
from trunkline.proto import subjects
from trunkline.proto.codec import EVENT, Story, decode, decode_story
from trunkline.proto.errors import BadMessage
from trunkline.proto.events import CallEnded, Event, ToolCalled, kind_of
from trunkline.proto.ids import CallId, Generation, UtteranceId, new_worker_id
from trunkline.proto.messages import FinalTranscript, Say

log = logging.getLogger("trunkline.call")


class Watch:
    """Collects what is seen of one call. `now_s` tells where in the stream the call is."""

    def __init__(self, now_s: Callable[[], float], observe: Callable[[Seen], None]) -> None:
        self._now_s = now_s
        self._observe = observe
        self._finals: list[tuple[float, str]] = []
        self._tools: list[str] = []
        self._said: dict[tuple[Generation, UtteranceId], str] = {}
        self._ended_reason: str | None = None
        self._ended = asyncio.Event()

    def take_story(self, message: Story) -> None:
        """Note a message of ``call.<id>.>``."""
        at_s = self._now_s()
        match message:
            case FinalTranscript(text=text):
                self._finals.append((at_s, text))
            case Say(generation=generation, utterance=utterance, text=text):
                self._said[generation, utterance] = self._said.get((generation, utterance), "") + text
            case _:
                pass
        self._observe(Seen(at_s, "bus", "story", str(type(message).__struct_config__.tag), message))

    def take_event(self, event: Event) -> None:
        """Note a fact of the call."""
        match event.fact:
            case ToolCalled(name=name):
                self._tools.append(name)
            case CallEnded(reason=reason):
                self._ended_reason = reason
                self._ended.set()
            case _:
                pass
        self._observe(Seen(self._now_s(), "bus", "event", kind_of(event.fact), event))

    async def wait_ended(self, timeout_s: float) -> None:
        """Return once the call has ended on the bus as well, or after `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), timeout_s)

    def record(self) -> BusRecord:
        """Return what is to be judged."""
        return BusRecord(
            finals=tuple(self._finals),
            tools=tuple(self._tools),
            said=tuple(self._said.values()),
            ended_reason=self._ended_reason,
        )


@contextlib.asynccontextmanager
async def watching(url: str, call: CallId, watch: Watch) -> AsyncIterator[None]:
    """Feed `watch` with the call's messages and events while the block runs.

    Raises:
        BusUnavailable: NATS at `url` cannot be reached.
    """

    def on_story(subject: str, data: bytes) -> None:
        try:
            watch.take_story(decode_story(subjects.last_token(subject), data))
        except BadMessage as error:
            log.warning("message not understood", extra={"subject": subject, "error": str(error)})

    def on_event(subject: str, data: bytes) -> None:
        try:
            watch.take_event(decode(EVENT, data))
        except BadMessage as error:
            log.warning("event not understood", extra={"subject": subject, "error": str(error)})

    def on_lost(reason: str) -> None:
        log.warning("the bus is not watched any more", extra={"reason": reason})

    bus = await Bus.connect(url, name=new_worker_id("call"), on_lost=on_lost, within_s=5.0)
    try:
        await bus.subscribe(subjects.story(call), on_story)
        await bus.subscribe(f"events.*.{call}", on_event)
        # The server must know of the interest before the first message can pass.
        await bus.flush()
        yield
    finally:
        await bus.close()
