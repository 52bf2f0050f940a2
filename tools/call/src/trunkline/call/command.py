"""``trunkline call``: reads the command line, places the calls, prints the verdict."""

import argparse
import asyncio
import os
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path

from rich.console import Console
from rich.text import Text

from trunkline.bus import BusError
from trunkline.call.errors import CallToolError
from trunkline.call.place import Target, place_call
from trunkline.call.report import print_seen, print_summary, print_verdicts, write_files
from trunkline.call.scenario import Scenario, built_in_scenarios, find_scenario
from trunkline.call.seen import CallResult, Seen
from trunkline.call.speech import prepare_speech
from trunkline.testing.errors import CallFailed

PASSED, FAILED, NOT_PLACED, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0 if every expectation was met, 1 if not, 2 if the call could not be placed."""
    options = _parser().parse_args(argv)
    out, err = Console(), Console(stderr=True)
    target = Target(
        url=options.url or f"http://127.0.0.1:{os.environ.get('TRUNKLINE_EDGE_PORT') or 8080}",
        agent=options.agent,
        token=options.token or os.environ.get("TRUNKLINE_TWILIO_AUTH_TOKEN") or None,
        nats_url=options.nats,
    )
    try:
        scenario = find_scenario(options.scenario)
        if options.calls > 1:
            return asyncio.run(_many(target, scenario, options, out))
        return asyncio.run(_one(target, scenario, options, out))
    except CallFailed as error:
        err.print(Text(f"trunkline call: {error}", "red"), Text(_hint(error, target)), sep="\n", soft_wrap=True)
    except (CallToolError, BusError, OSError) as error:
        err.print(Text(f"trunkline call: {error}", "red"), soft_wrap=True)
    except KeyboardInterrupt:
        err.print("trunkline call: interrupted")
        return INTERRUPTED
    return NOT_PLACED


async def _one(target: Target, scenario: Scenario, options: argparse.Namespace, out: Console) -> int:
    def show(seen: Seen) -> None:
        print_seen(out, seen)

    result = await place_call(target, scenario, observe=None if options.quiet else show)
    if options.out:
        write_files(options.out, result)
    print_verdicts(out, result)
    return PASSED if result.passed else FAILED


async def _many(target: Target, scenario: Scenario, options: argparse.Namespace, out: Console) -> int:
    clips = await prepare_speech(scenario)
    calls = [place_call(target, scenario, clips=clips) for _ in range(options.calls)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    results: list[CallResult] = []
    failures: list[str] = []
    for number, outcome in enumerate(outcomes, 1):
        match outcome:
            case CallResult():
                results.append(outcome)
                if options.out:
                    write_files(options.out / f"{number:03}", outcome)
            case CallFailed() | BusError():
                failures.append(str(outcome))
            case _:
                raise outcome
    if not results:
        raise CallFailed(failures[0])
    if not options.quiet:
        for result in results:
            if not result.passed:
                print_verdicts(out, result)
    print_summary(out, results, failures)
    return PASSED if not failures and all(result.passed for result in results) else FAILED


def _hint(error: CallFailed, target: Target) -> str:
    """Return what to change."""
    if error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        if target.token is None:
            return "It wants signed requests: set TRUNKLINE_TWILIO_AUTH_TOKEN to its auth token, or give --token."
        return "The signature was refused: the token must be the deployment's, and the URL the one it is known by."
    if error.status is not None:
        return "The deployment answered, but not with a call: see what it logged, and which agents it has (--agent)."
    return "Is it running (make dev), and there? Say where with: trunkline call http://HOST:PORT"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trunkline call",
        description="Call a running deployment as Twilio would, play a scenario, and judge what was heard.",
        epilog="Exit code: 0 every expectation met, 1 some were not, 2 the call could not be placed."
        " The scenario format stands in tools/call/README.md.",
    )
    parser.add_argument(
        "url",
        nargs="?",
        metavar="URL",
        help="origin of the edge, or the full URL of a voice webhook (default: http://127.0.0.1:$TRUNKLINE_EDGE_PORT,"
        " port 8080 if that is not set)",
    )
    parser.add_argument(
        "--scenario",
        default="hello",
        metavar="FILE",
        help=f"a TOML file, or one of the built-in {', '.join(built_in_scenarios())} (default: %(default)s)",
    )
    parser.add_argument(
        "--agent", metavar="NAME", help="which agent answers (default: the scenario's, or the edge's choice)"
    )
    parser.add_argument(
        "--token",
        metavar="TOKEN",
        help="sign as Twilio does, with this auth token (default: $TRUNKLINE_TWILIO_AUTH_TOKEN, unseen by ps)",
    )
    parser.add_argument("--nats", metavar="URL", help="watch this bus, so that transcripts and tools are judged too")
    parser.add_argument("--calls", type=_count, default=1, metavar="N", help="that many calls at once, and a summary")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write call.wav (caller left, agent right) and call.json"
    )
    parser.add_argument("--quiet", action="store_true", help="print the verdict only")
    return parser


def _count(text: str) -> int:
    most = 1_000
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r}: give a number of calls from 1 to {most}")
    return int(text)
