"""Processes that live, die, hang and are replaced: with stand-ins for the services, and a real NATS."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trunkline.devserver import post, whereabouts
from trunkline.devserver.devserver import run_dev
from trunkline.devserver.errors import PortTaken, StartFailed
from trunkline.devserver.journal import Journal
from trunkline.devserver.services import ServiceSpec
from trunkline.devserver.settings import Plan
from trunkline.testing.patience import PATIENCE_S

pytestmark = pytest.mark.integration

STANDINS = Path(__file__).parent / "standins"


def spec(name, **options):
    return ServiceSpec(name=name, module=f"standin_{name}", port_variable=f"STANDIN_{name.upper()}_PORT", **options)


@pytest.fixture
def environ(tmp_path):
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(STANDINS),
        "STANDIN_DIR": str(tmp_path),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "TMPDIR": str(tmp_path),
    }


class Story:
    """What the journal wrote, and a way to wait for it."""

    def __init__(self):
        self.lines = []
        self._written = asyncio.Event()
        self.journal = Journal(self._write, ["events"], colour=False)

    def _write(self, line):
        self.lines.append(line)
        self._written.set()

    async def until(self, words):
        async with asyncio.timeout(PATIENCE_S):
            while not any(words in line for line in self.lines):
                self._written.clear()
                await self._written.wait()


def plan(environ, *services, **options):
    return Plan(services=services or (spec("edge"), spec("stt", many=True)), port=0, environ=environ, **options)


def alive(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def until_gone(pids):
    deadline = time.monotonic() + PATIENCE_S
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(alive, pids))


def test_all_are_ready_when_the_block_begins_and_gone_when_it_ends(environ):
    story = Story()

    async def live():
        async with run_dev(plan(environ, workers={"stt": 2}), story.journal) as dev:
            assert [child.name for child in dev.processes("stt")] == ["stt", "stt-2"]
            return [child.pid for name in ("edge", "stt") for child in dev.processes(name)], dev.data

    pids, data = asyncio.run(live())
    assert len(pids) == 3
    assert until_gone(pids)
    assert not data.exists()
    assert any("stt-2 " in line and "hello from" in line for line in story.lines)
    assert any("edge" in line and "goodbye" in line for line in story.lines)


def test_one_that_dies_is_reported_and_replaced(environ):
    story = Story()

    async def live():
        async with run_dev(plan(environ), story.journal) as dev:
            (victim,) = dev.processes("stt")
            os.kill(victim.pid, signal.SIGKILL)
            await story.until("stt is back")
            (heir,) = dev.processes("stt")
            assert heir.pid != victim.pid
            assert dev.restarts("stt") == 1

    asyncio.run(live())
    assert any("stt died (SIGKILL" in line for line in story.lines)


def test_one_that_keeps_dying_is_tried_later_and_later(environ, tmp_path):
    story = Story()

    async def live():
        async with run_dev(plan(environ), story.journal) as dev:
            (tmp_path / "dead-on-arrival").touch()
            os.kill(dev.processes("stt")[0].pid, signal.SIGKILL)
            await story.until("starts again in 1 s")
            (tmp_path / "dead-on-arrival").unlink()
            await story.until("stt is back")

    asyncio.run(live())
    delays = [line.rsplit(" ", 2)[1] for line in story.lines if "starts again in" in line]
    assert delays[:3] == ["0.25", "0.5", "1"]


def test_one_that_cannot_start_stops_the_rest_and_shows_its_last_words(environ, tmp_path):
    (tmp_path / "dead-on-arrival").touch()

    async def live():
        async with run_dev(plan(environ), Story().journal):
            pass

    with pytest.raises(StartFailed) as caught:
        asyncio.run(live())
    assert "exit code 3" in str(caught.value)
    assert caught.value.last_lines == ("no such model",)


def test_one_that_takes_its_time_is_told_of_and_waited_for(environ, tmp_path, monkeypatch):
    monkeypatch.setattr(post, "SLOW_START_S", 0.0)
    slow = tmp_path / "never-ready"
    slow.touch()
    story = Story()

    async def told():
        await story.until("stt is still starting; it is given 60 s")
        slow.unlink()

    async def live():
        telling = asyncio.create_task(told())
        async with run_dev(plan(environ), story.journal) as dev:
            assert len(dev.processes("stt")) == 1
        await telling

    asyncio.run(live())


def test_new_code_takes_over_while_the_old_process_finishes_its_calls(environ, tmp_path):
    story = Story()

    async def live():
        async with run_dev(plan(environ), story.journal) as dev:
            (tmp_path / "busy").touch()
            (old,) = dev.processes("edge")
            await dev.relieve("edge")
            (new,) = dev.processes("edge")
            assert new.pid != old.pid
            assert new.ready
            assert alive(old.pid)
            (tmp_path / "busy").unlink()
            await story.until("edge with the old code has left")
            assert dev.restarts("edge") == 0

    asyncio.run(live())


def test_new_code_that_does_not_start_leaves_the_old_process_at_work(environ, tmp_path):
    story = Story()

    async def live():
        async with run_dev(plan(environ), story.journal) as dev:
            (old,) = dev.processes("edge")
            (tmp_path / "dead-on-arrival").touch()
            await dev.relieve("edge")
            assert dev.processes("edge") == (old,)
            assert alive(old.pid)

    asyncio.run(live())
    assert any("the one with the old code goes on" in line for line in story.lines)


def test_a_change_on_disk_relieves_the_service_it_belongs_to(environ, tmp_path, monkeypatch):
    code = tmp_path / "code"
    code.mkdir()
    fresh = code / "standin_fresh.py"
    fresh.write_text('from standin import main\n\nmain("STANDIN_FRESH_PORT")\n')
    monkeypatch.syspath_prepend(str(code))
    environ["PYTHONPATH"] += os.pathsep + str(code)
    story = Story()

    async def live():
        async with run_dev(plan(environ, spec("edge"), spec("fresh"), reload=True), story.journal) as dev:
            await story.until("watching")
            before = {name: dev.processes(name)[0].pid for name in ("edge", "fresh")}
            # The watch begins a moment after it is announced, so the change is made until it is seen.
            async with asyncio.timeout(PATIENCE_S):
                while dev.processes("fresh")[0].pid == before["fresh"]:
                    fresh.write_text(fresh.read_text() + "# changed\n")
                    await asyncio.sleep(0.5)

    asyncio.run(live())
    assert any("fresh has new code" in line for line in story.lines)


def test_one_that_ignores_the_request_is_killed_in_bounded_time(environ, tmp_path):
    (tmp_path / "deaf").touch()

    async def live():
        async with run_dev(plan(environ, spec("edge"), drain_s=0.2), Story().journal) as dev:
            child = dev.processes("edge")[0]
            await child.stop(0.2, at_once_s=0.2)
            return child.exit_code

    assert asyncio.run(live()) == -signal.SIGKILL


@pytest.fixture
def taken_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_a_fixed_port_that_is_taken_is_an_error_that_says_by_whom(environ, taken_port):
    story = Story()

    async def live():
        fixed = Plan(services=(spec("edge"),), port=taken_port, port_is_fixed=True, environ=environ)
        async with run_dev(fixed, story.journal):
            pass

    with pytest.raises(PortTaken) as caught:
        asyncio.run(live())
    assert caught.value.free != caught.value.port == taken_port
    assert f"(pid {os.getpid()})" in caught.value.holder


def test_another_port_is_taken_when_the_usual_one_is_in_use(environ, taken_port):
    story = Story()

    async def live():
        async with run_dev(Plan(services=(spec("edge"),), port=taken_port, environ=environ), story.journal) as dev:
            assert dev.port != taken_port
            assert dev.edge_url.endswith(f":{dev.port}")

    asyncio.run(live())
    assert any(f"port {taken_port} is taken by" in line and "; using" in line for line in story.lines)


def start_command(environ, *words):
    return subprocess.Popen(
        [sys.executable, str(STANDINS / "dev_with_standins.py"), *words],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read_until(process, words):
    lines = []
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return lines
    raise AssertionError("".join(lines))


def descendants(pid):
    """Return the processes that `pid` started, the NATS among them."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_command_and_nothing_is_left(environ, number, tmp_path):
    note = whereabouts.note_path(environ)
    with start_command(environ, "0") as process:
        lines = read_until(process, "Ctrl-C stops all")
        assert whereabouts.read(note) is not None
        started = descendants(process.pid)
        assert len(started) == 4
        process.send_signal(number)
        rest = process.stdout.read()
        assert process.wait(PATIENCE_S) == 0, rest
    text = "".join(lines)
    assert "/twilio/voice-hook" in text
    assert "trunkline tail --all" in text
    assert "all stopped" in rest
    assert until_gone(started)
    assert not note.exists()
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").iterdir())


