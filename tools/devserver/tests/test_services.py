"""The five real services, all together."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from trunkline.call import Target, find_scenario, place_call
from trunkline.call.scenario import Expect
from trunkline.devserver import whereabouts
from trunkline.devserver.devserver import run_dev
from trunkline.devserver.journal import Journal
from trunkline.devserver.probe import why_not_ready
from trunkline.devserver.settings import Plan, find_agents
from trunkline.testing.patience import PATIENCE_S, until

pytestmark = pytest.mark.integration


@pytest.fixture
def environ(tmp_path):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")}
    return {**kept, "XDG_RUNTIME_DIR": str(tmp_path), "NO_COLOR": "1"}


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def until_ready(port):
    async def ready():
        return await why_not_ready(port) is None

    await until(ready)


def test_the_command_becomes_ready_and_leaves_nothing_behind(environ):
    command = [sys.executable, "-m", "trunkline.devserver", "--port", "0"]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Ctrl-C stops all" in line:
                break
        note = whereabouts.read(whereabouts.note_path(environ))
        assert note is not None, "".join(lines)
        asyncio.run(until_ready(int(note.edge_url.rpartition(":")[2])))
        started = [int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        assert len(started) == 6
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(PATIENCE_S) == 0, rest
    assert not any(map(alive, started)), rest
    assert not whereabouts.note_path(environ).exists()


def test_one_that_is_killed_comes_back_and_one_with_new_code_takes_over(environ):
    lines = []

    async def live():
        plan = Plan(port=0, note=False, environ=environ)
        async with run_dev(plan, Journal(lines.append, ["events"], colour=False)) as dev:
            (victim,) = dev.processes("tts")
            os.kill(victim.pid, signal.SIGKILL)
            await until(lambda: dev.restarts("tts"))
            (old,) = dev.processes("edge")
            await dev.relieve("edge")
            (new,) = dev.processes("edge")
            assert new.pid != old.pid
            await asyncio.wait_for(old.wait(), PATIENCE_S)
            await until_ready(dev.port)

    asyncio.run(live())


def test_a_live_call_goes_on_while_every_service_gets_new_code(environ):
    async def live():
        plan = Plan(port=0, note=False, environ=environ, agents=find_agents(Path(__file__).parent))
        async with run_dev(plan, Journal(lambda _: None, ["events"], colour=False)) as dev:
            target = Target(url=dev.edge_url, agent="bench", nats_url=dev.nats_url)
            patient = Expect(agent_speaks_within_s=PATIENCE_S, answers_within_s=PATIENCE_S, stops_within_ms=10_000)
            scenario = msgspec.structs.replace(find_scenario("barge-in"), expect=patient)
            call = asyncio.create_task(place_call(target, scenario))
            await asyncio.sleep(1.0)
            for name in ("edge", "stt", "brain", "tts"):
                await dev.relieve(name)
            return await call

    result = asyncio.run(live())
    assert result.passed, result.verdicts
