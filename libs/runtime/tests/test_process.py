"""The life of a process, with real signals."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trunkline.runtime.process import Chassis, Service, _live
from trunkline.runtime.settings import BaseSettings, HttpSettings
from trunkline.testing.patience import PATIENCE_S, until

pytestmark = pytest.mark.integration

SERVICE = Path(__file__).with_name("echo_service.py")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Running:
    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}") as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def wait_ready(self) -> None:
        give_up_at = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up_at:
            try:
                if self.get("/health/ready")[0] == 200:
                    return
            except OSError:
                time.sleep(0.02)
        raise AssertionError("never ready")

    def wait_line(self, text: str) -> None:
        assert self.process.stdout
        assert self.process.stdout.readline().strip() == text


@contextmanager
def service(**variables: str) -> Iterator[Running]:
    port = free_port()
    environ = {**os.environ, "TRUNKLINE_ECHO_HTTP_PORT": str(port), "TRUNKLINE_LOG_FORMAT": "json", **variables}
    process = subprocess.Popen(
        [sys.executable, str(SERVICE)], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield Running(process, port)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="only Linux has this policy")
def test_a_process_awaits_its_turn():
    with service() as echo:
        echo.wait_ready()
        assert os.sched_getscheduler(echo.process.pid) == os.SCHED_BATCH


def test_a_process_tells_health_metrics_and_statistics():
    with service() as echo:
        echo.wait_ready()
        assert echo.get("/health/live")[0] == 200
        assert "trunkline_event_loop_lag_seconds" in echo.get("/metrics")[1]
        status, page = echo.get("/stats")
        assert status == 200
        assert "drain takes" in page


def test_sigterm_drains_and_then_stops(tmp_path):
    busy = tmp_path / "busy"
    busy.touch()
    with service(TRUNKLINE_ECHO_DRAINS_WHILE=str(busy)) as echo:
        echo.wait_ready()
        echo.process.send_signal(signal.SIGTERM)
        echo.wait_line("draining")
        assert echo.get("/health/ready")[0] == 503
        assert echo.get("/health/live")[0] == 200
        busy.unlink()
        echo.wait_line("drained")
        echo.wait_line("stopped")
        assert echo.process.wait(PATIENCE_S) == 0


def test_ctrl_c_does_not_wait_for_calls():
    with service(TRUNKLINE_ECHO_DRAIN_TAKES_S="60") as echo:
        echo.wait_ready()
        echo.process.send_signal(signal.SIGINT)
        echo.wait_line("stopped")
        assert echo.process.wait(PATIENCE_S) == 0


def test_a_second_signal_cuts_the_drain_short():
    with service(TRUNKLINE_ECHO_DRAIN_TAKES_S="60") as echo:
        echo.wait_ready()
        echo.process.send_signal(signal.SIGTERM)
        echo.wait_line("draining")
        echo.process.send_signal(signal.SIGTERM)
        echo.wait_line("stopped")
        assert echo.process.wait(PATIENCE_S) == 0


def test_a_drain_is_bounded():
    with service(TRUNKLINE_ECHO_DRAIN_TAKES_S="60", TRUNKLINE_DRAIN_S="0.2") as echo:
        echo.wait_ready()
        echo.process.send_signal(signal.SIGTERM)
        echo.wait_line("draining")
        echo.wait_line("stopped")
        assert echo.process.wait(PATIENCE_S) == 0


def test_a_permanent_failure_ends_the_process_with_code_1():
    with service(TRUNKLINE_ECHO_FAIL_AFTER_S="0.1") as echo:
        assert echo.process.wait(PATIENCE_S) == 1
        lines = [json.loads(line) for line in echo.process.stderr]
        assert any(line["message"] == "process failed" and line["reason"] == "told to" for line in lines)


def test_a_wrong_setting_ends_the_process_with_code_2_and_names_it():
    with service(TRUNKLINE_ECHO_DRAIN_TAKES_S="soon") as echo:
        assert echo.process.wait(PATIENCE_S) == 2
        told = echo.process.stderr.read()
        assert "TRUNKLINE_ECHO_DRAIN_TAKES_S='soon' is wrong; expected a number, at least 0" in told


def test_a_taken_port_is_told_with_the_setting_to_change():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with service(TRUNKLINE_ECHO_HTTP_PORT=str(taken.getsockname()[1])) as echo:
            assert echo.process.wait(PATIENCE_S) == 2
            assert "TRUNKLINE_ECHO_HTTP_PORT" in echo.process.stderr.read()


def test_a_misspelt_variable_is_logged_with_what_was_meant():
    with service(TRUNKLINE_ECHO_DRAIN_TAKE_S="1") as echo:
        echo.wait_ready()
        echo.process.send_signal(signal.SIGINT)
        echo.process.wait(PATIENCE_S)
        assert "did you mean TRUNKLINE_ECHO_DRAIN_TAKES_S?" in echo.process.stderr.read()


@pytest.mark.parametrize("step", ["build", "start"])
def test_a_service_that_breaks_while_it_starts_ends_the_process_with_a_traceback_and_code_1(step):
    with service(TRUNKLINE_ECHO_BREAKS=step) as echo:
        assert echo.process.wait(PATIENCE_S) == 1
        told = echo.process.stderr.read()
        assert f"RuntimeError: {step} is broken" in told
        assert "Task" not in told.split("RuntimeError")[-1]  # asyncio's complaint of what was left behind


def test_a_service_that_breaks_while_it_starts_leaves_nothing_behind():
    async def broken(_settings: HttpSettings, _chassis: Chassis) -> Service:
        raise RuntimeError("broken")

    async def story() -> tuple[object, ...]:
        port = free_port()
        web = HttpSettings(http_port=port)
        with pytest.raises(RuntimeError, match="broken"):
            await _live("echo", BaseSettings(), web, web, broken)
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})  # what was cancelled ends
        with socket.socket() as free:
            free.bind(("127.0.0.1", port))
        return signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    assert asyncio.run(story()) == (signal.SIG_DFL, signal.default_int_handler)


@pytest.mark.parametrize(
    ("broken", "show_pii", "told"),
    [("task", "", False), ("callback", "", False), ("task", "true", True), ("callback", "true", True)],
)
def test_what_nobody_caught_is_logged_and_tells_what_is_private_only_when_asked_to(broken, show_pii, told):
    with service(TRUNKLINE_ECHO_BREAKS=broken, TRUNKLINE_LOG_PII=show_pii) as echo:
        echo.wait_ready()
        echo.process.send_signal(signal.SIGINT)
        assert echo.process.wait(PATIENCE_S) == 0
        lines = [json.loads(line) for line in echo.process.stderr]
        (line,) = [line for line in lines if line["message"] == "unhandled exception"]
        assert "in broken" in line["exception"]
        assert ("+4915112345678" in str(lines)) is told
        assert line["task"] == ("the-task" if broken == "task" else None)
