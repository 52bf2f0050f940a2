"""Keeps one call's conversation in the store, behind its back, under the epoch of whoever has the call.

The key's revision is the fence: whoever takes the call over writes it first, so what the one before still writes is
refused, and that one learns that the call is somebody else's. While the store is away the call goes on unkept.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

import msgspec

from trunkline.brain.snapshot import Kept, Snapshot, decode, encode
from trunkline.bus import BusUnavailable, CallStore, CallWriter, Outdated, Stored, ended
from trunkline.proto.ids import CallId, Epoch
from trunkline.proto.records import brain_key

log = logging.getLogger("trunkline.brain.keeper")

READ_S: Final = 0.5
"""How long a caller may have to wait for what was kept."""
WRITE_S: Final = 0.5
_TRIES: Final = 3
_AGAIN_S: Final = 0.5


class Deposed(Exception):
    """The call is somebody else's."""


class Keeper:
    """One call's.

    Args:
        store: of the process.
        call: whose key it is.
        epoch: in which the call is ours.
        deposed: is told, once, that it is somebody else's now.
    """

    def __init__(self, store: CallStore, call: CallId, epoch: Epoch, deposed: Callable[[], None]) -> None:
        self.deposed = False
        self._closed = False
        self._store = store
        self._key = brain_key(call)
        self._epoch = epoch
        self._tell = deposed
        self._newest: Snapshot | None = None
        self._writer: CallWriter | None = None
        self._joining: asyncio.Task[None] | None = None

    async def take_over(self) -> Snapshot | None:
        """Make the call ours, and return what was kept of it; None when that is nothing or out of reach.

        Raises:
            Deposed: somebody has it in a higher epoch, or keeps writing.
        """
        for _ in range(_TRIES):
            try:
                async with asyncio.timeout(READ_S):
                    stored = await self._store.get(self._key)
            except (BusUnavailable, TimeoutError) as error:
                log.warning("what was kept of a call is out of reach", extra={"key": self._key, "why": str(error)})
                self._joining = asyncio.create_task(self._join(), name=f"join {self._key}")
                return None
            kept = self._read(stored)
            ours = encode(Kept(epoch=self._epoch, snapshot=kept.snapshot))
            revision = 0 if stored is None else stored.revision
            try:
                async with asyncio.timeout(WRITE_S):
                    revision = await self._store.put(self._key, ours, revision)
            except Outdated:
                continue
            except (BusUnavailable, TimeoutError):
                self._write_behind(revision).put(ours)
            else:
                self._write_behind(revision)
            return kept.snapshot
        raise Deposed(f"{self._key} is being written by somebody else")

    def keep(self, snapshot: Snapshot) -> None:
        """Have `snapshot` stored in place of older ones. Never waits, never raises."""
        if self._closed or self.deposed:
            return
        self._newest = snapshot
        if self._joining is None:
            self._write_behind(0).put(encode(Kept(epoch=self._epoch, snapshot=snapshot)))

    async def flush(self, timeout_s: float) -> bool:
        """Wait until what was given is stored; return whether it is, within `timeout_s`."""
        return self._writer is not None and await self._writer.flush(timeout_s)

    async def forget(self) -> None:
        """Delete what was kept: the call is over."""
        await self.aclose()
        if self._newest is not None or self._writer is not None:
            with contextlib.suppress(BusUnavailable):  # it expires by itself
                await self._store.delete(self._key)

    async def aclose(self) -> None:
        """Write no more."""
        self._closed = True
        if self._joining is not None:
            await ended(self._joining)
        if self._writer is not None:
            await self._writer.aclose()

    def _read(self, stored: Stored | None) -> Kept:
        if stored is None:
            return Kept(epoch=self._epoch)
        try:
            kept = decode(stored.data)
        except msgspec.MsgspecError as error:
            log.error("what was kept of a call cannot be read", extra={"key": self._key, "why": type(error).__name__})  # noqa: TRY400 - the error would quote it
            return Kept(epoch=self._epoch)
        if kept.epoch > self._epoch:
            raise Deposed(f"{self._key} is kept in epoch {kept.epoch}")
        return kept

    async def _join(self) -> None:
        """Begin to write as soon as the store is back, unless somebody else has the call by then."""
        while True:
            await asyncio.sleep(_AGAIN_S)
            try:
                stored = await self._store.get(self._key)
                self._read(stored)
            except BusUnavailable:
                continue
            except Deposed:
                self._depose()
                return
            break
        self._joining = None
        writer = self._write_behind(0 if stored is None else stored.revision)
        if self._newest is not None:
            writer.put(encode(Kept(epoch=self._epoch, snapshot=self._newest)))

    def _write_behind(self, revision: int) -> CallWriter:
        if self._writer is None:
            self._writer = CallWriter(self._store, self._key, revision, self._depose)
        return self._writer

    def _depose(self) -> None:
        if not self.deposed:
            self.deposed = True
            self._tell()
