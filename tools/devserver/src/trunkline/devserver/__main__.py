"""``trunkline dev``: run everything until Ctrl-C."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Sequence

from trunkline.devserver.banner import banner
from trunkline.devserver.devserver import Devserver, run_dev, stop_signals
from trunkline.devserver.errors import BadOption, DevError
from trunkline.devserver.journal import Journal
from trunkline.devserver.settings import PUBLIC_URL, Plan, plan_of, wants_colour
from trunkline.runtime.clock import SYSTEM

EXIT_FAILED = 1
EXIT_USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the set-up that `argv` and the environment describe; return the exit code."""
    try:
        plan = plan_of(argv, os.environ)
    except BadOption as error:
        print(f"trunkline dev: {error}", file=sys.stderr)
        return EXIT_USAGE
    try:
        return asyncio.run(run_until_asked(plan))
    except KeyboardInterrupt:  # before the loop had its handlers
        return 0


async def run_until_asked(plan: Plan) -> int:
    """Run `plan` until a signal asks to stop; return the exit code."""
    colour = wants_colour(plan.environ, tty=sys.stdout.isatty())
    write = _writer()
    journal = Journal(write, (spec.name for spec in plan.services), colour=colour)
    asked = asyncio.Event()
    running: list[Devserver] = []
    _on_signals(asked, running, journal)
    serving = asyncio.create_task(_serve(plan, journal, write, asked, running, colour=colour), name="serve")
    await asyncio.wait({serving, asyncio.ensure_future(asked.wait())}, return_when=asyncio.FIRST_COMPLETED)
    if asked.is_set() and not running:
        serving.cancel()  # still starting: there is nothing to drain
    try:
        return await serving
    except asyncio.CancelledError:
        return 0
    except DevError as error:
        print(f"trunkline dev: {error}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, BadOption) else EXIT_FAILED


async def _serve(
    plan: Plan,
    journal: Journal,
    write: Callable[[str], None],
    asked: asyncio.Event,
    running: list[Devserver],
    *,
    colour: bool,
) -> int:
    began_at = SYSTEM.monotonic()
    journal.say("starting NATS and " + ", ".join(spec.name for spec in plan.services))
    async with run_dev(plan, journal) as dev:
        running.append(dev)
        write(banner(dev, plan.environ.get(PUBLIC_URL, ""), SYSTEM.monotonic() - began_at, colour=colour))
        await asked.wait()
        journal.say(f"stopping; live calls have {plan.drain_s:g} s, Ctrl-C again kills")
    journal.say("all stopped")
    return 0


def _on_signals(asked: asyncio.Event, running: list[Devserver], journal: Journal) -> None:
    def on_signal() -> None:
        if asked.is_set():
            journal.say("killing what is left")
            for dev in running:
                dev.kill()
        asked.set()

    for number in stop_signals():
        asyncio.get_running_loop().add_signal_handler(number, on_signal)


def _writer() -> Callable[[str], None]:
    """Return a function that prints a line at once, and goes quiet when nobody reads any more."""

    def write(line: str) -> None:
        with contextlib.suppress(BrokenPipeError, ValueError):
            print(line, flush=True)

    return write


if __name__ == "__main__":
    sys.exit(main())
