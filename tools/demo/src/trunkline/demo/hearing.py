"""What the recording itself says: where a channel has sound, how loud it is. Pure; times in milliseconds."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from trunkline.audio.levels import FULL_SCALE, QUIETEST_DBFS, Voicing, peak, rms_dbfs, voiced_spans
from trunkline.demo.report import Level

Samples = NDArray[np.int16]
AUDIBLE_DBFS: Final = -45.0
_AUDIBLE: Final = Voicing(threshold_dbfs=AUDIBLE_DBFS, join_gap_ms=60, min_ms=20)
_AMPLITUDE: Final = FULL_SCALE * 10 ** (AUDIBLE_DBFS / 20)


class Channel:
    """One side of a recording."""

    def __init__(self, samples: Samples, rate_hz: int) -> None:
        self._samples = samples
        self._rate_hz = rate_hz
        self.spans: Final = voiced_spans(samples, rate_hz, _AUDIBLE)

    def first_sound(self, from_ms: float, until_ms: float) -> int | None:
        """Return when the first audible sample from `from_ms` on is, None if there is none before `until_ms`."""
        loud, begin = self._loud(from_ms, until_ms)
        return None if loud.size == 0 else round((begin + int(loud[0])) * 1_000 / self._rate_hz)

    def last_sound(self, from_ms: float, until_ms: float) -> int | None:
        """Return when the last audible sample before `until_ms` is, None if there is none from `from_ms` on."""
        loud, begin = self._loud(from_ms, until_ms)
        return None if loud.size == 0 else round((begin + int(loud[-1]) + 1) * 1_000 / self._rate_hz)

    def audible_ms(self, from_ms: float, until_ms: float) -> int:
        """Return for how long there is voice between the two moments, to 20 ms."""
        begin, end = self._index(from_ms), self._index(until_ms)
        rule = Voicing(threshold_dbfs=AUDIBLE_DBFS, join_gap_ms=0, min_ms=20)
        return sum(span.duration_ms for span in voiced_spans(self._samples[begin:end], self._rate_hz, rule))

    def level(self) -> Level:
        """Return how loud the voiced part is."""
        voiced = [self._samples[self._index(span.start_ms) : self._index(span.end_ms)] for span in self.spans]
        samples = np.concatenate(voiced) if voiced else self._samples[:0]
        highest = peak(samples)
        return Level(
            rms_dbfs=round(rms_dbfs(samples), 1),
            peak_dbfs=round(20 * float(np.log10(highest / FULL_SCALE)), 1) if highest else QUIETEST_DBFS,
            voiced_ms=sum(span.duration_ms for span in self.spans),
        )

    def _loud(self, from_ms: float, until_ms: float) -> tuple[NDArray[np.intp], int]:
        begin, end = self._index(from_ms), self._index(until_ms)
        return np.flatnonzero(np.abs(self._samples[begin:end].astype(np.int32)) > _AMPLITUDE), begin

    def _index(self, at_ms: float) -> int:
        return int(min(max(0.0, at_ms * self._rate_hz / 1_000), self._samples.size))
