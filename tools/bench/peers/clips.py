"""Sounds of a telephone that a voice detector has to tell apart: people who interrupt, and what is no speech at all.

Speech is espeak-ng's, in several voices, each word over a quiet line. The rest is made here from a seed, 20 seconds of
each, loud and soft: what a line hums, hisses and beeps, and what a room does without anybody speaking. All of it has
gone through G.711, as everything a caller sends has.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tools.bench.peers.tones import RATE_HZ
from trunkline.audio.g711 import mulaw_to_pcm16, pcm16_to_mulaw
from trunkline.call import parse_scenario, prepare_speech

WORDS: Final = (
    *("stop", "wait", "no", "yes", "okay", "hello", "sorry", "what", "hold on", "excuse me"),
    *("actually", "one moment", "that is wrong", "let me think", "can you repeat that", "I have a question"),
)
VOICES: Final = (("en-us", 1.0, 50), ("en-gb", 1.1, 65), ("en-us", 0.9, 35), ("de", 1.0, 50), ("es", 1.15, 60))
"""Of callers: espeak-ng's name, speed, pitch."""
SPEECH: Final = "speech"
_LEAD_S: Final = 2.0
_AFTER_S: Final = 0.6
_LINE_DBFS: Final = -60.0
_NOISE_S: Final = 20.0
_LEVELS_DBFS: Final = (-20.0, -32.0, -44.0)
_SEED: Final = 7

Samples = NDArray[np.float64]


class Clip(NamedTuple):
    """A sound, and where speech begins in it."""

    kind: str
    samples: NDArray[np.int16]
    first: int | None
    """The first sample of speech; None where nobody speaks."""

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / RATE_HZ


async def speech() -> list[Clip]:
    """Return every word in every voice, after a while of a line's noise."""
    chance = np.random.default_rng(_SEED)
    lead, after = int(_LEAD_S * RATE_HZ), int(_AFTER_S * RATE_HZ)
    clips = []
    for voice, speed, pitch in VOICES:
        steps = "".join(f'[[steps]]\nsay = "{words}"\n' for words in WORDS)
        caller = f'[caller]\nvoice = "{voice}"\nspeed = {speed}\npitch = {pitch}\n'
        spoken = await prepare_speech(parse_scenario(f'name = "words"\n{caller}{steps}', "words"))
        for said in spoken.values():
            # Nobody begins to speak where a detector begins to listen.
            begin = lead + int(chance.integers(0, 256))
            line = _at(chance.normal(size=begin + len(said) + after), _LINE_DBFS)
            line[begin : begin + len(said)] += said
            clips.append(Clip(SPEECH, _sent(line), begin + _MARGIN))
    return clips


_MARGIN: Final = RATE_HZ * 20 // 1_000
"""What `prepare_speech` leaves before the first sound."""


def noises() -> Iterator[Clip]:
    """Yield what is no speech."""
    chance = np.random.default_rng(_SEED)
    count = int(_NOISE_S * RATE_HZ)
    for kind, make in NOISES.items():
        for dbfs in _LEVELS_DBFS:
            yield Clip(kind, _sent(_at(make(chance, count), dbfs)), None)


def _hiss(chance: np.random.Generator, count: int) -> Samples:
    return chance.normal(size=count)


def _rumble(chance: np.random.Generator, count: int) -> Samples:
    """A car's or a fan's: power falls with the square of the frequency."""
    spectrum = np.fft.rfft(chance.normal(size=count))
    hz = np.fft.rfftfreq(count, 1 / RATE_HZ)
    return np.fft.irfft(spectrum / np.maximum(hz, 60.0), count)


def _hum(chance: np.random.Generator, count: int) -> Samples:
    """The mains', with its overtones."""
    at = np.arange(count) / RATE_HZ
    hum = sum(np.sin(2 * np.pi * 50 * n * at + chance.uniform(0, 6)) / n for n in range(1, 12))
    return np.asarray(hum, np.float64)


def _clicks(chance: np.random.Generator, count: int) -> Samples:
    """Somebody types: a few milliseconds of noise, some times a second."""
    sound = np.zeros(count)
    for begin in _moments(chance, count, 6.0):
        length = min(int(chance.integers(16, 120)), count - begin)
        sound[begin : begin + length] += chance.normal(size=length) * np.exp(-np.arange(length) / 20)
    return sound


