"""What is kept of live calls: the bucket CALLS, as other tools know JetStream's key-value buckets.

`CallStore` reads and writes keys; a write names the revision that its writer knows, so that of two who believe that a
call is theirs one is told otherwise. `CallWriter` writes one key behind its owner's back, who must never wait. Neither
knows what is in the bytes.

nats-py's own buckets are not used: a key that was deleted or has expired cannot be made again with them for a while.
"""

import asyncio
import contextlib
import hashlib
import logging
import re
from collections.abc import AsyncIterator, Callable, Container
from typing import Final, NamedTuple

import nats.js.errors
from nats.js import JetStreamContext, api

from trunkline.bus.ending import ended
from trunkline.bus.errors import BusUnavailable, Outdated
from trunkline.bus.streams import AWAY, HasControl, ensure_stream, retry_s, why

log = logging.getLogger("trunkline.bus.calls")

BUCKET: Final = "CALLS"
MAX_BYTES: Final = 256 * 2**20
SMALLEST_MAX_BYTES: Final = 2**22
MAX_AGE_S: Final = 6 * 3600.0
LARGEST_BYTES: Final = 512 * 2**10
REQUEST_TIMEOUT_S: Final = 0.5
FIRST_TIMEOUT_S: Final = 2.0
"""For the write that may have to make the bucket."""
_STREAM: Final = f"KV_{BUCKET}"
_SUBJECTS: Final = f"$KV.{BUCKET}."
_KEY: Final = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_LEADER_TIMEOUT_S: Final = 0.3
_REVISION: Final = api.Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value
_WRONG_REVISION: Final = {10071, 10164}
"""JetStream's errors for a write that names another revision than the stored one, and for one that meets another write
of the same key on its way through a cluster."""
_MARKERS: Final = ("KV-Operation", "Nats-Marker-Reason")
_MOST_UNSURE: Final = 10_000


class Stored(NamedTuple):
    """What a key holds, and the revision to name when writing it."""

    data: bytes
    revision: int


