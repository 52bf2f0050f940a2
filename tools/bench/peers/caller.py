"""A caller who says three things to a counting agent, what they lived through, and the fault that hits them. No clocks.

Times are seconds of the call's recording, which goes on when one media stream is followed by another.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from tools.bench.peers import tones
from trunkline.audio.g711 import mulaw_to_pcm16, pcm16_to_mulaw
from trunkline.testing.twilio import Heard, Recording, Uttered

PHRASES: Final = ("my name is peter miller", "i need a table for two people", "is there parking")
"""Such as Pipecat's Smart Turn takes for complete from this voice; behind others it waits for 3 s more."""
AGAIN: Final = PHRASES[2]
"""What they say when nothing comes."""
QUIET_S: Final = 0.6
"""The agent has ended when it has been silent for so long behind its last word."""
GREETING_S: Final = 10.0
PATIENCE_S: Final = 8.0
"""Until they ask whether anybody is there, once."""
GIVE_UP_S: Final = 14.0
THINKING_AFTER_S: Final = 0.45
"""After the caller's last sound: the agent has noticed the end and its mind is at work."""
SPEAKING_AFTER_S: Final = 1.0
"""After the answer's first sound: five of its words are said."""
_FAULT_TURN: Final = 1
_FRAME: Final = 160
_EAR_FRAMES: Final = 50
_NOISE_RMS: Final = 8.0

Clips = dict[str, NDArray[np.int16]]


class Struck(msgspec.Struct):
    """A fault of one trial: strikes once, when the first caller is where it is to strike."""

    moment: str
    """``speaking``, ``thinking``, ``caller`` (speaks) or ``never``."""
    act: Callable[[], None]
    done: bool = False

    def strike(self) -> None:
        """Let it happen."""
        self.done = True
        self.act()


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one caller got. Seconds are None where there is nothing to tell."""

    setup: str
    fault: str
    trial: int
    call: int
    hit: bool
    """Whether the fault was one of this call's process."""
    survived: bool
    """Whether the caller was still being served at the end: the agent answered again after the fault."""
    how: str
    silence_s: float | None
    """The longest the caller waited for the agent after the fault; None when the call ended before it spoke again."""
    memory: str
    """``kept``, ``lost`` or, when nobody was there to ask, ``-``."""
    answer_heard: int
    """Words of the answer under way that were heard, of `tones.ANSWER_WORDS`."""
    said_again: int
    """Words of it that were heard more than once."""
    clear_before: bool
    """Whether the first answer came whole; if not, the machine was too busy for anything to be measured."""
    state: str
    """Where this caller was when it struck."""
    streams: int
    struck_at_s: float | None
    ended_at_s: float
    heard: str
    latest_ms: float


