"""A byte stream cut into pieces of a fixed size. It knows sizes, not what the bytes mean."""

from trunkline.audio.errors import BadAudio


class Framer:
    """Cuts what is pushed into frames of `frame_bytes` and keeps what is left over.

    With `first_bytes` the first frame alone has that size: speech that starts early begins with a short one.
    """

    def __init__(self, frame_bytes: int, *, first_bytes: int | None = None) -> None:
        first = frame_bytes if first_bytes is None else first_bytes
        if frame_bytes < 1 or first < 1:
            raise BadAudio(f"frames of {frame_bytes} bytes, the first of {first}: both must be at least 1")
        self._frame_bytes = frame_bytes
        self._next_bytes = first
        self._rest = b""

    def push(self, data: bytes) -> list[bytes]:
        """Return the frames that `data` completes, oldest first; often none."""
        if len(data) == self._next_bytes == self._frame_bytes and not self._rest:
            return [data]
        held = self._rest + data if self._rest else data
        frames: list[bytes] = []
        start = 0
        while len(held) - start >= self._next_bytes:
            end = start + self._next_bytes
            frames.append(held[start:end])
            start = end
            self._next_bytes = self._frame_bytes
        self._rest = held[start:]
        return frames

    def rest(self) -> bytes:
        """Return what is left over, shorter than a frame and maybe empty, and forget it."""
        rest, self._rest = self._rest, b""
        return rest
