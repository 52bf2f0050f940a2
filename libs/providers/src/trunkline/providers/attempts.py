"""Ask one of several providers for a stream of things, whoever of them answers: the shell around `Course` and `Health`.

The same for an answer of a model and for a spoken sentence. Until the first thing has come, failures are repaired here;
from then on whoever uses the stream knows what of it was heard, so a failure is theirs to judge (`BrokeOff`).
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from trunkline.proto.agent import Choice, Timeouts
from trunkline.proto.events import ProviderFailed
from trunkline.proto.ids import Stage
from trunkline.providers.course import Course, Memory, RetryRules, Try
from trunkline.providers.errors import Kind, ProviderError, Transient
from trunkline.providers.health import Health, label_of

log = logging.getLogger("trunkline.providers")

T = TypeVar("T")
FIRST: Final[Kind] = "first-byte"
CLOSE_S: Final = 0.25
"""How long an attempt that nobody waits for any more may take to end before it is left to itself."""
_MOST_WAITING: Final = 8
"""Things that a provider may be ahead of whoever takes them."""


class AllFailed(ProviderError):
    """Nobody answered. `error` is what the last attempt failed of; None when no breaker let anybody be asked."""

    def __init__(self, error: ProviderError | None) -> None:
        super().__init__("no provider may be asked: all failed lately" if error is None else str(error))
        self.error = error
        self.kind = "breaker-open" if error is None else error.kind


class BrokeOff(ProviderError):
    """The answer of `candidate` ended in its midst."""

    def __init__(self, candidate: int, error: ProviderError) -> None:
        super().__init__(str(error), error.kind)
        self.candidate = candidate
        self.error = error


class Candidate(NamedTuple, Generic[T]):
    """A provider that may be asked."""

    choice: Choice
    timeouts: Timeouts
    start: Callable[[], AsyncGenerator[T, None]]
    """Begins one attempt; nothing is sent before its first step."""
    owing_since: Callable[[], float | None] = lambda: 0.0
    """Since when, in monotonic seconds, the provider has all it needs to go on; None while it waits for us to give it
    more to work on."""


class Attempts(Generic[T]):
    """The requests of one call to one stage's providers.

    Args:
        stage: for the records.
        health: of the process.
        rules: when to try again, and when to give up.
        now: monotonic seconds.
        failed: is told every failure, as a fact.
    """

    def __init__(
        self,
        stage: Stage,
        health: Health,
        rules: RetryRules,
        now: Callable[[], float],
        failed: Callable[[ProviderFailed], None],
    ) -> None:
        self._stage = stage
        self._health = health
        self._rules = rules
        self._now = now
        self._tell = failed
        self._memory = Memory()

    async def stream(
        self, candidates: Sequence[Candidate[T]], counts: Callable[[T], bool] = lambda _: True
    ) -> AsyncGenerator[tuple[int, T], None]:
        """Yield what the first candidate that answers streams, each thing with the candidate's place in the list.

        Args:
            candidates: in the order of preference.
            counts: whether a thing is part of the answer: the first that is ends the repairs, and each of them shows
                that the stream has not stalled.

        Raises:
            AllFailed: nobody answered within `RetryRules.give_up_s`.
            BrokeOff: the answer failed, or stalled, after its first part.
        """
        labels = [label_of(candidate.choice) for candidate in candidates]
        firsts = tuple(candidate.timeouts.first_ms / 1_000 for candidate in candidates)
        course = Course(firsts, self._rules, self._memory, self._now(), random.random)
        failure: tuple[int, ProviderError] | None = None
        untold = False
        while True:
            step = course.next(self._now(), lambda n: self._health.admits(labels[n]))
            if failure is not None and untold:
                self._record(candidates[failure[0]], failure[1], course.attempts - (step is not None), step, candidates)
                untold = False
            if step is None:
                if failure is None:
                    error = Transient("all providers failed lately; none is asked", "breaker-open")
                    self._record(candidates[0], error, 0, None, candidates)
                raise AllFailed(failure[1] if failure is not None else None)
            await asyncio.sleep(step.wait_s)
            if not self._health.admits(labels[step.candidate]):  # somebody else finds out, or has, meanwhile
                continue
            began = False
            try:
                async with contextlib.aclosing(self._attempt(candidates[step.candidate], step, counts)) as things:
                    async for thing in things:
                        began = began or counts(thing)
                        yield step.candidate, thing
            except ProviderError as error:
                self._health.failed(labels[step.candidate], error, midway=began)
                course.failed(step.candidate, error, self._now())
                if began:
                    self._record(candidates[step.candidate], error, course.attempts, None, candidates)
                    raise BrokeOff(step.candidate, error) from error
                failure, untold = (step.candidate, error), True
            else:
                return

    async def _attempt(
        self, candidate: Candidate[T], step: Try, counts: Callable[[T], bool]
    ) -> AsyncGenerator[T, None]:
        label = label_of(candidate.choice)
        since = self._now()
        kind, limit_s = FIRST, step.first_s
        settled = False
        coming: asyncio.Queue[T | _Over] = asyncio.Queue(_MOST_WAITING)
        # A task of its own for the whole attempt: time-outs and task groups of a library must not cross tasks.
        pump = asyncio.create_task(_pump(candidate.start, coming, label), name=f"attempt {label}")
        self._health.began(label)
        try:
            while not isinstance(thing := await self._next(coming, candidate, since, limit_s, kind), _Over):
                if counts(thing) and kind == FIRST:
                    kind, limit_s = "stall", candidate.timeouts.stall_ms / 1_000
                    self._health.first(label, self._now() - max(since, candidate.owing_since() or 0.0))
                yield thing
                if counts(thing):
                    since = self._now()
            if thing.error is not None:
                raise thing.error
            settled = True
            self._health.answered(label)
        except ProviderError:
            settled = True
            raise
        finally:
            if not settled:
                self._health.abandoned(label)
            pump.cancel()
            await asyncio.wait({pump}, timeout=CLOSE_S)
            if not pump.done():
                log.warning("attempt does not end", extra={"provider": label})

    async def _next(
        self, coming: "asyncio.Queue[T | _Over]", candidate: Candidate[T], since: float, limit_s: float, kind: Kind
    ) -> "T | _Over":
        """Return the next thing, or the end.

        Raises:
            Transient: none came for `limit_s`, not counting the time in which the provider waited for us.
        """
        while coming.empty():
            owing_since = candidate.owing_since()
            left_s = limit_s if owing_since is None else max(since, owing_since) + limit_s - self._now()
            if left_s <= 0:
                raise Transient(f"silent for {limit_s * 1_000:.0f} ms", kind)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, left_s)):
                    return await coming.get()
        return coming.get_nowait()

    def _record(
        self,
        candidate: Candidate[T],
        error: ProviderError,
        attempt: int,
        step: Try | None,
        candidates: Sequence[Candidate[T]],
    ) -> None:
        following = candidates[step.candidate] if step is not None else None
        same = following is candidate
        self._tell(
            ProviderFailed(
                stage=self._stage,
                provider=label_of(candidate.choice),
                model=candidate.choice.model,
                kind=error.kind,
                text=str(error),
                attempt=attempt,
                then="apology" if following is None else "retry" if same else "fallback",
                to="" if following is None else label_of(following.choice),
            )
        )


class _Over(NamedTuple):
    """The attempt has ended; well, if there is no error."""

    error: ProviderError | None


async def _pump(start: Callable[[], AsyncGenerator[T, None]], coming: "asyncio.Queue[T | _Over]", label: str) -> None:
    error: ProviderError | None = None
    try:
        async with contextlib.aclosing(start()) as things:
            async for thing in things:
                await coming.put(thing)
    except ProviderError as failure:
        error = failure
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        error = Transient("adapter broke: it was cancelled from within", "internal")
    except Exception as failure:
        log.exception("adapter broke", extra={"provider": label})
        error = Transient(f"adapter broke: {type(failure).__name__}", "internal")
    await coming.put(_Over(error))
