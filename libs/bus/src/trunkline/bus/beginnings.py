"""Which calls have begun, as the stream EVENTS tells it: what happens in a call is no news before the call is."""

import asyncio
from typing import Final

import nats.js.errors

from trunkline.bus.streams import API_TIMEOUT_S, AWAY, HasControl
from trunkline.proto import subjects
from trunkline.proto.events import CallStarted, Fact
from trunkline.proto.ids import CallId

PATIENCE_S: Final = 3.0
"""An edge whose fact did not get through tries again sooner; one that died will not."""
_LOOK_S: Final = 0.1
_KNOWN: Final = 4_096
_STARTED: Final = "call.started"


class Beginnings:
    """Which calls are known to have begun.

    The edge stores that a call begins, its workers what happens then. When JetStream was away in between, workers may
    be the first to get through; so they look whether the beginning is there, once for every call.
    """

    def __init__(self, bus: HasControl) -> None:
        self._bus = bus
        self._known: dict[CallId, None] = {}

    def note(self, call: CallId, fact: Fact) -> None:
        """Take note of a fact that is told here: who tells of the beginning needs not look for it."""
        if isinstance(fact, CallStarted):
            self._know(call)

    def known(self, call: CallId) -> bool:
        """Return whether nothing of `call` has to wait."""
        return call in self._known

    async def seek(self, call: CallId) -> None:
        """Return when the beginning of `call` is stored, or was not for `PATIENCE_S` in which the stream answered."""
        jetstream = self._bus.control.jetstream(timeout=API_TIMEOUT_S)
        subject = subjects.event(_STARTED, call)
        answered_s = 0.0
        while answered_s < PATIENCE_S:
            try:
                await jetstream.get_last_msg(subjects.EVENTS_STREAM, subject)
                break
            except nats.js.errors.NotFoundError:
                answered_s += _LOOK_S
            except AWAY:
                pass
            await asyncio.sleep(_LOOK_S)
        self._know(call)

    def _know(self, call: CallId) -> None:
        self._known[call] = None
        while len(self._known) > _KNOWN:
            del self._known[next(iter(self._known))]
