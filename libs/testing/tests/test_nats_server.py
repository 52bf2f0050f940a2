import asyncio
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trunkline.bus import Bus
from trunkline.testing.errors import NatsMissing, NatsNotReloaded, NatsNotStarted
from trunkline.testing.nats_server import NatsServer, find_binary, run_nats
from trunkline.testing.patience import PATIENCE_S
from trunkline.testing.ports import free_ports

pytestmark = pytest.mark.integration


def listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S):
            return True
    except OSError:
        return False


def wait_until(condition) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_it_is_ready_when_the_block_begins_and_gone_when_it_ends() -> None:
    async def talk(url: str) -> None:
        bus = await Bus.connect(url, name="test", on_lost=pytest.fail)
        await bus.flush(PATIENCE_S)
        await bus.close()

    with run_nats() as server:
        assert server.running
        assert listens(server.port)
        asyncio.run(talk(server.url))
        folder = server.folder
        assert server.log_path.read_text()

    assert not server.running
    assert not listens(server.port)
    assert not folder.exists()


def test_two_servers_do_not_meet() -> None:
    with run_nats() as one, run_nats() as other:
        assert one.port != other.port


def test_a_kill_is_felt_and_a_restart_takes_the_same_port_and_store() -> None:
    with run_nats() as server:
        port, pid = server.port, server.pid
        server.kill()
        assert not listens(port)
        with pytest.raises(NatsNotStarted):
            _ = server.pid

        server.restart()
        assert server.port == port
        assert server.pid != pid
        assert listens(port)

        server.restart()
        assert listens(port)


def test_a_server_that_is_stopped_in_its_tracks_still_goes_away() -> None:
    with run_nats() as server:
        server.freeze()

    assert not server.running


def test_a_port_that_is_taken_is_named() -> None:
    with (
        run_nats() as server,
        pytest.raises(NatsNotStarted, match=f"port {server.port} of 127.0.0.1 is taken"),
        run_nats(port=server.port),
    ):
        pass


def test_a_given_folder_keeps_log_and_store(tmp_path: Path) -> None:
    store = tmp_path / "deep" / "folder with spaces"
    with run_nats(store_dir=store):
        pass

    assert {"nats-server.log", "jetstream"} <= {path.name for path in store.iterdir()}


def test_without_jetstream_there_is_no_store() -> None:
    with run_nats(jetstream=False) as server:
        assert not (server.folder / "jetstream").exists()


def test_it_dies_with_a_parent_that_is_killed_and_the_next_one_clears_up() -> None:
    program = (
        "from trunkline.testing.nats_server import run_nats\n"
        "import sys\n"
        "with run_nats() as server:\n"
        "    print(server.port, server.folder, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        port, folder = parent.stdout.readline().decode().split()
        assert listens(int(port))
        with run_nats():
            assert Path(folder).exists()
        parent.kill()
        parent.wait()
        wait_until(lambda: not listens(int(port)))

    with run_nats():
        assert not Path(folder).exists()


def test_a_binary_that_is_no_nats_server_says_what_it_said(tmp_path: Path) -> None:
    impostor = tmp_path / "nats-server"
    impostor.write_text("#!/bin/sh\necho I am somebody else >&2\nexit 3\n")
    impostor.chmod(0o755)
    server = NatsServer(impostor, tmp_path / "store", port=0, jetstream=True)

    with pytest.raises(NatsNotStarted, match="I am somebody else"):
        server.start()
    assert not server.running


def test_a_binary_that_stays_mute_is_given_up_on(tmp_path: Path) -> None:
    impostor = tmp_path / "nats-server"
    impostor.write_text("#!/bin/sh\nexec sleep 60\n")
    impostor.chmod(0o755)
    server = NatsServer(impostor, tmp_path / "store", port=0, jetstream=True)

    with pytest.raises(NatsNotStarted, match="not ready within"):
        server.start(timeout_s=0.1)
    assert not server.running


def test_the_binary_is_the_packaged_one() -> None:
    assert find_binary().name == "nats-server"
    assert issubclass(NatsMissing, RuntimeError)


def test_a_frozen_server_keeps_its_connections_and_answers_when_it_thaws() -> None:
    with run_nats() as server, socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as client:
        client.recv(4096)  # INFO
        server.freeze()
        assert server.running
        assert server.frozen
        client.sendall(b'CONNECT {"verbose":false}\r\nPING\r\n')
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(4096)

        client.settimeout(PATIENCE_S)
        server.thaw()
        assert not server.frozen
        assert client.recv(4096).startswith(b"PONG")


def test_a_frozen_server_can_be_killed_and_comes_back_warm() -> None:
    with run_nats() as server:
        server.freeze()
        server.kill()
        assert not server.frozen
        server.start()
        assert not server.frozen
        assert listens(server.port)


def test_settings_are_given_and_changed_while_it_runs() -> None:
    def greeting(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as client:
            return client.recv(4096)

    with run_nats(config="max_payload: 2048\n") as server:
        pid = server.pid
        assert b'"max_payload":2048' in greeting(server.port)
        server.reload("max_payload: 4096\n")
        assert server.pid == pid
        assert b'"max_payload":4096' in greeting(server.port)
        with pytest.raises(NatsNotReloaded, match="not supported"):
            server.reload('server_name: "somebody-else"\n')
        server.restart()
        assert b'"max_payload":4096' in greeting(server.port)


def test_a_port_may_be_fixed() -> None:
    (port,) = free_ports(1)
    with run_nats(port) as server:
        assert server.port == port