def _knocks(chance: np.random.Generator, count: int) -> Samples:
    """A handset is put down, a door closes: low, and gone in a fifth of a second."""
    sound = np.zeros(count)
    for begin in _moments(chance, count, 1.0):
        at = np.arange(min(1_600, count - begin)) / RATE_HZ
        hz = chance.uniform(70, 220)
        sound[begin : begin + len(at)] += np.sin(2 * np.pi * hz * at) * np.exp(-at / 0.04)
    return sound


def _breaths(chance: np.random.Generator, count: int) -> Samples:
    """Noise that swells and ebbs every three seconds, without its lowest frequencies."""
    at = np.arange(count) / RATE_HZ
    swell = np.maximum(np.sin(2 * np.pi * at / 3.0), 0.0) ** 2
    return np.asarray(np.diff(chance.normal(size=count + 1)) * swell, np.float64)


def _coughs(chance: np.random.Generator, count: int) -> Samples:
    """A burst of noise that begins at once and dies away in a quarter of a second, alone or in twos."""
    sound = np.zeros(count)
    for begin in _moments(chance, count, 0.5):
        for again in range(int(chance.integers(1, 3))):
            start = begin + again * 2_800
            at = np.arange(max(0, min(2_000, count - start))) / RATE_HZ
            sound[start : start + len(at)] += chance.normal(size=len(at)) * np.exp(-at / 0.06)
    return sound


def _keys(chance: np.random.Generator, count: int) -> Samples:
    """DTMF (ITU-T Q.23), ten digits and a pause."""
    at = np.arange(count) / RATE_HZ
    sound = np.zeros(count)
    for n, begin in enumerate(np.arange(0.0, _NOISE_S, 0.2)):
        if n % 20 < 10:
            pressed = (at >= begin) & (at < begin + 0.1)
            low, high = chance.choice([697, 770, 852, 941]), chance.choice([1209, 1336, 1477])
            sound[pressed] = np.sin(2 * np.pi * low * at[pressed]) + np.sin(2 * np.pi * high * at[pressed])
    return sound


def _ringing(_: np.random.Generator, count: int) -> Samples:
    """Another telephone's ringing tone in North America: 440 and 480 Hz, two seconds of six."""
    at = np.arange(count) / RATE_HZ
    return np.asarray((np.sin(2 * np.pi * 440 * at) + np.sin(2 * np.pi * 480 * at)) * (at % 6 < 2), np.float64)


def _music(chance: np.random.Generator, count: int) -> Samples:
    """Plucked chords, four a second, of notes with six overtones."""
    sound = np.zeros(count)
    for begin in range(0, count, RATE_HZ // 4):
        at = np.arange(min(RATE_HZ, count - begin)) / RATE_HZ
        for step in chance.choice([0, 2, 4, 5, 7, 9, 12], 3, replace=False):
            hz = 196.0 * 2 ** (step / 12)
            for n in range(1, 7):
                sound[begin : begin + len(at)] += np.sin(2 * np.pi * hz * n * at) / n * np.exp(-at * 3 * n**0.5)
    return sound


NOISES: Final[dict[str, Callable[[np.random.Generator, int], Samples]]] = {
    "hiss": _hiss,
    "rumble": _rumble,
    "hum": _hum,
    "typing": _clicks,
    "knocks": _knocks,
    "breath": _breaths,
    "coughs": _coughs,
    "keys (DTMF)": _keys,
    "ringing tone": _ringing,
    "music": _music,
}


def _moments(chance: np.random.Generator, count: int, per_s: float) -> list[int]:
    """Return at which samples something happens that happens `per_s` times a second."""
    return [int(at) for at in np.flatnonzero(chance.random(count) < per_s / RATE_HZ)]


def _at(sound: Samples, dbfs: float) -> Samples:
    """Return `sound` so that its loudest tenth of a second is at `dbfs`."""
    tenth = RATE_HZ // 10
    loudest = max(float(np.sqrt(np.mean(sound[at : at + tenth] ** 2))) for at in range(0, len(sound), tenth))
    return sound * (32_768 * 10 ** (dbfs / 20) / max(loudest, 1e-9))


def _sent(sound: Samples) -> NDArray[np.int16]:
    clipped = np.clip(sound, -32_000, 32_000).astype("<i2")
    return np.frombuffer(mulaw_to_pcm16(pcm16_to_mulaw(clipped.tobytes())), "<i2").astype(np.int16)
