"""The clips of all agents, in a JetStream object store that every process shares: the bucket CLIPS.

It is a cache: nothing is in it that could not be made again. So what is damaged counts as not there, and when the
bucket is full the oldest clips go (nats-py's own buckets refuse new ones instead). A clip is read by plain requests,
one for what it is and one for every 128 KiB of it; `ObjectStore.get` would make a consumer each time, waits for ever
when a piece is missing, and leaves its subscription behind when it is cancelled.
"""

import asyncio
import base64
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator
from typing import Final

import nats.js.errors
from nats.js import JetStreamContext, api
from nats.js.object_store import OBJ_CHUNKS_PRE_TEMPLATE, ObjectStore

from trunkline.bus.errors import BusUnavailable
from trunkline.bus.streams import AWAY, HasControl, ensure_stream, why
from trunkline.proto.clips import LONGEST_S, RATE_HZ

log = logging.getLogger("trunkline.bus.clips")

BUCKET: Final = "CLIPS"
MAX_BYTES: Final = 256 * 2**20
SMALLEST_MAX_BYTES: Final = 2**22
MAX_AGE_S: Final = 30 * 24 * 3600.0
LONGEST_BYTES: Final = int(LONGEST_S * RATE_HZ) * 2
CALL_TIMEOUT_S: Final = 2.0
_STREAM: Final = f"OBJ_{BUCKET}"
_MOST_PIECES: Final = 64


class ClipStore:
    """Clips by key: PCM16 at 8 kHz, mono, 60 s at most. `replicas` servers keep them."""

    def __init__(self, bus: HasControl, *, replicas: int = 1) -> None:
        self._bus = bus
        self._replicas = replicas
        self._made = False

    async def get(self, key: str) -> bytes | None:
        """Return the clip `key`; None when there is none, or it is damaged.

        Raises:
            BusUnavailable: JetStream is away, or did not answer within `CALL_TIMEOUT_S`.
        """
        async with self._bounded("cannot read a clip") as jetstream:
            try:
                pcm = await self._read(jetstream, key)
            except (nats.js.errors.ObjectNotFoundError, nats.js.errors.NotFoundError):
                return None
            except nats.js.errors.BadObjectMetaError:
                pcm = None
            if pcm is None:
                log.warning("clip damaged", extra={"key": key})
            return pcm
        return None

    async def put(self, key: str, pcm: bytes) -> None:
        """Keep a clip, instead of one there may be.

        Raises:
            ValueError: it is empty, longer than 60 s, or no whole number of samples.
            BusUnavailable: JetStream is away, refuses it, or did not answer within `CALL_TIMEOUT_S`.
        """
        if not pcm or len(pcm) > LONGEST_BYTES or len(pcm) % 2:
            raise ValueError(f"{len(pcm)} bytes are no clip: whole samples, up to {LONGEST_BYTES}")
        async with self._bounded("cannot keep a clip") as jetstream:
            if not self._made:
                await ensure_stream(jetstream, _bucket(self._replicas), SMALLEST_MAX_BYTES)
                self._made = True
            try:
                await ObjectStore(BUCKET, _STREAM, jetstream).put(key, pcm)
            except BaseException:
                self._made = False  # maybe the bucket is gone
                raise

    @contextlib.asynccontextmanager
    async def _bounded(self, what: str) -> AsyncIterator[JetStreamContext]:
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                yield self._bus.control.jetstream(timeout=CALL_TIMEOUT_S)
        except AWAY as error:
            raise BusUnavailable(f"{what}: {why(error)}") from error

    async def _read(self, jetstream: JetStreamContext, key: str) -> bytes | None:
        info = await ObjectStore(BUCKET, _STREAM, jetstream).get_info(key)
        size = info.size
        if not isinstance(size, int) or not 0 < size <= LONGEST_BYTES or not info.nuid or info.is_link():
            return None
        subject = OBJ_CHUNKS_PRE_TEMPLATE.format(bucket=BUCKET, obj=info.nuid)
        pcm, seq = b"", 1
        for _ in range(_MOST_PIECES):
            try:
                piece = await jetstream.get_msg(_STREAM, seq=seq, subject=subject, next=True)
            except nats.js.errors.NotFoundError:
                return None
            pcm, seq = pcm + (piece.data or b""), (piece.seq or 0) + 1
            if len(pcm) >= size:
                break
        whole = len(pcm) == size and size % 2 == 0
        return pcm if whole and info.digest == _digest(pcm) else None


def _digest(pcm: bytes) -> str:
    return f"SHA-256={base64.urlsafe_b64encode(hashlib.sha256(pcm).digest()).decode()}"


def _bucket(replicas: int) -> api.StreamConfig:
    return api.StreamConfig(
        name=_STREAM,
        description="What agents say word for word, as sound",
        subjects=[f"$O.{BUCKET}.C.>", f"$O.{BUCKET}.M.>"],
        storage=api.StorageType.FILE,
        discard=api.DiscardPolicy.OLD,
        max_age=MAX_AGE_S,
        max_bytes=MAX_BYTES,
        allow_rollup_hdrs=True,
        allow_direct=True,
        num_replicas=replicas,
    )
