"""What a simulated call leaves behind: what was seen, what was said, what was judged."""

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from trunkline.proto.codec import Story
from trunkline.proto.events import Event
from trunkline.proto.ids import CallId

Who = Literal["caller", "agent", "line", "bus"]


class Seen(msgspec.Struct, frozen=True):
    """Something that happened, `at_s` seconds of audio after the start of the call. Kinds: see the README."""

    at_s: float
    who: Who
    what: str
    text: str = ""
    message: Story | Event | None = None


class Spoken(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of the caller's speech. `words` is None when nobody told what is in a WAV."""

    step: int
    words: str | None
    start_s: float
    end_s: float
    barge_in: bool = False


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One expectation, judged. `passed` is None when it could not be seen from here."""

    name: str
    expected: str
    found: str
    passed: bool | None


class CallResult(msgspec.Struct, frozen=True, kw_only=True):
    """A call that is over."""

    scenario: str
    call: CallId
    call_sid: str
    started_at: float
    """Wall clock at sample 0."""
    duration_s: float
    ended_by: Literal["caller", "agent"]
    close_code: int
    problem: str | None
    """Why the steps were not played to their end."""
    spoken: tuple[Spoken, ...]
    verdicts: tuple[Verdict, ...]
    log: tuple[Seen, ...]
    latest_ms: float
    """By how much the latest frame left this machine too late."""
    streams: int = 1
    """How many media streams the call had, one after the other."""
    gaps: tuple[tuple[float, float], ...] = ()
    """From when to when it had none, in seconds; the last may go on to its end."""
    said: tuple[str, ...] = ()
    """What the carrier's own voice was told to say, beside the agent's."""
    left: NDArray[np.int16]
    """What the caller said, 8 kHz."""
    right: NDArray[np.int16]
    """What the caller heard; sample n of both was the same instant."""

    @property
    def passed(self) -> bool:
        """Whether nothing that was expected failed."""
        return all(verdict.passed is not False for verdict in self.verdicts)
