"""The demo's steps: start, call, stop, report, draw."""

import asyncio
import contextlib
import signal
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import msgspec
from rich.console import Console
from rich.text import Text

from trunkline.agents import AgentFileError
from trunkline.audio import wav
from trunkline.bus import BusError
from trunkline.call import CallResult, CallToolError, Scenario, Target, load_scenario, place_call, prepare_speech
from trunkline.demo.build import RATE_HZ, build, with_verdicts
from trunkline.demo.expect import promises
from trunkline.demo.live import Stage
from trunkline.demo.report import Report
from trunkline.demo.scene import Scene
from trunkline.demo.summary import print_complaints, print_summary
from trunkline.devserver.devserver import run_dev
from trunkline.devserver.errors import DevError, StartFailed
from trunkline.devserver.journal import Journal
from trunkline.devserver.settings import Plan, find_agents
from trunkline.runtime.clock import SYSTEM
from trunkline.testing.errors import CallFailed

PASSED, FAILED, BROKEN = 0, 1, 2
_OURS = ("call.wav", "report.json", "timeline.png", "services.log")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the demo is to be."""

    folder: Path
    """Where it writes."""
    scenario: Path | None = None
    """Another call than the booking."""
    emulated: bool = False
    """Whether the agent's providers are reached through the official SDKs, at emulators, instead of `local` ones."""


async def run_demo(console: Console, options: Options, environ: Mapping[str, str]) -> int:
    """Run the demo and return its exit code.

    Raises:
        asyncio.CancelledError: a signal asked to stop; everything is stopped.
    """
    stage = Stage(console, SYSTEM.monotonic)
    folder, scenario_file = options.folder, options.scenario
    task = asyncio.current_task()
    if task is not None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        scenario = _scenario(scenario_file)
        _make_room(folder)
        result = await _call(stage, options, scenario, environ)
        report = _report(stage, folder, result, judged_by_us=scenario_file is None)
    except (AgentFileError, BusError, CallFailed, CallToolError, DevError, OSError) as error:
        stage.console.print(Text(f"trunkline demo: {error}", "bold red"), soft_wrap=True)
        if isinstance(error, StartFailed):
            for line in error.last_lines:
                stage.say(f"  {line}", "dim")
        else:
            print_complaints(stage.console, folder / "services.log")
        stage.say(f"the services' log: {folder / 'services.log'}", "dim")
        return BROKEN
    print_summary(stage.console, report, folder)
    return PASSED if report.passed else FAILED


def plain(environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` without Trunkline's variables: the demo is the same whatever deployment the shell is set for."""
    return {name: value for name, value in environ.items() if not name.startswith("TRUNKLINE_")}


def _make_room(folder: Path) -> None:
    """Make `folder` and take away what an earlier run left there: nobody shall take it for today's."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in _OURS:
        (folder / name).unlink(missing_ok=True)


def _scenario(file: Path | None) -> Scenario:
    with resources.as_file(resources.files("trunkline.demo") / "booking.toml") as booking:
        return load_scenario(file or booking)


async def _call(stage: Stage, options: Options, scenario: Scenario, environ: Mapping[str, str]) -> CallResult:
    plan = Plan(port=0, agents=find_agents(Path.cwd()), note=False, drain_s=3.0, environ=plain(environ))
    speech = asyncio.create_task(prepare_speech(scenario), name="caller's speech")
    async with contextlib.AsyncExitStack() as stack:
        log = stack.enter_context((options.folder / "services.log").open("w", buffering=1, encoding="utf-8"))
        stack.callback(speech.cancel)
        if options.emulated and plan.agents is not None:
            from trunkline.demo.emulated import emulated  # noqa: PLC0415 - brings in what only this needs

            with stage.busy("starting emulators of Deepgram, OpenAI and ElevenLabs"):
                served = await stack.enter_async_context(emulated(plan.agents, scenario, await speech, plan.environ))
            environ_of_all = plan.environ | served.environ
            plan = msgspec.structs.replace(plan, agents=served.agents, environ=environ_of_all)
        journal = Journal(lambda line: print(line, file=log), (spec.name for spec in plan.services), colour=False)
        with stage.busy("starting a NATS server and the five services"):
            dev = await stack.enter_async_context(run_dev(plan, journal))
        with stage.busy("giving the caller a voice (espeak-ng)"):
            clips = await speech
        stage.say(f"calling {dev.edge_url} as Twilio would: {scenario.description or scenario.name}")
        target = Target(url=dev.edge_url, nats_url=dev.nats_url)
        with stage.call(Scene()) as show:
            result = await place_call(target, scenario, observe=show, clips=clips)
        with stage.busy("stopping everything"):
            await stack.aclose()
    return result


def _report(stage: Stage, folder: Path, result: CallResult, *, judged_by_us: bool) -> Report:
    """Write the recording, the report and the picture."""
    wav.write_stereo(folder / "call.wav", result.left, result.right, RATE_HZ)
    report = build(result)
    if judged_by_us:
        report = with_verdicts(report, promises(report))
    (folder / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    with stage.busy("drawing the timeline"):
        from trunkline.demo import timeline  # noqa: PLC0415 - matplotlib takes a second to import, and the call is over

        timeline.write(folder / "timeline.png", report, result.left, result.right)
    return report
