import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from trunkline.providers.errors import Unavailable
from trunkline.stt.silero import SAMPLES, UNITS, Network, load
from trunkline.stt.vad import model_path

pytestmark = pytest.mark.unit


def test_the_layers_give_what_the_model_file_gives(voice):
    # Six lines at different places of a sentence, one of them silent, each with a memory of what it heard before.
    heard = np.frombuffer(voice.say("i would like to book a table for two people"), "<i2") / np.float32(32_768)
    reference = ReferenceEvaluator(onnx.load(model_path()))
    network = Network(load(model_path()), 6)
    state = np.zeros((2, 6, UNITS), np.float32)
    probabilities = []
    for step in range(12):
        starts = [256 * step + 2_000 * line for line in range(5)]
        samples = np.stack([heard[start : start + SAMPLES] for start in starts] + [np.zeros(SAMPLES, np.float32)])
        expected, state_after = reference.run(
            None, {"input": samples.astype(np.float32), "state": state, "sr": np.array(8_000, np.int64)}
        )
        voiced, hidden, cell = network.judge(samples.astype(np.float32), state[0], state[1])
        assert voiced == pytest.approx(expected[:, 0], abs=1e-5)
        assert hidden == pytest.approx(state_after[0], abs=1e-5)
        assert cell == pytest.approx(state_after[1], abs=1e-4)
        state = state_after
        probabilities.extend(voiced)
    assert max(probabilities) > 0.9
    assert min(probabilities) < 0.1


def test_a_batch_that_is_smaller_than_the_one_before_is_not_spoilt_by_it():
    network = Network(load(model_path()), 4)
    noise = np.random.default_rng(3).normal(0, 0.2, (4, SAMPLES)).astype(np.float32)
    zero = np.zeros((4, UNITS), np.float32)
    fresh = Network(load(model_path()), 1)
    alone = fresh.judge(noise[3:], zero[:1], zero[:1])
    network.judge(noise, zero, zero)
    again = network.judge(noise[3:], zero[:1], zero[:1])
    for found, expected in zip(again, alone, strict=True):
        assert found == pytest.approx(expected, abs=1e-6)


def test_another_file_is_refused_by_name(tmp_path):
    path = tmp_path / "other.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(Unavailable, match=r"other\.onnx"):
        load(path)
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], [])), path)
    with pytest.raises(Unavailable, match="no Silero VAD"):
        load(path)
