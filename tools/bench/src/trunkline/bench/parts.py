"""Where the time of a turn went, as the platform itself has told (facts ``turn.measured``)."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from trunkline.proto.events import TurnMeasured
from trunkline.proto.frame import FRAME_MS
from trunkline.stt.endpointing import frames_of


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds, of one turn or the mean of many; they sum to the whole response."""

    hang_over: float
    """From the caller's last sound, as the caller counts, to the last that the detector takes for voice; and the way
    to the caller."""
    silence: float
    """The configured silence, in whole steps of the detector."""
    judging: float
    """Beyond it: frames on their way to STT, their waiting there, the detector."""
    words: float
    """Until the caller's words stood."""
    thinking: float
    """Until the model's first piece, and the first sentence."""
    voicing: float
    """Until the first sound."""
    sending: float
    """Until it left for the carrier."""

    @property
    def answering(self) -> float:
        """From the judgement that the turn is over to the sound of the answer."""
        return self.words + self.thinking + self.voicing + self.sending

    @property
    def platform(self) -> float:
        """All that is neither the caller's silence nor the detector's idea of it."""
        return self.judging + self.answering


class _Event(msgspec.Struct, frozen=True):
    wall_at: float
    fact: TurnMeasured


_EVENT: Final = msgspec.json.Decoder(_Event)


def measured(path: Path, since_wall: float, until_wall: float) -> Iterator[TurnMeasured]:
    """Yield the turns of that while."""
    with path.open("rb") as lines:
        for line in lines:
            if b'"turn.measured"' in line:
                with contextlib.suppress(msgspec.ValidationError):
                    event = _EVENT.decode(line)
                    if since_wall <= event.wall_at <= until_wall:
                        yield event.fact


def split(turn: TurnMeasured, silence_ms: float) -> Parts:
    """Return the parts of one turn, without the hang-over, which only the caller knows."""
    steps = float(frames_of(silence_ms) * FRAME_MS)
    return Parts(
        hang_over=0.0,
        silence=steps,
        judging=turn.endpoint_delay_ms - steps,
        words=turn.stt_final_ms,
        thinking=turn.llm_ttft_ms + turn.first_sentence_ms,
        voicing=turn.tts_ttfb_ms,
        sending=turn.edge_ms,
    )


def mean(parts: list[Parts], response_ms: float) -> Parts:
    """Return the mean of `parts`; what is missing to `response_ms`, as callers measured it, is the hang-over."""
    if not parts:
        return Parts(hang_over=0.0, silence=0.0, judging=0.0, words=0.0, thinking=0.0, voicing=0.0, sending=0.0)
    means = {
        name: sum(getattr(one, name) for one in parts) / len(parts)
        for name in Parts.__struct_fields__
        if name != "hang_over"
    }
    return Parts(hang_over=response_ms - sum(means.values()), **means)
