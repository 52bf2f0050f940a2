"""``trunkline tail``: a call as it happens, as a story."""

import argparse
import asyncio
from typing import Any, Final

from rich.console import Console

from trunkline.bus import Bus, BusUnavailable
from trunkline.cli import screen, story
from trunkline.cli.settings import find_nats_url
from trunkline.proto import subjects
from trunkline.runtime.clock import SYSTEM

_ROOM: Final = 10_000
_WITHIN_S: Final = 5.0


def parser() -> argparse.ArgumentParser:
    """Return what the command line may hold."""
    found = argparse.ArgumentParser(
        prog="trunkline tail", description="Show what is said on the bus about one call or all, as it happens."
    )
    which = found.add_mutually_exclusive_group()
    which.add_argument("call", nargs="?", default="", metavar="CALL", help="id of a call, or how it begins")
    which.add_argument("--all", action="store_true", help="all calls (the default)")
    found.add_argument(
        "--nats", default="", metavar="URL", help="where NATS is; else TRUNKLINE_NATS_URL, else trunkline dev"
    )
    return found


async def run(options: argparse.Namespace) -> None:
    """Print until interrupted.

    Raises:
        NoBus: nobody said where the bus is.
        BusUnavailable: it is not there, or went for good.
    """
    url = find_nats_url(options.nats)
    console = Console()
    seen: asyncio.Queue[tuple[float, str, bytes]] = asyncio.Queue(_ROOM)
    gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    missed = 0

    def on_message(subject: str, data: bytes) -> None:
        nonlocal missed
        if not _about(subject, options.call):
            return
        try:
            seen.put_nowait((SYSTEM.wall(), subject, data))
        except asyncio.QueueFull:
            missed += 1

    def on_lost(why: str) -> None:
        if not gone.done():
            gone.set_result(why)

    bus = await Bus.connect(url, name="tail", on_lost=on_lost, within_s=_WITHIN_S)
    try:
        for subject in (subjects.STORIES, subjects.EVENTS_ALL):
            await bus.subscribe(subject, on_message)
        await bus.flush()
        about = f"calls beginning with {options.call}" if options.call else "all calls"
        Console(stderr=True).print(f"watching {about}; Ctrl-C ends", style="dim", highlight=False)
        while True:
            item = asyncio.create_task(seen.get())
            either: set[asyncio.Future[Any]] = {item, gone}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not item.done():
                item.cancel()
                raise BusUnavailable(gone.result())
            wall_at, subject, data = item.result()
            screen.show(console, screen.row(story.of_message(subject, data), wall_at))
            if missed and seen.empty():
                console.print(f"({missed} messages came too fast to be shown)", style="dim")
                missed = 0
    finally:
        await bus.close()


def _about(subject: str, call: str) -> bool:
    tokens = subject.split(".")
    return (tokens[-1] if tokens[0] == "events" else tokens[1]).startswith(call)
