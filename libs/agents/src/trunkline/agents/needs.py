"""What agents need of a process, checked before it takes calls: a worker that cannot serve them says so at its start.

Pure but for the files: what a provider needs is asked of `check`, and nothing is contacted.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from trunkline.agents.errors import AgentFileError
from trunkline.agents.folder import AgentFolder
from trunkline.proto.agent import Agent, Choice

log = logging.getLogger("trunkline.agents")

C = TypeVar("C", bound=Choice)


def agents_in(folder: str, environ: Mapping[str, str]) -> list[Agent]:
    """Return the agents of `folder` that can be read; none where it is not given or not there.

    It is the edge that insists on its files: a variable they are filled in from may be set for it alone.
    """
    path = Path(folder)
    if not folder or not any(path.glob("*.toml")):
        return []
    agents = AgentFolder(path, environ)
    try:
        agents.load()
    except AgentFileError as error:
        log.warning("agents not looked at beforehand", extra={"problems": list(error.problems)})
    return [agent for name in agents.names if (agent := agents.get(name)) is not None]


def unmet(
    agents: Iterable[Agent],
    choices: Callable[[Agent], Iterable[tuple[str, C]]],
    check: Callable[[Agent, C], str | None],
) -> list[str]:
    """Return a line for each thing agents need and cannot have, with the agents that need it.

    Args:
        agents: who is to be served.
        choices: the providers of an agent, each with its path in the agent file.
        check: why a provider cannot serve the agent, or None.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for agent in agents:
        for where, choice in choices(agent):
            if (problem := check(agent, choice)) is not None:
                needed_by = found.setdefault((problem, f"{where} = {choice.provider!r}"), [])
                needed_by.append(agent.name)
    return [f"{problem}; needed by {where} of {_named(names)}" for (problem, where), names in found.items()]


def _named(names: list[str]) -> str:
    return ("agent " if len(names) == 1 else "agents ") + ", ".join(names)
