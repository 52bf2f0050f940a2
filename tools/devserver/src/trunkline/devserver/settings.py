"""What the set-up is to be: command-line options first, then the environment."""

import argparse
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import msgspec

from trunkline.devserver.errors import BadOption
from trunkline.devserver.services import SERVICES, ServiceSpec, parse_workers

DEFAULT_PORT: Final = 8080
PUBLIC_URL: Final = "TRUNKLINE_EDGE_PUBLIC_URL"

_EPILOG: Final = """\
environment:
  TRUNKLINE_EDGE_PORT        as --port
  TRUNKLINE_EDGE_HOST        address the edge listens on (127.0.0.1)
  TRUNKLINE_NATS_URL         use this NATS instead of an embedded one
  TRUNKLINE_AGENTS           as --agents
  TRUNKLINE_EDGE_PUBLIC_URL  public address of a tunnel to the edge, as Twilio sees it
  NO_COLOR, FORCE_COLOR      colours never, colours always
Every other variable goes to the services as it is; TRUNKLINE_LOG_LEVEL=debug shows more.

examples:
  trunkline dev                        everything on http://127.0.0.1:8080
  trunkline dev --reload               new code takes over while live calls go on with the old
  trunkline dev --workers stt=2,tts=2  two processes hear, two speak
  trunkline dev --data ./var           keep events and streams over restarts
"""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A set-up to be."""

    services: tuple[ServiceSpec, ...] = SERVICES
    workers: dict[str, int] = {}
    """Processes per service where it is more than one."""
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    """Port of the edge; 0 for any."""
    port_is_fixed: bool = False
    """Whether another port will not do when this one is taken."""
    nats_url: str = ""
    """Empty: an embedded NATS."""
    data: Path | None = None
    """Folder for events and streams; None: a temporary one."""
    agents: Path | None = None
    reload: bool = False
    drain_s: float = 5.0
    """How long live calls may go on once the set-up is asked to stop."""
    note: bool = True
    """Whether to leave a note that other commands find us by."""
    environ: dict[str, str] = {}
    """Environment the services inherit."""


def plan_of(argv: Sequence[str] | None, environ: Mapping[str, str]) -> Plan:
    """Read command line and environment.

    Raises:
        BadOption: a value cannot be used.
        SystemExit: ``--help`` was asked for, or an option is unknown.
    """
    options = _parser().parse_args(argv)
    try:
        workers = parse_workers(options.workers)
    except ValueError as error:
        raise BadOption(f"--workers: {error}") from None
    agents = options.agents or environ.get("TRUNKLINE_AGENTS") or ""
    if agents and not Path(agents).is_dir():
        raise BadOption(f"the folder of agent files, {agents}, does not exist")
    port = _port(options.port, environ)
    return Plan(
        workers=workers,
        host=environ.get("TRUNKLINE_EDGE_HOST") or "127.0.0.1",
        port=DEFAULT_PORT if port is None else port,
        port_is_fixed=port is not None,
        nats_url=environ.get("TRUNKLINE_NATS_URL") or "",
        data=Path(options.data) if options.data else None,
        agents=Path(agents).resolve() if agents else find_agents(Path.cwd()),
        reload=options.reload,
        drain_s=options.drain_s,
        environ=dict(environ),
    )


def find_agents(start: Path) -> Path | None:
    """Return the folder ``agents`` in `start`, above it, or above this package; None if there is none."""
    spec = find_spec("trunkline.devserver")
    here = Path(spec.origin).resolve().parent if spec is not None and spec.origin else start
    for folder in (start.resolve(), *start.resolve().parents, *here.parents):
        if any((folder / "agents").glob("*.toml")):
            return folder / "agents"
    return None


def wants_colour(environ: Mapping[str, str], *, tty: bool) -> bool:
    """Return whether to write colours, as no-color.org and force-color.org have it."""
    if environ.get("NO_COLOR"):
        return False
    return tty or bool(environ.get("FORCE_COLOR"))


def _port(option: int | None, environ: Mapping[str, str]) -> int | None:
    raw = option if option is not None else environ.get("TRUNKLINE_EDGE_PORT") or None
    if raw is None:
        return None
    try:
        port = int(raw)
    except ValueError:
        port = -1
    if not 0 <= port <= 65_535:
        name = "--port" if option is not None else "TRUNKLINE_EDGE_PORT"
        raise BadOption(f"{name}={raw} is no port; expected 0 (any free one) to 65535")
    return port


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trunkline dev",
        description="Run all five services and an embedded NATS. Ctrl-C drains and stops all; twice kills.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--port", type=int, metavar="N", help="port of the edge, 0 for any (default: 8080, or the next free one)"
    )
    parser.add_argument("--reload", action="store_true", help="restart a service when its code changes")
    parser.add_argument(
        "--workers", default="", metavar="STT=2,...", type=str.lower, help="processes of stt, brain and tts (1 each)"
    )
    parser.add_argument("--data", metavar="DIR", help="keep events and streams here (default: a temporary folder)")
    parser.add_argument("--agents", metavar="DIR", help="folder of agent files (default: ./agents)")
    parser.add_argument(
        "--drain-s", type=float, default=5.0, metavar="S", help="how long live calls may go on after Ctrl-C (5)"
    )
    return parser
