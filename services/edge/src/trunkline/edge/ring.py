"""The last seconds of a call's caller audio, for a worker that takes over in the middle of a word.

Pure: numbers frames, keeps them, forgets the oldest. Knows neither bus nor worker.
"""

from collections import deque
from collections.abc import Sequence
from itertools import islice

import msgspec

from trunkline.proto.ids import Seq


class Kept(msgspec.Struct, frozen=True, gc=False):
    """A frame as it will be sent again. Hundreds of each call are kept: the collector need not walk them."""

    seq: int
    captured_us: int
    payload: bytes


class Ring:
    """Frames with consecutive seqs, of which the newest `most` are kept (but always the last one)."""

    def __init__(self, most: int, first: Seq = Seq(0)) -> None:  # noqa: B008 - a NewType makes nothing
        self._frames: deque[Kept] = deque(maxlen=max(1, most))
        self._first = first
        self._next = int(first)

    @property
    def next_seq(self) -> Seq:
        """Seq the next frame will get."""
        return Seq(self._next)

    @property
    def count(self) -> int:
        """How many frames there have been."""
        return self._next - self._first

    def push(self, captured_us: int, payload: bytes) -> Kept:
        """Number `payload` and keep it."""
        kept = Kept(self._next, captured_us, payload)
        self._next += 1
        self._frames.append(kept)
        return kept

    def since(self, seq: int) -> Sequence[Kept]:
        """Return the frames from `seq` on, oldest first; from the oldest kept if `seq` is forgotten already."""
        if not self._frames:
            return ()
        skip = max(0, seq - self._frames[0].seq)
        return tuple(islice(self._frames, skip, None))
