"""A real server behind a real proxy, looked at through blocking sockets with time-outs."""

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from trunkline.bus import Bus, BusError
from trunkline.testing.nats_server import run_nats
from trunkline.testing.patience import PATIENCE_S, until
from trunkline.testing.ports import free_ports
from trunkline.testing.tcp_proxy import TcpProxy, run_proxy

pytestmark = pytest.mark.integration


@contextlib.contextmanager
def echo_server() -> Iterator[int]:
    """Send back what comes, and close when the other side does."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while data := client.recv(65_536):
                client.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    with listening:
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def a_line() -> Iterator[tuple[TcpProxy, socket.socket]]:
    with echo_server() as port, run_proxy("127.0.0.1", port) as proxy, dial(proxy) as client:
        yield proxy, client


def dial(proxy: TcpProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE_S)


def echoed(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    return read(client, len(data))


def read(client: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size and (data := client.recv(size - len(got))):
        got += data
    return got


def is_silent(client: socket.socket, for_s: float = 0.1) -> bool:
    client.settimeout(for_s)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(PATIENCE_S)
    return False


def test_a_good_line_passes_everything_on_and_the_end_as_well() -> None:
    with a_line() as (proxy, client):
        big = bytes(range(256)) * 8_192
        threading.Thread(target=client.sendall, args=(big,)).start()
        assert read(client, len(big)) == big
        assert proxy.connections == 1
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
        assert proxy.connections == 0


def test_a_cut_resets_and_refuses_until_it_is_healed() -> None:
    with a_line() as (proxy, client):
        assert echoed(client, b"hello") == b"hello"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        with pytest.raises(ConnectionRefusedError):
            dial(proxy)

        port = proxy.port
        proxy.heal()
        assert proxy.port == port
        with dial(proxy) as again:
            assert echoed(again, b"hello") == b"hello"


def test_what_is_dropped_is_gone_and_nobody_is_told() -> None:
    with a_line() as (proxy, client):
        assert echoed(client, b"before") == b"before"
        proxy.drop()
        client.sendall(b"lost")
        assert is_silent(client)
        with dial(proxy) as accepted:
            accepted.sendall(b"lost too")
            assert is_silent(accepted)

            proxy.heal()
            for connection in (client, accepted):
                with pytest.raises(ConnectionResetError):
                    connection.recv(1)
        with dial(proxy) as again:
            assert echoed(again, b"after") == b"after"


def test_what_is_stalled_comes_later_and_whole() -> None:
    with a_line() as (proxy, client):
        assert echoed(client, b"before") == b"before"
        proxy.stall()
        client.sendall(b"one ")
        with dial(proxy) as later:
            later.sendall(b"three")
            assert is_silent(client)
            assert is_silent(later)
            client.sendall(b"two")

            proxy.resume()
            assert read(client, 7) == b"one two"
            assert read(later, 5) == b"three"


def test_a_delay_counts_each_way_and_keeps_the_order() -> None:
    with a_line() as (proxy, client):
        echoed(client, b"warm")
        proxy.delay(50)
        begin = time.monotonic()
        client.sendall(b"a")
        time.sleep(0.03)
        client.sendall(b"b")
        assert read(client, 1) == b"a"
        assert time.monotonic() - begin >= 0.1
        proxy.heal()
        assert echoed(client, b"c") == b"b"
        assert read(client, 1) == b"c"


def test_a_slow_line_takes_its_time() -> None:
    with a_line() as (proxy, client):
        echoed(client, b"warm")
        proxy.slow(20_000)
        begin = time.monotonic()
        assert len(echoed(client, bytes(4_000))) == 4_000
        assert time.monotonic() - begin >= 0.2
        with pytest.raises(ValueError, match="above 0"):
            proxy.slow(0)


def test_nobody_behind_the_line_is_felt_as_a_reset() -> None:
    (port,) = free_ports(1)
    with run_proxy("127.0.0.1", port) as proxy, pytest.raises(ConnectionResetError), dial(proxy) as client:
        client.recv(1)


def test_a_client_that_resets_is_felt_behind_the_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, run_proxy(*listening.getsockname()) as proxy:
        client = dial(proxy)
        far, _ = listening.accept()
        with far:
            far.settimeout(PATIENCE_S)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            with pytest.raises(ConnectionResetError):
                far.recv(1)


async def answers(bus: Bus) -> bool:
    with contextlib.suppress(BusError):
        await bus.flush()
        return True
    return False


def test_a_bus_behind_a_bad_line_is_lost_and_comes_back() -> None:
    async def talk(proxy: TcpProxy) -> None:
        bus = await Bus.connect(proxy.url, name="test", on_lost=lambda: None)
        await bus.flush(PATIENCE_S)
        proxy.cut()
        proxy.heal()
        await until(lambda: answers(bus))
        await bus.close()

    with run_nats() as server, run_proxy("127.0.0.1", server.port) as proxy:
        asyncio.run(talk(proxy))
