"""The person at the other end: plays a scenario's steps, 20 ms at a time. Pure: no clock, no socket, no files.

Time is the audio itself. The agent "speaks" from its first audible frame until its audio has neither been heard nor
waits in the playout buffer for a while.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trunkline.audio.g711 import mulaw_to_pcm16, pcm16_to_mulaw
from trunkline.audio.levels import FULL_SCALE, rms_dbfs
from trunkline.call.scenario import BargeIn, Scenario, Step, WaitForAgent
from trunkline.call.seen import Seen, Spoken, Who
from trunkline.testing.twilio import FRAME_BYTES, FRAME_MS, RATE_HZ, Heard, Uttered

AUDIBLE_DBFS: Final = -45.0
_FRAME_S: Final = FRAME_MS / 1_000
_GAP_S: Final = 0.2
_KEY_GAP_S: Final = 0.25
NOISE_FRAMES: Final = 251
_NOISE_SEED: Final = 8_000

Clips = Mapping[int, NDArray[np.int16]]
"""Step number → its speech at 8 kHz, without silence before or after."""


class _GaveUp(Exception):
    """The caller will not wait any longer."""


class Ear:
    """Tells from what is heard when the agent speaks."""

    def __init__(self) -> None:
        self.speaking_since_s: float | None = None
        self.last_heard_s: float | None = None
        """End of the last audible frame."""
        self.busy = False
        """Whether the far side's audio plays or waits."""

    def listen(self, heard: Heard) -> str | None:
        """Take 20 ms; return ``started`` or ``ended`` when the agent did."""
        self.busy = heard.playing
        end_s = heard.at_s + _FRAME_S
        if rms_dbfs(mulaw_to_pcm16(heard.audio)) > AUDIBLE_DBFS:
            self.last_heard_s = end_s
            if self.speaking_since_s is None:
                self.speaking_since_s = heard.at_s
                return "started"
        elif self.speaking_since_s is not None and not self.busy and self.quiet_s(end_s) >= _GAP_S:
            self.speaking_since_s = None
            return "ended"
        return None

    def quiet_s(self, now_s: float) -> float:
        """Return for how long the agent has not been heard; endless before its first sound."""
        return float("inf") if self.last_heard_s is None else now_s - self.last_heard_s


