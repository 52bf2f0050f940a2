"""Choose the command. The others are imported only when they are wanted: ``trunkline tail`` needs no model."""

import argparse
import asyncio
import difflib
import importlib
import importlib.metadata
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from trunkline.bus import BusError
from trunkline.cli import events, tail
from trunkline.cli.settings import NoBus

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2

_ELSEWHERE: Final = {"dev": "trunkline.devserver", "call": "trunkline.call", "demo": "trunkline.demo"}
_COMMANDS: Final = (*_ELSEWHERE, "tail", "events")

_HELP: Final = """\
usage: trunkline COMMAND [OPTIONS]

  dev      all five services and an embedded NATS; Ctrl-C stops them
  call     call a running deployment as Twilio would, and judge the call
  demo     a whole call, seen and heard: no keys, no network
  tail     what is said on the bus about one call or all, as it happens
  events   what happened in calls, from the record

trunkline COMMAND --help tells more; trunkline --version tells the version.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` names; return the exit code."""
    command, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    match command:
        case "-h" | "--help" | "help":
            print(_HELP, end="")
            return 0
        case "-V" | "--version":
            print(f"trunkline {importlib.metadata.version('trunkline-cli')}")
            return 0
        case "tail":
            return _watch(tail.parser(), tail.run, rest)
        case "events":
            return _watch(events.parser(), events.run, rest)
        case known if known in _ELSEWHERE:
            return _elsewhere(known, rest)
        case unknown:
            near = difflib.get_close_matches(unknown, _COMMANDS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            print(f"trunkline: no command {unknown!r}{hint}\n\n{_HELP}", end="", file=sys.stderr)
            return EXIT_USAGE


def _elsewhere(command: str, rest: list[str]) -> int:
    package = _ELSEWHERE[command]
    try:
        module = importlib.import_module(f"{package}.__main__")
    except ModuleNotFoundError as error:
        if error.name is None or not f"{package}.__main__".startswith(error.name):
            raise
        distribution = package.replace(".", "-")
        print(f"trunkline {command}: not installed here (pip install {distribution})", file=sys.stderr)
        return EXIT_FAILED
    code: int = module.main(rest)
    return code


def _watch(
    parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], Awaitable[None]], rest: list[str]
) -> int:
    options = parser.parse_args(rest)
    logging.basicConfig(level=logging.WARNING, format=f"{parser.prog}: %(message)s")

    async def work() -> None:
        await run(options)

    try:
        asyncio.run(work())
    except KeyboardInterrupt:
        return 0  # whoever watches ends it so
    except BrokenPipeError:
        # The reader (head, a pager) has seen enough; keep the interpreter from flushing into the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (NoBus, BusError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
