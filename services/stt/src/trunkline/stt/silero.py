"""The network of Silero VAD v5 at 8 kHz, computed with numpy for many calls at once. Knows no calls, rows or time.

A general runtime pays for generality in every run: it puts the recurrent weights together anew, and treats each call's
four time steps as an image of its own. Here every layer is one matrix product over the whole batch, which costs four
tenths of it at fifty calls and more (tools/bench/vad_runtime.py); tests hold it against the model file itself, run by
ONNX's reference evaluator.

Layers, of 288 samples (the last 32 of the frame before, then 256 new ones): reflected padding by 32; a Fourier
transform as a product with 65 cosines and 65 sines, 128 samples wide, every 64; four convolutions of width 3; one LSTM
cell of 128 units; a weighted sum. https://github.com/snakers4/silero-vad, file silero_vad.onnx, branch ``else`` of its
test for 16 kHz. The file has the gates of the LSTM in the order input, forget, cell, output (torch.nn.LSTMCell); here
those with a sigmoid come first.
"""

from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import onnx
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from onnx import numpy_helper

from trunkline.providers.errors import Unavailable

Floats = NDArray[np.float32]

SAMPLES: Final = 288
"""Of one call in one run."""
UNITS: Final = 128
_PAD: Final = 32
_WINDOW: Final = 128
_BINS: Final = 65
_STEPS: Final = 4
_FLOAT_BYTES: Final = 4
_BRANCH: Final = "else_branch"
_PREFIX: Final = "If_0_else_branch__Inline_0__"


class Weights(NamedTuple):
    """Of each layer, as the matrix that rows are multiplied by, and what is added."""

    basis: Floats
    """[128, 130]: cosines, then sines."""
    encoder: tuple[tuple[Floats, Floats], ...]
    """[3 * 65, 128], [3 * 128, 64], [2 * 64, 64] and [64, 128]: of the last two, the taps that meet no padding."""
    cell: tuple[Floats, Floats]
    """[256, 512]: input and hidden units to the gates input, forget, output, cell. What goes into a sigmoid is halved:
    sigmoid(x) = (1 + tanh(x / 2)) / 2."""
    output: tuple[Floats, float]


def load(path: Path) -> Weights:
    """Read the weights out of Silero's own file.

    Raises:
        Unavailable: it is no model with these layers.
    """
    found = _initialisers(path)

    def named(name: str, *shape: int) -> Floats:
        array = found.get(_PREFIX + name)
        if array is None or array.shape != shape:
            raise Unavailable(f"{path.name} is no Silero VAD v5: {name} is missing or of another shape")
        return array.astype(np.float32)

    def convolution(number: int, out: int, into: int, taps: slice) -> tuple[Floats, Floats]:
        layer = f"encoder.{number}.reparam_conv"
        by_tap = named(f"{layer}.weight", out, into, 3).transpose(2, 1, 0)[taps]
        return np.ascontiguousarray(by_tap.reshape(-1, out)), named(f"{layer}.bias", out)

    gates = 4 * UNITS
    into_cell = [named(f"decoder.rnn.weight_{end}", gates, UNITS) for end in ("ih", "hh")]
    biases = named("decoder.rnn.bias_ih", gates) + named("decoder.rnn.bias_hh", gates)
    order = np.concatenate([np.arange(2 * UNITS), np.arange(3 * UNITS, gates), np.arange(2 * UNITS, 3 * UNITS)])
    halved = np.where(np.arange(gates) < 3 * UNITS, np.float32(0.5), np.float32(1.0))
    every = slice(None)
    return Weights(
        np.ascontiguousarray(named("stft.forward_basis_buffer", 2 * _BINS, 1, _WINDOW)[:, 0].T),
        (
            convolution(0, 128, _BINS, every),
            convolution(1, 64, 128, every),
            convolution(2, 64, 64, slice(1, 3)),
            convolution(3, 128, 64, slice(1, 2)),
        ),
        (np.ascontiguousarray(np.concatenate(into_cell, axis=1)[order].T * halved), biases[order] * halved),
        (
            np.ascontiguousarray(named("decoder.decoder.2.weight", 1, UNITS, 1)[0, :, 0]),
            float(named("decoder.decoder.2.bias", 1)[0]),
        ),
    )