class CallStore:
    """The keys of live calls. What nobody writes for 6 hours is gone; `replicas` servers keep the rest.

    Keys are one or more of ``A-Z a-z 0-9 _ -``, joined by dots.
    """

    def __init__(self, bus: HasControl, replicas: int = 1) -> None:
        self._bus = bus
        self._replicas = replicas
        self._made = False
        self._writable = True
        self._unsure: dict[str, set[bytes]] = {}
        """By key, digests of what was sent and never answered: it may be stored, or be stored yet."""

    async def get(self, key: str) -> Stored | None:
        """Return what `key` holds; None when nothing.

        Raises:
            ValueError: it is no key.
            BusUnavailable: JetStream is away, or did not answer within `REQUEST_TIMEOUT_S`.
        """
        found = await self._newest(_subject(key))
        return None if found is None or _is_marker(found.headers or ()) else _stored(found)

    async def put(self, key: str, data: bytes, revision: int) -> int:
        """Store `data` if `key` is still at `revision` (0: holds nothing), and return the new revision.

        A write of this store's that was never answered counts as known: with the same bytes again it is confirmed, and
        with others written over.

        Raises:
            ValueError: it is no key, or more than 512 KiB.
            Outdated: it holds something else by now, or nothing any more.
            BusUnavailable: JetStream is away, refuses it, or did not answer within `REQUEST_TIMEOUT_S` (2 s for the
                first). It may or may not be stored.
        """
        subject = _subject(key)
        if len(data) > LARGEST_BYTES:
            raise ValueError(f"{len(data)} bytes are more than a key of {BUCKET} may hold: {LARGEST_BYTES}")
        try:
            return await self._publish(key, data, revision)
        except Outdated:
            found = await self._newest(subject)
            ours = found is not None and _digest(found.data or b"") in self._unsure.get(key, ())
            if found is not None and (ours or (revision == 0 and _is_marker(found.headers or ()))):
                stored = _stored(found)
                return (
                    stored.revision if ours and stored.data == data else await self._publish(key, data, stored.revision)
                )
            if revision == (found.seq if found is not None else 0):
                raise BusUnavailable(f"cannot write {key}: another write of it is under way") from None
            self._unsure.pop(key, None)
            raise

    async def delete(self, key: str) -> None:
        """Have `key` hold nothing, whatever it held.

        Raises:
            ValueError: it is no key.
            BusUnavailable: JetStream is away, or did not answer within `REQUEST_TIMEOUT_S`.
        """
        subject = _subject(key)
        # A marker of deletion would be the key's newest revision; with nothing left, that is 0 again.
        with contextlib.suppress(nats.js.errors.NotFoundError):
            async with self._bounded(f"cannot delete {key}", REQUEST_TIMEOUT_S) as jetstream:
                await jetstream.purge_stream(_STREAM, subject=subject)
        self._unsure.pop(key, None)

    async def all(self, suffix: str) -> AsyncIterator[tuple[str, Stored]]:
        """Yield the keys of two parts that end in `suffix` (``.edge``), least recently written first.

        One request a key; what is written meanwhile may come once more.

        Raises:
            ValueError: no key ends so.
            BusUnavailable: JetStream is away, or did not answer within `REQUEST_TIMEOUT_S`.
        """
        subject, seq = f"{_SUBJECTS}*{_subject(f'any{suffix}').removeprefix(f'{_SUBJECTS}any')}", 1
        while True:
            async with self._bounded("cannot list the calls", REQUEST_TIMEOUT_S):
                kept = await self._bus.storing.next_of(_STREAM, seq, subject, REQUEST_TIMEOUT_S)
            if kept is None:
                return
            seq = kept.seq + 1
            if not _is_marker(kept.header_names):
                yield kept.subject.removeprefix(_SUBJECTS), Stored(kept.data, kept.seq)

    async def _publish(self, key: str, data: bytes, revision: int) -> int:
        timeout_s = REQUEST_TIMEOUT_S if self._made else FIRST_TIMEOUT_S
        try:
            async with self._bounded(f"cannot write {key}", timeout_s) as jetstream:
                if not self._made:
                    await ensure_stream(jetstream, _bucket(self._replicas), SMALLEST_MAX_BYTES)
                    self._made = True
                headers = {_REVISION: str(revision)}
                stored = await self._bus.storing.publish(_SUBJECTS + key, data, headers, timeout_s)
        except Outdated:
            raise  # it was refused: it is not stored, and will not be
        except BaseException as error:
            # Told once, not by every call.
            if self._writable and isinstance(error, BusUnavailable):
                self._writable = False
                log.warning("call states cannot be stored; keeping them", extra={"why": str(error)})
            self._unsure.setdefault(key, set()).add(_digest(data))
            if len(self._unsure) > _MOST_UNSURE:
                self._unsure.pop(next(iter(self._unsure)))
            raise
        if not self._writable:
            self._writable = True
            log.info("call states are stored again")
        self._unsure.pop(key, None)
        return stored

    async def _newest(self, subject: str) -> api.RawStreamMsg | None:
        """Ask the bucket's leader, who knows for sure; where there is none just now, any server that has a copy."""
        try:
            async with self._bounded("cannot read a call", REQUEST_TIMEOUT_S) as jetstream:
                try:
                    async with asyncio.timeout(_LEADER_TIMEOUT_S):
                        return await jetstream.get_last_msg(_STREAM, subject)
                except nats.js.errors.NotFoundError:
                    raise
                except AWAY:
                    return await jetstream.get_last_msg(_STREAM, subject, direct=True)
        except nats.js.errors.NotFoundError:
            return None

    @contextlib.asynccontextmanager
    async def _bounded(self, what: str, timeout_s: float) -> AsyncIterator[JetStreamContext]:
        try:
            async with asyncio.timeout(timeout_s):
                yield self._bus.control.jetstream(timeout=timeout_s)
        except nats.js.errors.NotFoundError:
            raise
        except AWAY as error:
            if isinstance(error, nats.js.errors.APIError) and error.err_code in _WRONG_REVISION:
                raise Outdated(f"{what}: somebody else has") from error
            self._made = False  # maybe the bucket is gone
            raise BusUnavailable(f"{what}: {why(error)}") from error


