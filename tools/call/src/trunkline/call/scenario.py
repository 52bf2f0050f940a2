"""A scenario: who calls, what they do, and what should come of it. Typed, strict, read from TOML.

The reference is this distribution's README. Nothing here knows how a call is placed or judged.
"""

import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from trunkline.call.errors import BadScenario

Seconds = Annotated[float, Meta(gt=0, le=3_600)]
Words = Annotated[str, Meta(min_length=1, max_length=1_000)]
Number = Annotated[str, Meta(pattern=r"^\+?[0-9]{3,15}$")]


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Voice(_Strict, frozen=True):
    """Who calls, how they sound, and over which line."""

    voice: Words = "en-us"
    speed: Annotated[float, Meta(ge=0.5, le=2)] = 1.0
    pitch: Annotated[int, Meta(ge=0, le=99)] = 50
    from_number: Number = msgspec.field(name="from", default="+15550100")
    to_number: Number = msgspec.field(name="to", default="+15550199")
    noise_dbfs: Annotated[float, Meta(ge=-90, le=-20)] = -60.0


class WaitForAgent(_Strict, frozen=True):
    """Until the agent has spoken and then been quiet. `timeout_s` is how long it may take to begin."""

    quiet_ms: Annotated[int, Meta(ge=100, le=10_000)] = 800
    timeout_s: Seconds = 15.0


class BargeIn(_Strict, frozen=True):
    """Speak over the agent, `after_s` after its audio began. `timeout_s` is how long it may take to begin."""

    say: Words
    after_s: Annotated[float, Meta(ge=0, le=60)] = 1.0
    timeout_s: Seconds = 15.0


class Step(_Strict, frozen=True):
    """One action; exactly one of the fields is set (`words` accompanies `wav`)."""

    say: Words | None = None
    wav: Words | None = None
    wait_for_agent: WaitForAgent | None = None
    barge_in: BargeIn | None = None
    press: Annotated[str, Meta(pattern=r"^[0-9*#A-D]{1,64}$")] | None = None
    silence_s: Seconds | None = None
    wait_for_end_s: Seconds | None = None
    hang_up: Literal[True] | None = None
    words: Words | None = None

    def __post_init__(self) -> None:
        """Refuse a step that is no action, or more than one."""
        actions = [name for name in self.__struct_fields__ if name != "words" and getattr(self, name) is not None]
        if len(actions) != 1:
            found = " and ".join(actions) or "none"
            known = ", ".join(name for name in self.__struct_fields__ if name != "words")
            raise ValueError(f"a step is exactly one of {known}; found {found}")
        if self.words is not None and self.wav is None:
            raise ValueError("`words` says what is in a `wav`; it stands beside one only")

    @property
    def action(self) -> str:
        """The name of what it does."""
        return next(name for name in self.__struct_fields__ if getattr(self, name) is not None)

    @property
    def passive(self) -> bool:
        """Whether nothing of it is missed when the agent hangs up first."""
        return self.action in ("wait_for_agent", "silence_s", "wait_for_end_s", "hang_up")


class Expect(_Strict, frozen=True):
    """What is judged at the end; None is not judged."""

    agent_speaks_within_s: Seconds | None = None
    answers_within_s: Seconds | None = None
    agent_speech_at_least_s: Seconds | None = None
    stops_within_ms: Annotated[int, Meta(gt=0, le=60_000)] | None = None
    agent_hangs_up_within_s: Seconds | None = None
    word_error_rate_at_most: Annotated[float, Meta(ge=0, le=1)] | None = None
    tools: tuple[str, ...] | None = None
    ended_reason: str | None = None
    agent_says: tuple[Words, ...] = ()


class Scenario(_Strict, frozen=True):
    """A call as its caller lives it."""

    name: Words
    steps: Annotated[tuple[Step, ...], Meta(min_length=1, max_length=200)]
    description: str = ""
    agent: str | None = None
    max_s: Seconds = 90.0
    caller: Voice = Voice()
    expect: Expect = Expect()


def parse_scenario(text: str, origin: str) -> Scenario:
    """Read a scenario from TOML; `origin` names it in errors.

    Raises:
        BadScenario: it is no TOML, has an unknown key, or a wrong value.
    """
    try:
        return msgspec.convert(tomllib.loads(text), Scenario)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise BadScenario(f"{origin}: {error}") from error


def load_scenario(path: Path) -> Scenario:
    """Read the scenario at `path`. Its WAV files are relative to it.

    Raises:
        BadScenario: as for `parse_scenario`, or it cannot be opened.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadScenario(f"{path}: {error}") from error
    scenario = parse_scenario(text, str(path))
    steps = tuple(
        step if step.wav is None else msgspec.structs.replace(step, wav=str(path.parent / step.wav))
        for step in scenario.steps
    )
    return msgspec.structs.replace(scenario, steps=steps)


def built_in_scenarios() -> Sequence[str]:
    """Return the names of the scenarios that come with this tool."""
    folder = resources.files("trunkline.call") / "scenarios"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def find_scenario(name: str) -> Scenario:
    """Return the built-in scenario `name`, or else the one in the file of that path.

    Raises:
        BadScenario: there is neither, or it cannot be read.
    """
    if name in built_in_scenarios():
        with resources.as_file(resources.files("trunkline.call") / "scenarios" / f"{name}.toml") as path:
            return load_scenario(path)
    path = Path(name)
    if not path.exists():
        known = ", ".join(built_in_scenarios())
        raise BadScenario(f"{name} is neither a file nor a built-in scenario ({known})")
    return load_scenario(path)
