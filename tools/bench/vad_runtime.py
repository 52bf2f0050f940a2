"""What a frame of 32 ms costs the voice detector: ONNX Runtime beside our own layers, in one run.

    python tools/bench/vad_runtime.py

ONNX Runtime is installed from PyPI into out/peers/onnxruntime and used on one thread, as it would be in a process that
has one core. Both judge the same noise, in turns, so that a busy machine is no fault of either. Processor time.
"""

import importlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from trunkline.stt.silero import SAMPLES, UNITS, Network, load
from trunkline.stt.vad import VoiceDetector, model_path

VERSION: Final = "1.31.1"
BATCHES: Final = (1, 8, 25, 50, 100)
_ROOT: Final = Path(__file__).resolve().parents[2]
_FOLDER: Final = _ROOT / "out" / "peers" / "onnxruntime"
_RESULTS: Final = Path(__file__).parent / "results" / "vad_runtime.json"
_TIMES: Final = 300


class Row(msgspec.Struct):
    """Of one batch, microseconds of CPU per frame."""

    calls: int
    onnxruntime: tuple[float, float, float]
    """p50, p95, p99.9"""
    ours: tuple[float, float, float]
    largest_difference: float
    """Of the probabilities."""


def main() -> None:
    """Measure, print, write."""
    runtime = _runtime()
    VoiceDetector(1)  # one thread for numpy's products as well
    network = Network(load(model_path()), max(BATCHES))
    rows = [_row(runtime, network, calls) for calls in BATCHES]
    print(f"{'calls together':>16}{'ONNX Runtime':>16}{'ours':>10}   μs of CPU per frame, p50")
    for row in rows:
        print(f"{row.calls:>16}{row.onnxruntime[0]:>16.1f}{row.ours[0]:>10.1f}   ±{row.largest_difference:.0e}")
    found = {"date": datetime.now(UTC).date().isoformat(), "onnxruntime": VERSION, "rows": rows}
    _RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")


def _row(runtime: Any, network: Network, calls: int) -> Row:
    noise = np.random.default_rng(calls)
    samples = noise.normal(0, 0.1, (calls, SAMPLES)).astype(np.float32)
    state = noise.normal(0, 0.3, (2, calls, UNITS)).astype(np.float32)
    given = {"input": samples, "state": state, "sr": np.array(8_000, np.int64)}
    theirs = runtime.run(None, given)[0][:, 0]
    ours = network.judge(samples, state[0], state[1])[0]
    taken: tuple[list[float], list[float]] = [], []
    for _ in range(_TIMES):
        taken[0].append(_spent(lambda: runtime.run(None, given)))
        taken[1].append(_spent(lambda: network.judge(samples, state[0], state[1])))
    return Row(calls, _percentiles(taken[0], calls), _percentiles(taken[1], calls), float(abs(theirs - ours).max()))


def _spent(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _percentiles(seconds: list[float], calls: int) -> tuple[float, float, float]:
    p50, p95, p999 = (float(value) for value in np.percentile(seconds, [50, 95, 99.9]) * 1e6 / calls)
    return p50, p95, p999


def _runtime() -> Any:
    if not (_FOLDER / "onnxruntime").is_dir():
        uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
        if uv is None:
            sys.exit("uv is missing, which `make install` puts beside this Python")
        print(f"installing onnxruntime {VERSION} into {_FOLDER.relative_to(_ROOT)}", flush=True)
        command = [uv, "pip", "install", "--quiet", "--target", str(_FOLDER), f"onnxruntime=={VERSION}"]
        subprocess.run(command, check=True)  # noqa: S603 - our own words
    sys.path.append(str(_FOLDER))  # behind our own packages
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(model_path()), options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    main()