class CallWriter:
    """Writes one key behind its owner's back: the newest bytes win, one write is in flight, and it never gives up.

    It stops for good when somebody else has written the key, and says so once. A key that has vanished (it expired, or
    the servers lost it) is made anew: nobody else has written it.
    """

    def __init__(self, store: CallStore, key: str, revision: int, on_outdated: Callable[[], None]) -> None:
        _subject(key)
        self.outdated = False
        """Whether somebody else has the key; nothing is written any more."""
        self.revision = revision
        """The newest revision known to be ours, or the one begun with."""
        self.stored = 0
        self.failures = 0
        """Writes that failed since the start; each was tried again."""
        self._store = store
        self._key = key
        self._on_outdated = on_outdated
        self._waiting: bytes | None = None
        self._asked = 0
        self._settled = 0
        self._closed = False
        self._hurry = asyncio.Event()
        self._progress = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def pending(self) -> bool:
        """Whether something put is not stored yet."""
        return self._settled < self._asked

    def put(self, data: bytes) -> None:
        """Have `data` stored in place of what still waits. Returns at once, never raises. Needs a running loop."""
        if self.outdated or self._closed:
            return
        if len(data) > LARGEST_BYTES:
            self.failures += 1
            log.error("call state too large; not stored", extra={"key": self._key, "bytes": len(data)})
            return
        self._waiting = data
        self._asked += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write_all(), name=f"write {self._key}")

    async def flush(self, timeout_s: float) -> bool:
        """Wait until everything put so far, or something newer, is stored; return whether it was within `timeout_s`.

        False at once when the key is somebody else's; `outdated` tells which.
        """
        asked = self._asked
        self._hurry.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._settled < asked and not self.outdated and not self._closed:
                    self._progress.clear()
                    await self._progress.wait()
        return self._settled >= asked

    async def aclose(self) -> None:
        """Stop. What is not stored by now is not stored: flush first."""
        self._closed = True
        self._progress.set()
        if self._task is not None:
            await ended(self._task)

    async def _write_all(self) -> None:
        attempts = 0
        while self._waiting is not None and not self.outdated:
            data, number = self._waiting, self._asked
            attempts += 1
            try:
                self.revision = await self._store.put(self._key, data, self.revision)
            except Outdated:
                await self._look()
            except BusUnavailable:
                await self._pause(attempts)
            except Exception:
                log.exception("call state not stored", extra={"key": self._key})
                await self._pause(attempts)  # what is newer must not be stuck behind it
            else:
                attempts = 0
                self.stored += 1
                self._settled = number
                if self._asked == number:
                    self._waiting = None
            self._progress.set()

    async def _look(self) -> None:
        """Tell a key that is somebody else's from one that has vanished."""
        try:
            vanished = await self._store.get(self._key) is None
        except BusUnavailable:
            await self._pause(1)
            return
        if vanished:
            log.warning("call state had vanished; making it anew", extra={"key": self._key})
            self.revision = 0
            return
        self.outdated = True
        self._waiting = None
        log.warning("call state is somebody else's now", extra={"key": self._key, "revision": self.revision})
        try:
            self._on_outdated()
        except Exception:
            log.exception("who wrote the call's state was not told", extra={"key": self._key})

    async def _pause(self, attempts: int) -> None:
        self.failures += 1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(retry_s(attempts)):
                await self._hurry.wait()
        self._hurry.clear()


def _bucket(replicas: int) -> api.StreamConfig:
    return api.StreamConfig(
        name=_STREAM,
        description="Live calls: who has them, and what was said",
        subjects=[f"{_SUBJECTS}>"],
        storage=api.StorageType.FILE,
        discard=api.DiscardPolicy.NEW,  # the oldest key may be that of the longest call
        max_age=MAX_AGE_S,
        max_bytes=MAX_BYTES,
        max_msgs_per_subject=1,
        allow_rollup_hdrs=True,
        allow_direct=True,
        num_replicas=replicas,
    )


def _subject(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} cannot be a key: parts of A-Z a-z 0-9 _ -, joined by dots")
    return _SUBJECTS + key


def _stored(found: api.RawStreamMsg) -> Stored:
    return Stored(found.data or b"", found.seq or 0)


def _is_marker(header_names: Container[str]) -> bool:
    """Return whether a message stands for a key that holds nothing: other tools delete so, servers mark expiry so."""
    return any(name in header_names for name in _MARKERS)


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