def test_kill_9_of_the_command_leaves_no_process(environ):
    with start_command(environ, "0") as process:
        read_until(process, "Ctrl-C stops all")
        started = descendants(process.pid)
        process.kill()
        assert until_gone(started)


def test_what_a_killed_command_left_is_swept_by_the_next(environ, tmp_path):
    def folders():
        return sorted(path.name for path in tmp_path.glob("trunkline-dev-*"))

    with start_command(environ, "0") as killed:
        read_until(killed, "Ctrl-C stops all")
        killed.kill()
    (left,) = folders()
    with start_command(environ, "0") as other, start_command(environ, "0") as process:
        for one in (other, process):
            read_until(one, "Ctrl-C stops all")
        assert left not in folders()
        assert len(folders()) == 2
        for one in (other, process):
            one.send_signal(signal.SIGTERM)
            one.stdout.read()
    assert folders() == []


def test_a_second_ctrl_c_does_not_wait_for_calls(environ, tmp_path):
    with start_command(environ, "0") as process:
        read_until(process, "Ctrl-C stops all")
        (tmp_path / "busy").touch()
        process.send_signal(signal.SIGINT)
        read_until(process, "Ctrl-C again kills")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0
        process.stdout.read()


def test_ctrl_c_while_starting_ends_cleanly(environ, tmp_path):
    (tmp_path / "never-ready").touch()
    with start_command(environ, "0") as process:
        read_until(process, "hello from")
        started = descendants(process.pid)
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(PATIENCE_S) == 0
    assert until_gone(started)