class Network:
    """The layers, and room for `most` calls at once."""

    def __init__(self, weights: Weights, most: int) -> None:
        self._weights = weights
        # What stands beside the steps of a convolution is padding, and stays zero.
        self._padded = np.zeros((most, SAMPLES + _PAD), np.float32)
        self._spectrum = np.zeros((most, 1 + _STEPS + 1, _BINS), np.float32)
        self._encoded = np.zeros((most, 1 + _STEPS, 128), np.float32)
        self._cell_in = np.zeros((most, 2 * UNITS), np.float32)
        self._seen = (
            _windows(self._padded, _STEPS, _WINDOW // 2, _WINDOW),
            _windows(self._spectrum, _STEPS, _BINS, 3 * _BINS),
            _windows(self._encoded, _STEPS // 2, 2 * 128, 3 * 128),
        )

    def judge(self, samples: Floats, hidden: Floats, cell: Floats) -> tuple[Floats, Floats, Floats]:
        """Return how likely each row is voice, and the next `hidden` and `cell`.

        Args:
            samples: [batch, 288], full scale 1.
            hidden: [batch, 128], zero at the beginning, as `cell`.
            cell: [batch, 128].
        """
        count = len(samples)
        into, biases = self._weights.cell
        cell_in = self._cell_in[:count]
        cell_in[:, :UNITS] = self._encode(samples)
        cell_in[:, UNITS:] = hidden
        gates = cell_in @ into
        gates += biases
        np.tanh(gates, out=gates)
        sigmoids = gates[:, : 3 * UNITS]
        sigmoids += 1.0
        sigmoids *= 0.5
        let_in, keep, show, new = (gates[:, at : at + UNITS] for at in range(0, 4 * UNITS, UNITS))
        following = keep * cell
        following += let_in * new
        shown = np.tanh(following)
        shown *= show
        weights, bias = self._weights.output
        voiced: Floats = 1.0 / (1.0 + np.exp(-(np.maximum(shown, 0.0) @ weights + bias)))
        return voiced, shown, following

    def _encode(self, samples: Floats) -> Floats:
        """Return the features of frames, [batch, 128]: what of the network has no memory."""
        count = len(samples)
        weights = self._weights
        seen_samples, seen_spectrum, seen_encoded = (windows[:count] for windows in self._seen)
        (first, first_bias), (second, second_bias), (third, third_bias), (last, last_bias) = weights.encoder
        padded = self._padded[:count]
        padded[:, :SAMPLES] = samples
        padded[:, SAMPLES:] = samples[:, -2 : -2 - _PAD : -1]
        waves = seen_samples.reshape(-1, _WINDOW) @ weights.basis
        waves *= waves
        waves = waves.reshape(count, _STEPS, 2 * _BINS)
        spectrum = self._spectrum[:count]
        loudness = spectrum[:, 1 : 1 + _STEPS]
        np.add(waves[:, :, :_BINS], waves[:, :, _BINS:], out=loudness)
        np.sqrt(loudness, out=loudness)
        encoded = self._encoded[:count]
        found = seen_spectrum.reshape(-1, 3 * _BINS) @ first
        found += first_bias
        np.maximum(found.reshape(count, _STEPS, 128), 0.0, out=encoded[:, 1:])
        found = _rectified(seen_encoded.reshape(-1, 3 * 128) @ second, second_bias)
        found = _rectified(found.reshape(count, 2 * 64) @ third, third_bias)
        return _rectified(found @ last, last_bias)


def _windows(rows: Floats, steps: int, stride: int, width: int) -> Floats:
    """Return a view of what a convolution sees of each row at each step, [batch, steps, width]; widths may overlap."""
    strides = (rows[0].size * _FLOAT_BYTES, stride * _FLOAT_BYTES, _FLOAT_BYTES)
    return as_strided(rows, (len(rows), steps, width), strides, writeable=False)


def _rectified(sums: Floats, bias: Floats) -> Floats:
    sums += bias
    return np.maximum(sums, 0.0, out=sums)


def _initialisers(path: Path) -> dict[str, NDArray[np.generic]]:
    """Return the named arrays of the branch of the model that is for 8 kHz."""
    try:
        graph = onnx.load(path).graph
    except Exception as error:
        raise Unavailable(f"{path.name} is no ONNX model: {error}") from error
    found = {array.name: numpy_helper.to_array(array) for array in graph.initializer}
    branches = [attribute.g for node in graph.node for attribute in node.attribute if attribute.name == _BRANCH]
    for branch in branches:
        found |= {array.name: numpy_helper.to_array(array) for array in branch.initializer}
        found |= {
            node.output[0]: numpy_helper.to_array(node.attribute[0].t)
            for node in branch.node
            if node.op_type == "Constant" and node.attribute[0].name == "value"
        }
    return found
