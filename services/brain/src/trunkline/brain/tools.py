"""What an agent can do: finds installed tools and runs them, each bounded in time, size and threads.

It knows nothing of models or conversations. A tool is any function ``(arguments, call) -> JSON-able``, sync or async,
installed as an entry point of the group ``trunkline.tools``; `ToolCallInfo` shows what it can read from `call`. A sync
tool runs in a thread of its own, because it may block.
"""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from importlib.metadata import entry_points
from typing import Any, Final, Protocol, cast

import msgspec

from trunkline.brain.errors import ToolFailed
from trunkline.brain.threads import NoRoom, Threads, tame
from trunkline.proto.agent import Agent, Tool
from trunkline.proto.ids import CallId, ToolCallId, TurnId
from trunkline.providers.errors import Misconfigured

log = logging.getLogger("trunkline.brain.tools")

ENTRY_POINTS: Final = "trunkline.tools"
MAX_RESULT_BYTES: Final = 16_384
"""A result goes into the model's prompt and into an event; more than this helps neither."""
MAX_THREADS: Final = 64
"""Sync tools at once in a process. A thread cannot be killed, so those that never return keep their place."""


class ToolCallInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Which tool call this is."""

    call: CallId
    turn: TurnId
    tool_call: ToolCallId
    tenant: str = "default"

    @property
    def idempotency_key(self) -> str:
        """The same whenever this tool call is tried again, by whichever process. Act once per key."""
        return f"{self.call}:{self.turn}:{self.tool_call}"


ToolFunction = Callable[[dict[str, Any], ToolCallInfo], object | Awaitable[object]]


class Found(Protocol):
    """An `EntryPoint`, or what looks like one."""

    @property
    def name(self) -> str:
        """The name an agent gives."""
        ...

    @property
    def value(self) -> str:
        """Where it is, as ``module:function``."""
        ...

    def load(self) -> object:
        """Return the function."""
        ...


class InstalledTools:
    """The tools that this process could offer.

    Args:
        installed: entry points to offer instead of the installed ones; imported already where calls are held.
    """

    def __init__(self, installed: Iterable[Found] | None = None) -> None:
        found: Iterable[Found] = entry_points(group=ENTRY_POINTS) if installed is None else installed
        self._points = {point.name: point for point in found}
        self._threads = Threads(MAX_THREADS)

    def names(self) -> list[str]:
        """Return the names an agent may give as ``tools[].name``."""
        return sorted(self._points)

    def open(self, agent: Agent) -> "AgentTools":
        """Return the tools of `agent`, imported.

        Raises:
            Misconfigured: one is not installed, is listed twice or cannot be imported; names it by its place.
        """
        functions: dict[str, tuple[Tool, ToolFunction]] = {}
        for at, tool in enumerate(agent.tools):
            setting = f"tools[{at}].name"
            point = self._points.get(tool.name)
            if point is None:
                there = ", ".join(self.names()) or "none"
                raise Misconfigured(setting, f"no tool {tool.name!r} is installed; installed are: {there}")
            if tool.name in functions:
                raise Misconfigured(setting, f"{tool.name!r} is listed twice")
            try:
                functions[tool.name] = tool, cast("ToolFunction", point.load())
            except Exception as error:
                raise Misconfigured(setting, f"{tool.name!r} ({point.value}) cannot be imported: {error}") from error
        return AgentTools(functions, self._threads)


class AgentTools:
    """The tools of one agent."""

    def __init__(self, functions: Mapping[str, tuple[Tool, ToolFunction]], threads: Threads) -> None:
        self._functions = functions
        self._threads = threads

    async def run(self, name: str, arguments: str, call: ToolCallInfo) -> str:
        """Run a tool once; return its result as JSON text.

        Args:
            name: as in the agent file.
            arguments: JSON text, as a model wrote it.
            call: which call of the tool this is.

        Cancelling cancels an async tool where it waits, and leaves a sync one running unheard. So do not cancel
        because the caller spoke: what a tool does is not undone by that.

        Raises:
            ToolFailed: there is no result; the text can be told to the model.
        """
        found = self._functions.get(name)
        if found is None:
            raise ToolFailed(f"There is no tool {name!r}. There are: {', '.join(self._functions) or 'none'}.")
        tool, function = found
        limit = asyncio.timeout(tool.timeout_s)
        cancellations = _cancellations()
        try:
            given = _checked(arguments, tool.parameters)
            async with limit:
                result = await self._result_of(function, given, call)
        except ToolFailed:
            raise
        except asyncio.CancelledError as error:
            if _cancellations() > cancellations:
                raise
            raise _unexpected(name, error, call) from error
        except NoRoom as error:
            raise ToolFailed("Too many tools are running. Try again later.") from error
        except TimeoutError as error:
            if limit.expired():
                text = f"{name} took longer than {tool.timeout_s:g} s. Whether it had an effect is not known."
                raise ToolFailed(text) from error
            raise _unexpected(name, error, call) from error
        except ValueError as error:
            # A tool's way to say what is wrong with its arguments, which a model can mend.
            raise ToolFailed(f"{name} refused: {error}") from error
        except Exception as error:
            raise _unexpected(name, error, call) from error
        return _encoded(name, result, call)

    async def _result_of(self, function: ToolFunction, arguments: dict[str, Any], call: ToolCallInfo) -> object:
        if not inspect.iscoroutinefunction(function):
            result = await self._threads.run(lambda: function(arguments, call))
            if not inspect.isawaitable(result):
                return result
            return await _alone(lambda: result)
        return await _alone(lambda: cast("Awaitable[object]", function(arguments, call)))


async def _alone(function: Callable[[], Awaitable[object]]) -> object:
    """Await what `function` returns in a task of its own, which is all that it can cancel; cancelling cancels it."""

    async def tamed() -> object:
        try:
            return await function()
        except (Exception, asyncio.CancelledError):
            raise
        except BaseException as error:
            # A task that ends by SystemExit takes the loop, and with it every call, along.
            raise tame(error) from error

    return await asyncio.create_task(tamed(), name="tool")


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def _checked(arguments: str, schema: Mapping[str, object]) -> dict[str, Any]:
    """Return the arguments; check what models get wrong most: no object, missing or unknown names, wrong types."""
    try:
        given = msgspec.json.decode(arguments or "{}")
    except (ValueError, RecursionError) as error:
        raise ToolFailed(f"The arguments are no JSON: {error}.") from error
    if not isinstance(given, dict):
        raise ToolFailed("The arguments must be one JSON object.")
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    required = schema.get("required")
    missing = [name for name in required if name not in given] if isinstance(required, list) else []
    if missing:
        raise ToolFailed(f"Arguments are missing: {', '.join(missing)}.")
    unknown = [name for name in given if name not in properties]
    if unknown and schema.get("additionalProperties") is False:
        raise ToolFailed(f"There are no arguments {', '.join(unknown)}.")
    for name, value in given.items():
        rule = properties.get(name)
        if isinstance(rule, dict) and not _is(value, rule.get("type")):
            raise ToolFailed(f"The argument {name} must be of type {rule['type']}.")
        if isinstance(rule, dict) and isinstance(rule.get("enum"), list) and value not in rule["enum"]:
            raise ToolFailed(f"The argument {name} must be one of {', '.join(map(str, rule['enum']))}.")
    return given


def _is(value: object, kind: object) -> bool:
    kinds = kind if isinstance(kind, list) else [kind]
    allowed = [python for name in kinds for python in _TYPES.get(str(name), (object,))]
    if isinstance(value, bool):
        return bool in allowed or object in allowed
    return isinstance(value, tuple(allowed))


def _encoded(name: str, result: object, call: ToolCallInfo) -> str:
    try:
        encoded = msgspec.json.encode(result)
    except Exception as error:  # a result may be nested without end, or run code of its own when it is read
        raise _unexpected(name, error, call) from error
    if len(encoded) > MAX_RESULT_BYTES:
        raise ToolFailed(f"The result of {name} is too long: {len(encoded)} bytes, {MAX_RESULT_BYTES} at most.")
    return encoded.decode()


def _unexpected(name: str, error: BaseException, call: ToolCallInfo) -> ToolFailed:
    # The text of an unforeseen error may hold what neither model nor caller should hear: it goes to the log alone.
    log.error("tool failed", extra={"call": call.call, "tool": name, "tool_call": call.tool_call}, exc_info=error)
    return ToolFailed(f"{name} failed unexpectedly.")
