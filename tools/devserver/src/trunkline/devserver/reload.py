"""Which services a change on disk concerns.

Pure but for `watched`, which asks Python where the packages are. The services are not imported: their settings and
models are none of our business.
"""

import importlib.metadata
import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

LIBRARIES: Final = ("trunkline.proto", "trunkline.audio", "trunkline.bus", "trunkline.runtime")
"""Every service is built on these."""
TOOLS_GROUP: Final = "trunkline.tools"
"""Entry points of agents' tools; they run in the brain."""


class Watched(msgspec.Struct, frozen=True):
    """Folders and files, and the services that run what is in them."""

    code: Mapping[Path, frozenset[str]]
    agents: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All that is to be watched."""
        return (*self.code, *((self.agents,) if self.agents is not None else ()))


class Concerned(msgspec.Struct, frozen=True):
    """What changed, as far as it matters."""

    services: frozenset[str] = frozenset()
    agents: tuple[str, ...] = ()
    """Names of agent files."""


def watched(modules: Mapping[str, str], agents: Path | None) -> Watched:
    """Return what to watch for services given as name → module, and the folder of agent files."""
    code: dict[Path, frozenset[str]] = {}
    everybody = frozenset(modules)
    for name, module in modules.items():
        _add(code, module, frozenset({name}))
    for library in LIBRARIES:
        _add(code, library, everybody)
    if "brain" in modules:
        for entry in importlib.metadata.entry_points(group=TOOLS_GROUP):
            _add(code, entry.module, frozenset({"brain"}))
    return Watched(code, agents if agents is not None and agents.is_dir() else None)


def concerned(changed: Iterable[Path], what: Watched) -> Concerned:
    """Return whom a change of the files `changed` concerns: code by service, agent files by name."""
    services: set[str] = set()
    agents: set[str] = set()
    for path in changed:
        if path.suffix == ".py":
            services.update(*(who for root, who in what.code.items() if path == root or root in path.parents))
        elif what.agents is not None and path.parent == what.agents and path.suffix == ".toml":
            agents.add(path.stem)
    return Concerned(frozenset(services), tuple(sorted(agents)))


def _add(code: dict[Path, frozenset[str]], module: str, who: frozenset[str]) -> None:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return
    origin = Path(spec.origin).resolve()
    root = origin.parent if origin.name == "__init__.py" else origin
    code[root] = code.get(root, frozenset()) | who
