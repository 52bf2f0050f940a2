"""``trunkline events``: the facts of the stream EVENTS, from its beginning."""

import argparse
import re
import sys
from contextlib import aclosing

import msgspec
from rich.console import Console

from trunkline.bus import Bus, recorded
from trunkline.cli import screen, story
from trunkline.cli.settings import find_nats_url
from trunkline.proto.ids import CallId

_WITHIN_S = 5.0


def _call(value: str) -> CallId:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", value):
        raise argparse.ArgumentTypeError(f"{value!r} is no call id: 26 of a-z and 2-7")
    return CallId(value)


def parser() -> argparse.ArgumentParser:
    """Return what the command line may hold."""
    found = argparse.ArgumentParser(
        prog="trunkline events", description="Show what happened in all calls, or in one, from the stream's beginning."
    )
    found.add_argument("--follow", "-f", action="store_true", help="go on with what happens from now on")
    found.add_argument("--call", type=_call, metavar="ID", help="only this call")
    found.add_argument("--json", action="store_true", help="one line of JSON per event, as stored")
    found.add_argument(
        "--nats", default="", metavar="URL", help="where NATS is; else TRUNKLINE_NATS_URL, else trunkline dev"
    )
    return found


async def run(options: argparse.Namespace) -> None:
    """Print what was recorded; with ``--follow``, until interrupted.

    Raises:
        NoBus: nobody said where the bus is.
        BusUnavailable: it is not there, or has no stream.
    """
    console = Console()
    bus = await Bus.connect(
        find_nats_url(options.nats), name="events-cli", on_lost=lambda _why: None, within_s=_WITHIN_S
    )
    try:
        async with aclosing(recorded(bus, call=options.call, follow=options.follow)) as found:
            async for event in found:
                if options.json:
                    sys.stdout.write(msgspec.json.format(event.data, indent=-1).decode() + "\n")
                    sys.stdout.flush()
                else:
                    line = story.of_event(event.data)
                    screen.show(console, screen.row(line, event.wall_at, day=True, call=options.call is None))
    finally:
        await bus.close()
