"""The providers of one stage in one process: held against what the agents need, made when needed, warmed when it rings.

A worker that is given the agents' folder says at its start what it lacks, before any caller finds out.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

from trunkline.agents import AgentFileError, AgentFolder
from trunkline.proto.agent import Agent, Choice
from trunkline.providers.errors import Misconfigured, Unavailable, Unusable
from trunkline.runtime.plugins import NoPlugin, Plugin, PluginError, Plugins
from trunkline.runtime.settings import SettingsError

log = logging.getLogger("trunkline.providers")

MOST_WARMING: Final = 8
WARMING_S: Final = 2.0

C = TypeVar("C", bound=Choice)
C_contra = TypeVar("C_contra", bound=Choice, contravariant=True)


class Warmable(Plugin, Protocol[C_contra]):
    """A provider, as far as a roster knows it."""

    async def warm(self, choice: C_contra, /) -> None:
        """Open what can be opened before a call."""
        ...


P = TypeVar("P", bound=Warmable)  # type: ignore[type-arg] # its choices are C, which a bound cannot say


class Roster(Generic[P, C]):
    """One stage's.

    Args:
        table: the stage's name in agent files: ``stt``, ``llm``, ``tts``.
        plugins: where providers are found.
        choices: an agent's, in its order of preference.
        check: asks a provider whether it can serve an agent's choice; raises `Unusable` if not.
    """

    def __init__(
        self,
        table: str,
        plugins: Plugins[P],
        choices: Callable[[Agent], tuple[C, ...]],
        check: Callable[[P, Agent, C], None],
    ) -> None:
        self._table = table
        self._plugins = plugins
        self._choices = choices
        self._check = check
        self._warming: set[asyncio.Task[None]] = set()
        self.not_warmed = 0
        """How often warming failed, or took too long."""

    @property
    def names(self) -> list[str]:
        """What can be asked for."""
        return self._plugins.names()

    async def get(self, name: str) -> P:
        """Return the provider `name`; its first use imports it, in a thread.

        Raises:
            Misconfigured: there is none of that name.
            Unavailable: it cannot be imported or made.
        """
        setting = f"{self._table}.provider"
        try:
            return await self._plugins.load(name)
        except NoPlugin as error:
            raise Misconfigured(setting, str(error).removeprefix(f"{setting}: ")) from error
        except PluginError as error:
            raise Unavailable(str(error)) from error

    async def meet(self, folder: str, environ: Mapping[str, str]) -> set[str]:
        """Check that all that the agents of `folder` need is here, and warm it; return the names of their providers.

        A folder that is not given, or that cannot be read, asks for nothing: it is the edge that insists on its files.

        Raises:
            SettingsError: something is not; a line for each thing, with the settings and the agents that need it.
        """
        needed_by: dict[tuple[str, str], list[str]] = {}
        used: dict[tuple[str, str], C] = {}
        for agent in _agents_in(folder, environ):
            for number, choice in enumerate(self._choices(agent)):
                used.setdefault((choice.provider, choice.endpoint), choice)
                where = f"{self._table}.provider" if not number else f"{self._table}.fallbacks[{number - 1}].provider"
                if (problem := await self._problem(agent, choice)) is not None:
                    needed_by.setdefault((problem, f"{where} = {choice.provider!r}"), []).append(agent.name)
        if needed_by:
            raise SettingsError(
                "\n".join(
                    f"{problem}; needed by {where} of {_named(agents)}"
                    for (problem, where), agents in needed_by.items()
                )
            )
        # The first request of an SDK takes hundreds of milliseconds of the loop: better now than in a call.
        await asyncio.gather(*(self._warm(choice) for choice in used.values()))
        return {name for name, _ in used}

    def ring(self, agent: Agent) -> None:
        """A call for `agent` is about to come: have its first provider open what it can. Never waits, never fails."""
        if len(self._warming) < MOST_WARMING:
            task = asyncio.create_task(self._warm(self._choices(agent)[0]), name="warming")
            self._warming.add(task)
            task.add_done_callback(self._warming.discard)

    async def aclose(self) -> None:
        """Close every provider that was made."""
        for task in self._warming:
            task.cancel()
        await asyncio.gather(*self._warming, return_exceptions=True)
        await self._plugins.aclose()

    async def _problem(self, agent: Agent, choice: C) -> str | None:
        try:
            self._check(await self.get(choice.provider), agent, choice)
        except Unusable as error:
            return str(error)
        return None

    async def _warm(self, choice: C) -> None:
        try:
            async with asyncio.timeout(WARMING_S):
                await (await self.get(choice.provider)).warm(choice)
        except Exception:  # noqa: BLE001 - nothing is lost but time, and the call itself will tell what is wrong
            self.not_warmed += 1


def _agents_in(folder: str, environ: Mapping[str, str]) -> Iterable[Agent]:
    path = Path(folder)
    if not folder or not any(path.glob("*.toml")):
        return []
    agents = AgentFolder(path, environ)
    try:
        agents.load()
    except AgentFileError as error:
        log.warning("agents not looked at beforehand", extra={"problems": list(error.problems)})
    return [agent for name in agents.names if (agent := agents.get(name)) is not None]


def _named(names: list[str]) -> str:
    return ("agent " if len(names) == 1 else "agents ") + ", ".join(names)
