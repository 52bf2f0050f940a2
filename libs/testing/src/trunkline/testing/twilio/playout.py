"""What Twilio holds for the caller's ear: audio that waits, and marks that wait for audio.

Pure: `take` is called once for each stretch of time that passes.
"""

from collections import deque


class Playout:
    """A buffer that plays what it is given in order and knows which marks have come due.

    A mark is due when every sample queued before it has been *taken and played*, that is, when the `take` after the one
    that handed out its last sample begins.
    """

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._head = 0
        self._marks: deque[tuple[int, str]] = deque()
        self._queued = 0
        self._taken = 0
        self._played = 0

    @property
    def waiting_bytes(self) -> int:
        """Samples that have not begun to play."""
        return self._queued - self._taken

    @property
    def idle(self) -> bool:
        """Whether nothing plays and nothing waits."""
        return self._played == self._queued

    def queue(self, audio: bytes) -> None:
        """Add `audio` (μ-law) behind what waits already."""
        if audio:
            self._waiting.append(audio)
            self._queued += len(audio)

    def mark(self, name: str) -> list[str]:
        """Put a mark behind what waits; return it at once if nothing does."""
        self._marks.append((self._queued, name))
        return self._due()

    def clear(self) -> list[str]:
        """Drop what waits and return every outstanding mark. What is playing this instant plays out."""
        self._waiting.clear()
        self._head = 0
        self._queued = self._taken
        names = [name for _, name in self._marks]
        self._marks.clear()
        return names

    def pass_time(self) -> list[str]:
        """Count what was last taken as played; return the marks that makes due, in order."""
        self._played = self._taken
        return self._due()

    def take(self, size: int) -> bytes:
        """Hand out the next `size` samples to play, fewer if there are not as many."""
        parts = []
        missing = size
        while missing and self._waiting:
            first = self._waiting[0]
            part = first[self._head : self._head + missing]
            parts.append(part)
            missing -= len(part)
            self._head += len(part)
            if self._head == len(first):
                self._waiting.popleft()
                self._head = 0
        self._taken += size - missing
        return b"".join(parts)

    def _due(self) -> list[str]:
        names = []
        while self._marks and self._marks[0][0] <= self._played:
            names.append(self._marks.popleft()[1])
        return names
