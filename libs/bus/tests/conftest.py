"""Patience, and servers with a configuration of the test's own, which the common one does not have."""

import contextlib
import itertools
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trunkline.bus import event_reader, streams
from trunkline.testing.nats_server import find_binary
from trunkline.testing.patience import PATIENCE_S


class GuardedServer:
    """A nats-server that knows users, or limits; its configuration can be changed while it runs."""

    def __init__(self, folder: Path) -> None:
        self._config = folder / "guarded.conf"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._extra = ""

    @property
    def port(self) -> int:
        return self._port

    def url(self, user: str = "", password: str = "") -> str:
        return f"nats://{user}:{password}@127.0.0.1:{self._port}" if user else f"nats://127.0.0.1:{self._port}"

    def configure(self, extra: str) -> None:
        self._extra = extra
        self._config.write_text(
            f'host: "127.0.0.1"\nport: {self._port or -1}\nports_file_dir: "{self._folder}"\n{extra}\n'
        )

    def start(self) -> None:
        self.configure(self._extra)  # now with the port it had before, if any
        self._process = subprocess.Popen([find_binary(), "-c", self._config], stderr=subprocess.DEVNULL)
        announced = self._folder / f"{find_binary().name}_{self._process.pid}.ports"
        deadline = time.monotonic() + PATIENCE_S
        while not (announced.exists() and announced.read_text().strip().endswith("}")):
            assert self._process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        self._port = int(announced.read_text().split("nats://")[1].split('"')[0].rsplit(":", 1)[1])

    def reload(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give an answer about a stream longer than a busy machine stands still, but less than a test's patience."""
    for module in (event_reader, streams):
        monkeypatch.setattr(module, "API_TIMEOUT_S", PATIENCE_S / 3)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Callable[[str], GuardedServer]]:
    """Start a server with this added to its configuration."""
    numbers = itertools.count()
    with contextlib.ExitStack() as stack:

        def start(extra: str) -> GuardedServer:
            folder = tmp_path / str(next(numbers))
            folder.mkdir()
            server = GuardedServer(folder)
            server.configure(extra)
            stack.callback(server.kill)
            server.start()
            return server

        yield start
