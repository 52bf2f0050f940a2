"""Three real servers as one cluster; the client is the bus library's own."""

import asyncio
import contextlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trunkline.bus import Bus, BusError
from trunkline.testing.errors import NoQuorum
from trunkline.testing.nats_cluster import NatsCluster, run_cluster
from trunkline.testing.patience import PATIENCE_S, until

pytestmark = pytest.mark.integration

STREAM = '{"name":"S","subjects":["s"],"num_replicas":3,"storage":"memory"}'


def make_a_stream(cluster: NatsCluster) -> None:
    """Ask for a replicated stream in NATS's own text protocol, so that no client library comes in between."""
    _request(cluster, "$JS.API.STREAM.CREATE.S", STREAM)


def _request(cluster: NatsCluster, subject: str, body: str) -> str:
    """Ask until there is an answer: it is lost when it comes before all servers know who listens for it."""

    async def ask() -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", cluster.servers[0].port)
        writer.write(b'CONNECT {"verbose":false}\r\nSUB answer 1\r\n')
        try:
            while True:
                writer.write(f"PUB {subject} answer {len(body)}\r\n{body}\r\n".encode())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(2.0):
                        return await _answer(reader)
        finally:
            writer.close()

    return asyncio.run(asyncio.wait_for(ask(), PATIENCE_S))


async def _answer(reader: asyncio.StreamReader) -> str:
    while not (line := await reader.readline()).startswith(b"MSG answer"):
        assert line, "the server closed the connection"
    return (await reader.readexactly(int(line.split()[-1]))).decode()


def test_it_comes_up_and_a_leader_that_dies_is_replaced() -> None:
    with run_cluster() as cluster:
        assert len({server.url for server in cluster.servers}) == 3
        assert cluster.url.split(",") == [server.url for server in cluster.servers]

        make_a_stream(cluster)
        first = cluster.leader_of("S")
        port = first.port
        first.kill()
        second = cluster.leader_of("S")
        assert second is not first
        cluster.await_quorum()

        first.start()
        assert first.port == port
        cluster.await_caught_up()
        assert len({server.pid for server in cluster.servers}) == 3
    assert not any(server.running for server in cluster.servers)


def test_without_a_majority_there_is_no_leader_and_a_thaw_brings_one_back() -> None:
    with run_cluster() as cluster:
        one, other = cluster.servers[1:]
        one.freeze()
        other.freeze()
        assert one.frozen
        assert one.running
        with pytest.raises(NoQuorum, match="no leader"):
            cluster.leader(timeout_s=0.2)

        one.thaw()
        other.thaw()
        assert cluster.leader() in cluster.servers
        with pytest.raises(NoQuorum, match="stream NONE has no leader"):
            cluster.leader_of("NONE", timeout_s=0.1)


def test_a_stream_that_lost_its_followers_is_led_by_nobody() -> None:
    with run_cluster() as cluster:
        make_a_stream(cluster)
        leading = cluster.leader_of("S")
        for server in cluster.servers:
            if server is not leading:
                server.kill()
        with pytest.raises(NoQuorum, match="stream S has no leader"):
            cluster.leader_of("S", timeout_s=0.2)
        with pytest.raises(NoQuorum, match="do not agree"):
            cluster.await_quorum(timeout_s=0.2)


def test_a_client_goes_on_with_another_server_when_its_own_is_killed() -> None:
    async def talk(cluster: NatsCluster) -> None:
        lost = asyncio.Event()
        bus = await Bus.connect(cluster.url, name="test", on_lost=lost.set)
        for server in cluster.servers[:2]:
            server.kill()

        async def answers() -> bool:
            with contextlib.suppress(BusError):
                await bus.flush()
                return True
            return False

        await until(answers)
        await bus.close()

    with run_cluster() as cluster:
        asyncio.run(talk(cluster))


def test_it_dies_with_its_owner() -> None:
    program = (
        "from trunkline.testing.nats_cluster import run_cluster\n"
        "import sys\n"
        "with run_cluster(nodes=2) as cluster:\n"
        "    print(*[server.pid for server in cluster.servers], flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        assert len(pids) == 2
        assert all(map(lives, pids))
        owner.kill()
        owner.wait()
        deadline = time.monotonic() + PATIENCE_S
        while any(map(lives, pids)):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def lives(pid: int) -> bool:
    """Whether the process runs; one that is dead and only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
