"""A call's record, as long as this edge has the call: what another edge needs to go on with it, or to end it.

It is written behind the call's back, and seldom: nearly all of its bytes are the agent. It does not know what a call
is made of; `Call` says what has changed.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec

from trunkline.bus import CallStore, CallWriter
from trunkline.proto import codec
from trunkline.proto.agent import Agent
from trunkline.proto.records import CallRecord, edge_key

UNHURRIED_S: Final = 5.0
"""Changes that are in no hurry are written at most so often."""


def concluded(record: CallRecord) -> CallRecord:
    """Return `record` as it is kept of a call that is over: of its agent only the name, so that it is small."""
    return msgspec.structs.replace(record, state="ended", agent=Agent(name=record.agent.name))


class Keeping:
    """One call's. Make it inside a running loop.

    Args:
        store: where records are.
        record: as it is now.
        revision: of what is stored: 0 for a call that begins, that of `take_up` for one that goes on.
        wall: seconds since 1970.
        on_usurped: called once, when somebody else has written the record.
        unhurried_s: how long a change that is in no hurry may wait.
    """

    def __init__(
        self,
        store: CallStore,
        record: CallRecord,
        revision: int,
        wall: Callable[[], float],
        on_usurped: Callable[[], None],
        unhurried_s: float = UNHURRIED_S,
    ) -> None:
        self._record = record
        self._wall = wall
        self._unhurried_s = unhurried_s
        self._writer = CallWriter(store, edge_key(record.call), revision, on_usurped)
        self._loop = asyncio.get_running_loop()
        self._put_at = -unhurried_s
        self._later: asyncio.TimerHandle | None = None

    @property
    def record(self) -> CallRecord:
        """The record as of the last change, stored or not."""
        return self._record

    @property
    def usurped(self) -> bool:
        """Whether somebody else has written the record: the call, and what is told of its end, is theirs."""
        return self._writer.outdated

    def change(self, *, eager: bool = True, **fields: Any) -> None:
        """Replace `fields` of the record and have it stored: at once, or (not `eager`) within a few seconds.

        Returns at once and never raises for want of the store. Once the call has ended it stays so.
        """
        changed = msgspec.structs.replace(self._record, **fields)
        if not eager and changed == self._record:
            return
        if "ended" in (changed.state, self._record.state):
            changed = concluded(changed)
        self._record = msgspec.structs.replace(changed, written_at=self._wall())
        wait_s = 0.0 if eager else self._put_at + self._unhurried_s - self._loop.time()
        if wait_s <= 0:
            self._put()
        elif self._later is None:
            self._later = self._loop.call_later(wait_s, self._put)

    async def settle(self, within_s: float, **fields: Any) -> bool:
        """Change `fields` and wait until that is stored; return whether it was within `within_s`.

        False with `usurped`: somebody else's word stands. False without: it is not known, and still being tried until
        `aclose`.
        """
        self.change(**fields)
        return await self._writer.flush(within_s)

    async def aclose(self) -> None:
        """Write nothing any more."""
        self._cancel_later()
        await self._writer.aclose()

    def _put(self) -> None:
        self._cancel_later()
        self._put_at = self._loop.time()
        self._writer.put(codec.encode(self._record))

    def _cancel_later(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
