"""Running the rules that adapters keep: what the conformance suites of the three stages share.

A rule is an async function that asks something of a provider; its name names it, its docstring states it, and it says
what it found by raising `Broken` (mostly through `require`). Needs no test framework; knows no stage.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, Final, TypeVar

LONGEST_S: Final = 120.0
"""How long one rule may take."""
_LINGER_S: Final = 1.0
"""How long what has been closed may take to end."""

_watched: ContextVar[set[asyncio.Task[Any]] | None] = ContextVar("watched", default=None)
S = TypeVar("S")
T = TypeVar("T")


class Broken(Exception):
    """A rule is not kept; the text says what was found."""


class NotConformant(Exception):
    """A provider does not keep a rule.

    Attributes:
        rule: name of the rule, a function of the suite.
        found: what was seen instead.
    """

    def __init__(self, rule: str, found: str) -> None:
        super().__init__(f"{rule}: {found}")
        self.rule = rule
        self.found = found


def require(kept: object, found: str) -> None:
    """Say that the rule is broken, and by what, unless it is `kept`.

    Raises:
        Broken: it is not.
    """
    if not kept:
        raise Broken(found)


async def keeps(rules: Sequence[Callable[[S], Awaitable[None]]], subject: S) -> None:
    """Try `rules` on `subject`, one after the other.

    Raises:
        NotConformant: for the first that is not kept; whatever else a rule raises counts as that too.
    """
    for rule in rules:
        name = getattr(rule, "__name__", repr(rule))
        try:
            async with asyncio.timeout(LONGEST_S):
                await rule(subject)
        except Broken as broken:
            raise NotConformant(name, str(broken)) from broken
        except TimeoutError as error:
            raise NotConformant(name, f"not over within {LONGEST_S:g} s") from error
        except Exception as error:
            raise NotConformant(name, f"raised {type(error).__name__}: {error}") from error


def stated(rule: Callable[..., object]) -> str:
    """Return the rule in words: the first paragraph of its docstring."""
    return (inspect.getdoc(rule) or "").partition("\n\n")[0].replace("\n", " ")


async def within(seconds: float, doing: Awaitable[T], what: str) -> T:
    """Return the outcome of `doing`, which must not take longer than `seconds`.

    Raises:
        Broken: it does; `what` says what it is.
    """
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await doing
    except TimeoutError:
        if not limit.expired():
            raise
        raise Broken(f"{what} takes longer than {seconds:g} s") from None


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Watch the tasks that the body starts, itself or through others; those of a server on the same loop are not seen.

    Raises:
        Broken: one is still running, a moment after the body.
    """
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    mine: set[asyncio.Task[Any]] = set()

    def noting(loop: asyncio.AbstractEventLoop, coro: Any, **settings: Any) -> asyncio.Future[Any]:
        task = asyncio.Task(coro, loop=loop, **settings) if before is None else before(loop, coro, **settings)
        noted = _watched.get()
        if noted is not None and isinstance(task, asyncio.Task):
            noted.add(task)
        return task

    token = _watched.set(mine)
    loop.set_task_factory(noting)
    try:
        yield
    finally:
        loop.set_task_factory(before)
        _watched.reset(token)
    running = {task for task in mine if not task.done()}
    if running:
        _, running = await asyncio.wait(running, timeout=_LINGER_S)
    require(not running, "still running: " + ", ".join(sorted(task.get_name() for task in running)))
