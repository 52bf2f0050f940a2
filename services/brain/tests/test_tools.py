import asyncio
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from trunkline.brain.errors import ToolFailed
from trunkline.brain.imports import import_all
from trunkline.brain.tools import MAX_RESULT_BYTES, AgentTools, InstalledTools, ToolCallInfo
from trunkline.proto.agent import Agent, Tool
from trunkline.proto.ids import CallId, ToolCallId, TurnId
from trunkline.providers.errors import Misconfigured
from trunkline.testing.patience import PATIENCE_S

pytestmark = pytest.mark.unit

CALL = ToolCallInfo(call=CallId("call-1"), turn=TurnId(3), tool_call=ToolCallId("t3-1"))
SCHEMA: dict[str, object] = {
    "type": "object",
    "required": ["party"],
    "additionalProperties": False,
    "properties": {"party": {"type": "integer"}, "day": {"type": ["string", "null"]}, "size": {"enum": ["s", "l"]}},
}


def echo(arguments: dict[str, Any], call: ToolCallInfo) -> dict[str, Any]:
    return {**arguments, "key": call.idempotency_key, "thread": threading.current_thread() is threading.main_thread()}


async def echo_later(arguments: dict[str, Any], call: ToolCallInfo) -> dict[str, Any]:
    await asyncio.sleep(0)
    return echo(arguments, call)


def refuse(arguments: dict[str, Any], call: ToolCallInfo) -> object:
    raise ValueError(f"no day of the week: {arguments['day']} in {call.call}")


def crash(arguments: dict[str, Any], call: ToolCallInfo) -> object:
    raise RuntimeError(f"password=secret {arguments} {call}")


def exhausted(arguments: dict[str, Any], call: ToolCallInfo) -> object:
    raise StopIteration(arguments, call)


def long_winded(arguments: dict[str, Any], call: ToolCallInfo) -> str:
    return "x" * (MAX_RESULT_BYTES + len(arguments) + len(call.call))


def unsayable(arguments: dict[str, Any], call: ToolCallInfo) -> object:
    return {"arguments": arguments, "call": call, "what": object()}


def endless(arguments: dict[str, Any], call: ToolCallInfo) -> object:
    around: list[object] = [arguments, call.call]
    around.append(around)
    return around


class Unreadable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


ENDS = (SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit(), Unreadable())
"""What might end more than the tool that raises it."""


async def cancels_itself(arguments: dict[str, Any], call: ToolCallInfo) -> object:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)
    return arguments, call


async def never(arguments: dict[str, Any], call: ToolCallInfo) -> object:
    return await asyncio.get_running_loop().create_future() or (arguments, call)


RELEASE = threading.Event()


@pytest.fixture
def threads_may_hang() -> Iterator[None]:
    RELEASE.clear()
    yield
    RELEASE.set()


def stuck(arguments: dict[str, Any], call: ToolCallInfo) -> object:
    RELEASE.wait(PATIENCE_S)
    return arguments, call


def installed(**functions: str) -> InstalledTools:
    return InstalledTools([EntryPoint(name, value, "trunkline.tools") for name, value in functions.items()])


def with_tool(
    function: Callable[..., object], *, timeout_s: float = PATIENCE_S, schema: dict[str, object] | None = None
) -> AgentTools:
    tool = Tool(name="it", parameters=schema or {}, timeout_s=timeout_s)
    return AgentTools({"it": (tool, function)}, InstalledTools([])._threads)


def run(tools: AgentTools, arguments: str = "{}", name: str = "it") -> str:
    return asyncio.run(tools.run(name, arguments, CALL))


def failure(tools: AgentTools, arguments: str = "{}", name: str = "it") -> str:
    with pytest.raises(ToolFailed) as raised:
        run(tools, arguments, name)
    return str(raised.value)


def test_a_sync_tool_runs_in_a_thread_and_an_async_one_on_the_loop() -> None:
    assert run(with_tool(echo), '{"a": 1}') == '{"a":1,"key":"call-1:3:t3-1","thread":false}'
    assert run(with_tool(echo_later), '{"a": 1}') == '{"a":1,"key":"call-1:3:t3-1","thread":true}'


def test_no_arguments_are_an_empty_object() -> None:
    assert run(with_tool(lambda arguments, _: arguments), "") == "{}"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("{", "The arguments are no JSON"),
        ("[1]", "The arguments must be one JSON object."),
        ("{}", "Arguments are missing: party."),
        ('{"party": "four"}', "The argument party must be of type integer."),
        ('{"party": true}', "The argument party must be of type integer."),
        ('{"party": 4, "day": 5}', "The argument day must be of type"),
        ('{"party": 4, "size": "m"}', "The argument size must be one of s, l."),
        ('{"party": 4, "where": "here"}', "There are no arguments where."),
    ],
)
def test_what_models_get_wrong_is_told_to_them(arguments: str, text: str) -> None:
    assert failure(with_tool(echo, schema=SCHEMA), arguments).startswith(text)


def test_arguments_that_fit_pass() -> None:
    assert run(with_tool(lambda given, _: given, schema=SCHEMA), '{"party":4,"day":null}') == '{"party":4,"day":null}'


def test_a_tool_may_refuse_its_arguments_in_words() -> None:
    assert failure(with_tool(refuse), '{"day": "someday"}') == "it refused: no day of the week: someday in call-1"