class ScriptedCaller:
    """Plays the steps of `scenario`; a `Party` for `trunkline.testing.twilio.place`.

    Args:
        scenario: what to do.
        clips: the speech of every step that speaks.
        observe: told everything, as it happens.
    """

    def __init__(self, scenario: Scenario, clips: Clips, observe: Callable[[Seen], None]) -> None:
        self.spoken: Final[list[Spoken]] = []
        self.problem: str | None = None
        """Why the steps were not played to their end."""
        self.last_act_s = 0.0
        """When the caller last made a sound or pressed a key."""
        self._scenario = scenario
        self._clips = clips
        self._observe = observe
        self._ear = Ear()
        self.now_s = 0.0
        """Where in the stream the call is."""
        self._noise = LineNoise(scenario.caller.noise_dbfs)
        self._speech: Iterator[NDArray[np.int16]] = iter(())
        self._digits = ""
        self._step = 0
        self._performance = self._perform()

    @property
    def missed(self) -> Sequence[Step]:
        """The steps that were not played to their end, without those that only wait."""
        return [step for step in self._scenario.steps[self._step :] if not step.passive]

    def tick(self, heard: Heard) -> Uttered:
        """Live through 20 ms."""
        self.now_s = heard.at_s
        match self._ear.listen(heard):
            case "started":
                self._note("agent", "speech-started")
            case "ended":
                self._note("agent", "speech-ended", at_s=self._ear.last_heard_s)
        self._digits = ""
        hang_up = self._next()
        if hang_up:
            self._note("caller", "hung-up", self.problem or "")
        speech = next(self._speech, None)
        return Uttered(self._noise.over(speech), self._digits, hang_up)

    def _next(self) -> bool:
        """Let the performance go on; return whether it is over."""
        try:
            if self.now_s >= self._scenario.max_s:
                raise _GaveUp(f"the call was not over after {self._scenario.max_s:g} s")  # noqa: TRY301 - one way out
            next(self._performance)
        except StopIteration:
            return True
        except _GaveUp as gave_up:
            self.problem = f"step {self._step + 1} ({self._scenario.steps[self._step].action}): {gave_up}"
            return True
        return False

    def _perform(self) -> Iterator[None]:
        """The steps, one after the other; every `yield` lets 20 ms pass."""
        for number, step in enumerate(self._scenario.steps):
            self._step = number
            self._note("caller", "step", f"{number + 1} {step.action}")
            match step:
                case Step(say=str() as words):
                    yield from self._speak(words)
                case Step(wav=str()):
                    yield from self._speak(step.words)
                case Step(wait_for_agent=WaitForAgent() as wait):
                    yield from self._wait_for_agent(wait)
                case Step(barge_in=BargeIn() as barge_in):
                    yield from self._barge_in(barge_in)
                case Step(press=str() as digits):
                    yield from self._press(digits)
                case Step(silence_s=float() as seconds):
                    yield from self._let_pass(seconds)
                case Step(wait_for_end_s=float() as seconds):
                    yield from self._let_pass(seconds)
                    raise _GaveUp(f"the agent did not hang up within {seconds:g} s")
                case _:
                    break
        self._step = len(self._scenario.steps)

    def _speak(self, words: str | None, *, barge_in: bool = False) -> Iterator[None]:
        clip = self._clips[self._step]
        start_s, end_s = self.now_s, self.now_s + clip.size / RATE_HZ
        self.spoken.append(Spoken(step=self._step, words=words, start_s=start_s, end_s=end_s, barge_in=barge_in))
        self.last_act_s = end_s
        self._note("caller", "speech-started", words or "")
        self._speech = (clip[at : at + FRAME_BYTES] for at in range(0, clip.size, FRAME_BYTES))
        while self.now_s < end_s:
            yield
        self._note("caller", "speech-ended", words or "", at_s=end_s)

    def _wait_for_agent(self, wait: WaitForAgent) -> Iterator[None]:
        ear, deadline_s = self._ear, self.now_s + wait.timeout_s
        while ear.last_heard_s is None or ear.last_heard_s <= self.last_act_s:
            if self.now_s >= deadline_s:
                raise _GaveUp(f"the agent said nothing within {wait.timeout_s:g} s")
            yield
        while ear.busy or ear.quiet_s(self.now_s) < wait.quiet_ms / 1_000:
            yield

    def _barge_in(self, barge_in: BargeIn) -> Iterator[None]:
        deadline_s = self.now_s + barge_in.timeout_s
        while (since_s := self._ear.speaking_since_s) is None:
            if self.now_s >= deadline_s:
                raise _GaveUp(f"the agent said nothing within {barge_in.timeout_s:g} s")
            yield
        while self.now_s < since_s + barge_in.after_s:
            if self._ear.speaking_since_s is None:
                raise _GaveUp(f"the agent had finished before {barge_in.after_s:g} s were over")
            yield
        yield from self._speak(barge_in.say, barge_in=True)

    def _press(self, digits: str) -> Iterator[None]:
        for digit in digits:
            self._digits = digit
            self.last_act_s = self.now_s
            self._note("caller", "pressed", digit)
            yield from self._let_pass(_KEY_GAP_S)

    def _let_pass(self, seconds: float) -> Iterator[None]:
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            yield

    def _note(self, who: Who, what: str, text: str = "", *, at_s: float | None = None) -> None:
        self._observe(Seen(self.now_s if at_s is None else at_s, who, what, text))


class LineNoise:
    """A line's hiss, the same on every run."""

    def __init__(self, level_dbfs: float) -> None:
        scale = FULL_SCALE * 10 ** (level_dbfs / 20)
        noise = np.random.default_rng(_NOISE_SEED).normal(0, scale, (NOISE_FRAMES, FRAME_BYTES))
        self._frames = noise
        self._coded = [pcm16_to_mulaw(np.rint(frame).astype("<i2").tobytes()) for frame in noise]
        self._at = 0

    def over(self, speech: NDArray[np.int16] | None) -> bytes:
        """Return the next frame in μ-law, with `speech` (at most one frame) in it."""
        self._at = (self._at + 1) % NOISE_FRAMES
        if speech is None:
            return self._coded[self._at]
        frame = self._frames[self._at].copy()
        frame[: speech.size] += speech
        return pcm16_to_mulaw(np.clip(np.rint(frame), -FULL_SCALE, FULL_SCALE - 1).astype("<i2").tobytes())