class Caller:
    """A `Party`; the first of a trial's callers carries the trigger of the fault."""

    def __init__(self, clips: Clips, struck: Struck, *, triggers: bool, seed: int) -> None:
        self.struck_at_s: float | None = None
        self.state = ""
        self.waits: Final[list[float]] = []
        """When they ended each thing they said and began to wait; what they ask again is none of these."""
        self._clips = clips
        self._struck = struck
        self._triggers = triggers
        self._noise = np.random.default_rng(seed).normal(0, _NOISE_RMS, (251, _FRAME))
        self._ticks = 0
        self._at_s = 0.0
        self._loud = False
        self._sound_s = 0.0
        self._ear: deque[bytes] = deque(maxlen=_EAR_FRAMES)
        self._doing = "waiting"
        self._frames: Iterator[NDArray[np.int16]] = iter(())
        self._life = self._live()

    def tick(self, heard: Heard) -> Uttered:
        """Live through 20 ms."""
        self._ticks += 1
        self._at_s = heard.at_s
        self._loud = tones.loud(np.frombuffer(mulaw_to_pcm16(heard.audio), np.int16))
        self._ear.append(heard.audio)
        if self._loud:
            self._sound_s = self._at_s
        if self._struck.done and self.struck_at_s is None:
            self._note_fault()
        over = next(self._life, "over") == "over"
        frame = self._noise[self._ticks % len(self._noise)].copy()
        speech = next(self._frames, None)
        if speech is not None:
            frame[: speech.size] += speech
        return Uttered(pcm16_to_mulaw(np.clip(np.rint(frame), -32_768, 32_767).astype("<i2").tobytes()), "", over)

    def _live(self) -> Iterator[str]:
        yield from self._hear(GREETING_S)
        for turn, phrase in enumerate(PHRASES):
            fault = self._struck.moment if turn == _FAULT_TURN and self._triggers else "never"
            yield from self._say(phrase, strike=fault == "caller")
            self.waits.append(self._at_s)
            yield from self._hear(GIVE_UP_S, fault=fault, ask_again=turn >= _FAULT_TURN)

    def _say(self, phrase: str, *, strike: bool = False) -> Iterator[str]:
        clip = self._clips[phrase]
        self._doing = "caller"
        self._frames = (clip[at : at + _FRAME] for at in range(0, clip.size, _FRAME))
        frames = -(-clip.size // _FRAME)
        for frame in range(frames):
            if strike and frame == frames // 2:
                self._strike()
            yield "saying"
        self._doing = "waiting"

    def _hear(self, limit_s: float, *, fault: str = "never", ask_again: bool = False) -> Iterator[str]:
        """Wait until the agent has spoken and is silent again; after `limit_s` of nothing go on without."""
        begin_s, first_s = self._at_s, 0.0
        while True:
            if self._loud and not first_s:
                first_s = self._at_s
            self._doing = "speaking" if first_s else "waiting"
            if fault == "thinking" and self._at_s - begin_s >= THINKING_AFTER_S:
                self._strike()
                fault = "never"
            if fault == "speaking" and first_s and self._at_s - first_s >= SPEAKING_AFTER_S:
                self._strike()
                fault = "never"
            silent_s = self._at_s - max(begin_s, self._sound_s)
            if silent_s > limit_s or (first_s and silent_s >= QUIET_S and self._ended()):
                return
            if ask_again and silent_s > PATIENCE_S:
                ask_again = False
                yield from self._say(AGAIN)
            yield "hearing"

    def _ended(self) -> bool:
        """Whether what was heard last is how the agent ends: callers do not speak into an answer that a fault broke."""
        words = tones.words_in(np.frombuffer(mulaw_to_pcm16(b"".join(self._ear)), np.int16))
        return bool(words) and words[-1].text in (tones.TAIL[-1], tones.GREETING[-1])

    def _strike(self) -> None:
        self._struck.strike()
        self._note_fault()

    def _note_fault(self) -> None:
        self.struck_at_s = self._at_s
        self.state = self._doing


def judge(caller: Caller, recording: Recording, *, setup: str, fault: str, trial: int, call: int, hit: bool) -> Outcome:
    """Return what `caller` got, by ear."""
    words = tones.words_in(recording.right)
    ended_at_s = len(recording.right) / tones.RATE_HZ
    # Without a fault the second answer is looked at in its place.
    at_s = caller.struck_at_s if caller.struck_at_s is not None else (caller.waits[1:2] or [ended_at_s])[0]
    counts = [(word.at_s, tones.COUNTS.index(word.text)) for word in words if word.text in tones.COUNTS]
    later = [count for heard_s, count in counts if heard_s >= at_s]
    first_s = caller.waits[0] if caller.waits else None
    first = [word.text for word in words if first_s is not None and word.at_s >= first_s][: tones.ANSWER_WORDS]
    # They had said one thing before the fault: whoever remembers it says two or more.
    asked_s = caller.waits[1] if len(caller.waits) > 1 else at_s
    # The third thing said begins another answer; its wait is noted at its end.
    until_s = caller.waits[2] if len(caller.waits) > 2 else ended_at_s
    answer = [word.text for word in words if asked_s <= word.at_s < until_s and word.text not in tones.GREETING]
    survived = recording.ended_by == "caller" and bool(later)
    return Outcome(
        setup=setup,
        fault=fault,
        trial=trial,
        call=call,
        hit=hit,
        survived=survived,
        how=_how(recording),
        silence_s=_silence_s(words, caller.waits, at_s) if survived else None,
        memory="-" if not survived else "kept" if later and later[0] > 1 else "lost",
        answer_heard=len(set(answer)),
        said_again=len(answer) - len(set(answer)),
        clear_before=first_s is not None and [*tones.LEAD, tones.COUNTS[1], *tones.TAIL] == first,
        state=caller.state,
        streams=recording.streams,
        struck_at_s=caller.struck_at_s,
        ended_at_s=ended_at_s,
        heard=" ".join(word.text for word in words),
        latest_ms=recording.latest_ms,
    )


def _silence_s(words: tuple[tones.Word, ...], waits: list[float], at_s: float) -> float:
    """Return the longest wait for the agent that ended after `at_s`: from its last word or the caller's."""
    longest = 0.0
    previous_s = 0.0
    for word in words:
        spoken = [wait for wait in waits if previous_s <= wait <= word.at_s]
        if word.at_s > at_s:
            longest = max(longest, word.at_s - (spoken[0] if spoken else previous_s))
        previous_s = word.end_s
    return longest


def _how(recording: Recording) -> str:
    if recording.ended_by == "caller":
        return "caller hung up"
    warned = ", ".join(dict.fromkeys(warned.code for warned in recording.warnings))
    return f"cut off, socket closed with {recording.close_code}" + (f", Twilio {warned}" if warned else "")