def test_an_unforeseen_error_is_not_repeated_to_the_model() -> None:
    assert failure(with_tool(crash)) == "it failed unexpectedly."
    assert failure(with_tool(exhausted)) == "it failed unexpectedly."
    assert failure(with_tool(unsayable)) == "it failed unexpectedly."


@pytest.mark.parametrize("error", ENDS, ids=lambda error: type(error).__name__)
def test_whatever_ends_a_tool_ends_nothing_else(error: BaseException) -> None:
    def in_a_thread(*_: object) -> object:
        raise error

    async def on_the_loop(*_: object) -> object:
        await asyncio.sleep(0)
        raise error

    def returns_an_awaitable(*_: object) -> object:
        return on_the_loop()

    for function in (in_a_thread, on_the_loop, returns_an_awaitable):
        assert failure(with_tool(function)) == "it failed unexpectedly."


def test_a_tool_that_cancels_its_task_cancels_only_itself() -> None:
    assert failure(with_tool(cancels_itself)) == "it failed unexpectedly."


@pytest.mark.usefixtures("threads_may_hang")
@pytest.mark.parametrize("function", [never, stuck])
def test_whoever_waits_for_a_tool_can_be_cancelled(function: Callable[..., object]) -> None:
    async def story() -> None:
        waiting = asyncio.create_task(with_tool(function).run("it", "{}", CALL))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(story())


def test_a_result_nested_without_end_is_a_failure() -> None:
    assert failure(with_tool(endless)) == "it failed unexpectedly."


def test_arguments_that_cannot_be_read_at_all_are_a_failure() -> None:
    assert failure(with_tool(echo), "[" * 100_000).startswith("The arguments are no JSON")
    assert failure(with_tool(echo), '{"a": "\ud800"}').startswith("The arguments are no JSON")


def test_a_result_too_long_is_a_failure() -> None:
    assert failure(with_tool(long_winded)).startswith("The result of it is too long")


@pytest.mark.usefixtures("threads_may_hang")
def test_a_tool_that_takes_too_long_is_given_up_in_a_thread_or_not() -> None:
    text = "it took longer than 0.01 s. Whether it had an effect is not known."
    assert failure(with_tool(never, timeout_s=0.01)) == text
    assert failure(with_tool(stuck, timeout_s=0.01)) == text


def test_a_tool_the_agent_does_not_have_is_a_failure_not_a_crash() -> None:
    assert failure(with_tool(echo), name="other") == "There is no tool 'other'. There are: it."


def test_an_agent_s_tools_are_found_among_the_installed_ones() -> None:
    tools = installed(length="builtins:len", other="builtins:repr")
    assert tools.names() == ["length", "other"]
    opened = tools.open(Agent(name="a", tools=(Tool(name="other"),)))
    assert failure(opened, name="length") == "There is no tool 'length'. There are: other."


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("length", "gone"), "tools[1].name: no tool 'gone' is installed; installed are: broken, length"),
        (("length", "length"), "tools[1].name: 'length' is listed twice"),
        (("broken",), "tools[0].name: 'broken' (trunkline.nowhere:tool) cannot be imported"),
    ],
)
def test_a_tool_that_cannot_be_had_is_named_by_its_place(names: tuple[str, ...], text: str) -> None:
    agent = Agent(name="a", tools=tuple(Tool(name=name) for name in names))
    with pytest.raises(Misconfigured) as raised:
        installed(length="builtins:len", broken="trunkline.nowhere:tool").open(agent)
    assert str(raised.value).startswith(text)
    assert raised.value.setting == text.split(":", maxsplit=1)[0]


def test_the_demo_s_tools_are_installed() -> None:
    assert {"check_table", "book_table"} <= set(InstalledTools().names())


class Installed(EntryPoint):
    """An entry point whose import does what the test says. Tests have no modules that could be imported by name."""

    def load(self) -> object:
        return LOADS[self.name]()


HERE = threading.Event()
LOADS: dict[str, Callable[[], object]] = {
    "slow": lambda: HERE.wait(PATIENCE_S),
    "exits": lambda: exec("raise SystemExit(1)"),  # noqa: S102
    "broken": lambda: exec("raise RuntimeError('no licence')"),  # noqa: S102
    "length": lambda: len,
    "hangs": lambda: RELEASE.wait(PATIENCE_S),
    "hangs too": lambda: RELEASE.wait(PATIENCE_S),
}


@pytest.mark.usefixtures("threads_may_hang")
def test_installed_parts_are_imported_off_the_loop_and_one_that_fails_harms_no_other() -> None:
    async def story() -> InstalledTools:
        asyncio.get_running_loop().call_soon(HERE.set)  # which a blocked loop would not do
        points = [Installed(name, f"acme:{name}", "trunkline.tools") for name in LOADS]
        return InstalledTools([*await import_all(points[:-2]), *await import_all(points[-2:], within_s=0.1)])

    tools = asyncio.run(story())
    assert tools.names() == sorted(LOADS)
    tools.open(Agent(name="a", tools=(Tool(name="length"), Tool(name="slow"))))
    for name, problem in {
        "exits": "SystemExit was raised",
        "broken": "no licence",
        "hangs": "longer than 0.1 s",
        "hangs too": "longer than 0.1 s",
    }.items():
        for _ in range(2):
            with pytest.raises(Misconfigured, match=rf"{name}' \(acme:{name}\) cannot be imported: .*{problem}"):
                tools.open(Agent(name="a", tools=(Tool(name=name),)))
