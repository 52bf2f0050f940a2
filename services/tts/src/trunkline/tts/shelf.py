"""Clips in memory, those heard lately. Pure."""

from collections import OrderedDict


class Shelf:
    """Clips by key, at most `max_bytes` of them: what was not asked for the longest goes first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._clips: OrderedDict[str, bytes] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._clips)

    def find(self, key: str) -> bytes | None:
        """Return the clip `key`, or None."""
        if key in self._clips:
            self._clips.move_to_end(key)
        return self._clips.get(key)

    def put(self, key: str, pcm: bytes) -> None:
        """Keep a clip. One that is larger than the whole shelf is not kept."""
        if len(pcm) > self._max_bytes:
            return
        self.bytes += len(pcm) - len(self._clips.pop(key, b""))
        self._clips[key] = pcm
        while self.bytes > self._max_bytes:
            _, gone = self._clips.popitem(last=False)
            self.bytes -= len(gone)
