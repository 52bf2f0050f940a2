"""One call's ear, whoever lends it: the stream that goes on when a provider's does not.

It hands the call's audio to one provider at a time and keeps that of every utterance whose words are not known yet.
When it fails, the next one is given those utterances again, from their beginning, and then goes on with what is
being said. A provider fails when it says so; when it is late with the words of an utterance that is over, while there
is somebody else; and when there is voice but no words, where there should be some before the utterance's end: a socket
that died without a word sounds just like this. Who takes over stays, until it fails itself.

It is an `SttStream` to the call, but for `begin`, and tells it neither `Lost` nor `Billed`. A provider may tell what it
hears while it is being called, so whoever is called may be gone when the call returns.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal, NamedTuple

from trunkline.proto.agent import Stt
from trunkline.proto.events import ProviderFailed
from trunkline.proto.ids import UtteranceId
from trunkline.providers.course import Course, Memory, RetryRules
from trunkline.providers.errors import ProviderError, Transient, Unavailable, Unusable
from trunkline.providers.health import Health, label_of
from trunkline.providers.prices import Quantities
from trunkline.providers.usage import Meter
from trunkline.stt.provider import (
    BYTES_PER_S,
    Billed,
    Failed,
    Heard,
    Lost,
    OnHeard,
    Partial,
    SttCapabilities,
    SttStream,
    TurnOver,
)
from trunkline.stt.provider import Final as FinalWords

log = logging.getLogger("trunkline.stt.relay")


class Lender(NamedTuple):
    """A provider that may hear the call."""

    choice: Stt
    open: Callable[[OnHeard], Awaitable[tuple[SttStream, SttCapabilities]]]


class Means(NamedTuple):
    """What a relay works with."""

    health: Health
    rules: RetryRules
    now: Callable[[], float]
    """Monotonic seconds."""
    meter: Meter
    failed: Callable[[ProviderFailed], None]
    """Is told every failure, as a fact."""


class _Utterance:
    """One whose words are not known yet."""

    def __init__(self, utterance: UtteranceId, lead: bytes) -> None:
        self.id: Final = utterance
        self.pcm = [lead]
        """All of it so far, in the pieces in which it came."""
        self.over = False
        self.replaced_for_silence = False


class _Lent:
    """A stream as long as it is used."""

    def __init__(self, lender: int, serial: int) -> None:
        self.lender: Final = lender
        self.serial: Final = serial
        self.stream: SttStream | None = None
        self.capabilities = SttCapabilities()
        self.proven = False
        self.billed_s = 0.0
        self.listening = False
        """Whether it has shown that it hears."""
        self.unbilled_s = 0.0
        self.uncharged_bytes = 0
        """Pushed, and not entered yet: that is done by the second."""
        self.early: deque[Heard] = deque(maxlen=100)
        """What was told before the stream was there."""
        self.wordless_bytes = 0
        """Voice since there were words, or since the utterance began."""
        self.wordless_since = 0.0


class Relay:
    """The ear of one call.

    Args:
        lenders: in the agent's order of preference.
        means: see there.
        tell: is told what is heard.
    """

    def __init__(self, lenders: Sequence[Lender], means: Means, tell: OnHeard) -> None:
        self._lenders = lenders
        self._means = means
        self._tell = tell
        self._memory = Memory()
        self._course: Course | None = None
        self._lent: _Lent | None = None
        self._latest: _Lent | None = None
        """Who had it before, while there is none."""
        self._serial = 0
        self._open: _Utterance | None = None
        self._unknown: dict[UtteranceId, _Utterance] = {}
        self._deadlines: dict[UtteranceId, asyncio.TimerHandle] = {}
        self._replacing: asyncio.Task[None] | None = None
        self._letting_go: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def provider(self) -> str:
        """Who hears now, for metrics."""
        return label_of(self._lenders[self._lent.lender if self._lent is not None else 0].choice)

    async def start(self) -> None:
        """Borrow the first ear that can be had.

        Raises:
            Unusable: there is none; says why of the first.
        """
        problem: Unusable | None = None
        # One that is left alone by its breaker is asked only where nobody else can be.
        for number in sorted(range(len(self._lenders)), key=lambda one: not self._admits(one)):
            try:
                lent = await self._borrow(number)
            except Unusable as error:
                provider = label_of(self._lenders[number].choice)
                log.warning("ear not to be had", extra={"provider": provider, "problem": str(error)})
                problem = problem or error
            else:
                self._catch_up(lent)
                return
        raise problem or Unavailable("no provider")

    # --- what the call hears ------------------------------------------------------------------------------------------

    def begin(self, utterance: UtteranceId, lead: bytes) -> None:
        """Take what is pushed from now on as `utterance`, which began with `lead`: audio that was pushed already."""
        self._open = self._unknown[utterance] = _Utterance(utterance, lead)
        lent = self._lent
        if lent is None or lent.stream is None:
            if self._replacing is None:
                self._replace(None)
            return
        lent.wordless_bytes = 0
        lent.stream.begin(utterance)
        if lent.capabilities.needs_vad_segments and self._lent is lent:
            self._push(lent, lent.stream, lead, voiced=True)

    def push(self, pcm: bytes, *, voiced: bool) -> None:
        """Take all the audio of the call, as `SttStream.push`."""
        if self._open is not None:
            self._open.pcm.append(pcm)
        lent = self._lent
        if lent is None or lent.stream is None:
            return
        if self._open is not None or not lent.capabilities.needs_vad_segments:
            self._push(lent, lent.stream, pcm, voiced=voiced)
        if self._open is not None and voiced and self._lent is lent:
            lent.wordless_since = lent.wordless_since if lent.wordless_bytes else self._means.now()
            lent.wordless_bytes += len(pcm)
            self._watch_for_words(lent, self._open)

    def finish(self) -> None:
        """End the open utterance: its `Final`, or `Failed`, is told as soon as it can be."""
        utterance, self._open = self._open, None
        if utterance is None:
            return
        utterance.over = True
        if self._lent is not None and self._lent.stream is not None:
            self._expect(utterance, self._lent)
            self._lent.stream.finish()
        elif self._replacing is None:
            self._replace(None)

    def give_up(self, utterance: UtteranceId) -> None:
        """Nobody waits for the words of `utterance` any more."""
        if utterance in self._unknown and (lent := self._lent or self._latest) is not None:
            attempt = max(1, self._course.attempts) if self._course is not None else 1
            self._record(lent, Transient("no words in time", "first-byte"), attempt, None)
        self._forget(utterance)
        if self._lent is not None and self._lent.stream is not None:
            self._lent.stream.give_up(utterance)

    def settle(self) -> None:
        """Enter into the meter all that was used so far."""
        if self._lent is not None:
            self._charge(self._lent)

    async def aclose(self) -> None:
        """Give the ear back; nothing is told after this."""
        self._closed = True
        for deadline in self._deadlines.values():
            deadline.cancel()
        if self._replacing is not None:
            self._replacing.cancel()
            await asyncio.gather(self._replacing, return_exceptions=True)
        self._return()
        await asyncio.gather(*self._letting_go, return_exceptions=True)
        self._latest = None  # its stream knows this relay

    # --- what the provider tells --------------------------------------------------------------------------------------

    def _on_heard(self, serial: int, heard: Heard) -> None:
        lent = self._lent
        if self._closed or lent is None or lent.serial != serial:
            return
        if lent.stream is None:
            lent.early.append(heard)
            return
        if not lent.listening and not isinstance(heard, Lost | Failed):
            lent.listening = True
            owed_s, lent.unbilled_s = lent.unbilled_s, 0.0
            self._use(lent, owed_s)
        match heard:
            case Lost(error=error):
                self._replace(error)
            case Billed(audio_s=audio_s):
                self._use(lent, audio_s - lent.billed_s)
                lent.billed_s = max(lent.billed_s, audio_s)
            case Failed(utterance=utterance, error=error):
                if utterance in self._unknown:
                    self._replace(error)
            case FinalWords(utterance=utterance):
                if utterance in self._unknown:
                    self._forget(utterance)
                    self._prove(lent)
                    self._tell(heard)
            case Partial(utterance=utterance, text=text):
                lent.wordless_bytes = 0 if text else lent.wordless_bytes
                if utterance in self._unknown:
                    self._tell(heard)
            case TurnOver():
                self._tell(heard)

    def _prove(self, lent: _Lent) -> None:
        """The provider works: whatever was wrong before is mended."""
        self._course = None
        if not lent.proven:
            lent.proven = True
            self._means.health.answered(self._label(lent))

    def _watch_for_words(self, lent: _Lent, utterance: _Utterance) -> None:
        if not lent.capabilities.interim_results or utterance.replaced_for_silence:
            return
        # Audio that is heard again comes faster than anybody finds words in it: its time alone is no reason.
        wordless_ms = round(1_000 * min(lent.wordless_bytes / BYTES_PER_S, self._means.now() - lent.wordless_since))
        if not _may_be_dead(lent) and not self._has_others(lent):
            return
        if wordless_ms >= self._lenders[lent.lender].choice.timeouts.stall_ms:
            utterance.replaced_for_silence = True  # two ears that hear no words are right
            self._replace(Transient(f"no words in {wordless_ms} ms of voice", "silent"))

    def _expect(self, utterance: _Utterance, lent: _Lent, waited_ms: int = 0) -> None:
        """Wait for the words of `utterance`: as long again when there is nobody else to ask."""
        first_ms = self._lenders[lent.lender].choice.timeouts.first_ms
        loop = asyncio.get_running_loop()
        self._deadlines[utterance.id] = loop.call_later(
            first_ms / 1_000, self._late, utterance, lent, waited_ms + first_ms
        )

    def _late(self, utterance: _Utterance, lent: _Lent, waited_ms: int) -> None:
        del self._deadlines[utterance.id]
        if self._lent is not lent:
            return
        again = waited_ms > self._lenders[lent.lender].choice.timeouts.first_ms
        if self._has_others(lent) or (again and _may_be_dead(lent)):
            self._replace(Transient(f"no final words {waited_ms} ms after the utterance", "first-byte"))
        elif not again:
            self._expect(utterance, lent, waited_ms)

    def _has_others(self, lent: _Lent) -> bool:
        health = self._means.health
        at = self._means.now()
        return any(
            number != lent.lender and health.admits(label_of(lender.choice)) and not self._memory.suspect(number, at)
            for number, lender in enumerate(self._lenders)
        )

    # --- changing ears ------------------------------------------------------------------------------------------------

    def _replace(self, error: ProviderError | None) -> None:
        """Leave the ear there is, because of `error`, for another one."""
        lent = self._lent
        means, at = self._means, self._means.now()
        if self._course is None or self._course.expired(at):
            firsts = tuple(lender.choice.timeouts.first_ms / 1_000 for lender in self._lenders)
            self._course = Course(firsts, means.rules, self._memory, at, random.random)
            if lent is not None:
                self._course.began(lent.lender)
        if lent is not None and error is not None:
            means.health.failed(self._label(lent), error, midway=lent.proven)
            self._course.failed(lent.lender, error, at)
            lent.proven = True  # accounted for
        self._return()
        self._go_on(lent, error)

    def _go_on(self, lent: _Lent | None, error: ProviderError | None) -> None:
        course = self._course
        step = course.next(self._means.now(), self._admits) if course is not None else None
        if course is not None and lent is not None and error is not None:
            self._record(lent, error, course.attempts - (step is not None), None if step is None else step.candidate)
        if step is None:
            self._course = None
            self._fail_all(error or Transient("no provider may be asked: all failed lately", "breaker-open"))
            return
        self._replacing = asyncio.create_task(self._change(step.candidate, step.wait_s), name="change of ears")

    async def _change(self, number: int, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        if not self._admits(number):  # another call finds out, or has, meanwhile
            self._replacing = None
            self._go_on(None, None)
            return
        try:
            lent = await self._borrow(number)
        except Unusable as error:
            self._replacing = None
            at, refused = self._means.now(), Transient(str(error), "connect")
            lost = _Lent(number, -1)
            if self._course is not None:
                self._course.failed(number, refused, at)
            self._means.health.failed(self._label(lost), refused)
            self._go_on(lost, refused)
            return
        self._replacing = None
        self._catch_up(lent)

    def _catch_up(self, lent: _Lent) -> None:
        """Have an ear hear what it has missed, and take what it told meanwhile."""
        stream = lent.stream
        if stream is None:
            return
        for utterance in [*self._unknown.values()]:
            stream.begin(utterance.id)
            self._push(lent, stream, b"".join(utterance.pcm), voiced=True)
            if utterance.over and self._lent is lent:
                self._expect(utterance, lent)
                stream.finish()
            if self._lent is not lent:  # it failed at once
                return
        for heard in lent.early:
            self._on_heard(lent.serial, heard)

    async def _borrow(self, number: int) -> _Lent:
        self._serial += 1
        serial = self._serial
        lent = self._lent = _Lent(number, serial)
        self._means.health.began(self._label(lent))
        try:
            lent.stream, lent.capabilities = await self._lenders[number].open(
                lambda heard: self._on_heard(serial, heard)
            )
        except BaseException:
            self._lent = None
            self._means.health.abandoned(self._label(lent))
            raise
        return lent

    def _return(self) -> None:
        lent, self._lent = self._lent, None
        self._latest = lent or self._latest
        for deadline in self._deadlines.values():
            deadline.cancel()
        self._deadlines.clear()
        if lent is None or lent.stream is None:
            return
        self._charge(lent)
        if not lent.proven:
            self._means.health.abandoned(self._label(lent))
        task = asyncio.create_task(self._let_go(lent.stream), name="return of an ear")
        self._letting_go.add(task)
        task.add_done_callback(self._letting_go.discard)

    async def _let_go(self, stream: SttStream) -> None:
        try:
            await stream.aclose()
        except Exception:
            log.exception("ear not given back")

    def _fail_all(self, error: ProviderError) -> None:
        for utterance in [*self._unknown.values()]:
            if utterance.over:
                self._forget(utterance.id)
                self._tell(Failed(utterance.id, error))

    # --- odds and ends ------------------------------------------------------------------------------------------------

    def _push(self, lent: _Lent, stream: SttStream, pcm: bytes, *, voiced: bool) -> None:
        stream.push(pcm, voiced=voiced)
        if not lent.capabilities.usage:
            lent.uncharged_bytes += len(pcm)
            if lent.uncharged_bytes >= BYTES_PER_S or self._lent is not lent:
                self._charge(lent)

    def _charge(self, lent: _Lent) -> None:
        owed_bytes, lent.uncharged_bytes = lent.uncharged_bytes, 0
        self._use(lent, owed_bytes / BYTES_PER_S)

    def _use(self, lent: _Lent, audio_s: float) -> None:
        if not lent.listening:  # who may never have been reached is not paid
            lent.unbilled_s += audio_s
        elif audio_s > 0:
            choice = self._lenders[lent.lender].choice
            guessed = not lent.capabilities.usage
            model = choice.model or lent.capabilities.model
            self._means.meter.add(choice, Quantities(audio_s=audio_s), model=model, estimated=guessed)

    def _forget(self, utterance: UtteranceId) -> None:
        self._unknown.pop(utterance, None)
        if (deadline := self._deadlines.pop(utterance, None)) is not None:
            deadline.cancel()

    def _admits(self, number: int) -> bool:
        return self._means.health.admits(label_of(self._lenders[number].choice))

    def _label(self, lent: _Lent) -> str:
        return label_of(self._lenders[lent.lender].choice)

    def _record(self, lent: _Lent, error: ProviderError, attempt: int, following: int | None) -> None:
        choice = self._lenders[lent.lender].choice
        waiting = any(utterance.over for utterance in self._unknown.values())
        then: Literal["retry", "fallback", "apology", "nothing"] = "retry" if following == lent.lender else "fallback"
        if following is None:
            then = "apology" if waiting else "nothing"
        self._means.failed(
            ProviderFailed(
                stage="stt",
                provider=label_of(choice),
                model=choice.model,
                kind=error.kind,
                text=str(error),
                attempt=attempt,
                then=then,
                to="" if following is None else label_of(self._lenders[following].choice),
            )
        )


def _may_be_dead(lent: _Lent) -> bool:
    """Tell whether a new stream at the same provider may help: a socket may have died, a batch is only late."""
    return not lent.capabilities.needs_vad_segments
