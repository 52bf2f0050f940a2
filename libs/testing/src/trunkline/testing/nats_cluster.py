"""Several nats-servers on this machine as one cluster with a replicated JetStream.

Each server can be killed, frozen and started again while the others go on; ports and stores stay. Who leads is read
from the servers' monitoring pages. Nothing here can hurry an election: JetStream's take 4 to 9 s after a leader died,
and are not configurable.
"""

import contextlib
import http.client
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from trunkline.testing.errors import NatsNotStarted, NoQuorum
from trunkline.testing.nats_server import HOST, NatsServer, find_binary, temporary_folder
from trunkline.testing.patience import PATIENCE_S
from trunkline.testing.ports import free_ports

ELECTED_S: Final = 2 * PATIENCE_S
"""Elections are waited for so long, unless somebody says otherwise."""

_NAME: Final = "trunkline-test"
_ASK_S: Final = 0.5
_POLL_S: Final = 0.02
_NEW_PORTS: Final = 3
"""How often other ports are tried when somebody took one between choosing and listening."""

# A server that says nothing is dropped after two missed pings: with the default of 30 s, interest of clients behind a
# frozen server would linger for a minute and a request to them would meet silence instead of "no responders".
# Clients are given all URLs from the start, so that those of a proxy in front of a server are not gone round.
_CONFIG: Final = """\
server_name: "{name}"
http: "{host}:{monitor_port}"
cluster {{
  name: "{cluster}"
  host: "{host}"
  port: {cluster_port}
  routes: [{routes}]
  no_advertise: true
  ping_interval: "2s"
}}
"""

_T = TypeVar("_T")


class _Led(msgspec.Struct, frozen=True):
    leader: str = ""
    replicas: list[msgspec.Raw] = []
    """The others."""


class _StreamDetail(msgspec.Struct, frozen=True):
    name: str
    cluster: _Led = _Led()


class _Account(msgspec.Struct, frozen=True):
    stream_detail: list[_StreamDetail] = []


class _View(msgspec.Struct, frozen=True):
    """What one server says of JetStream."""

    meta_cluster: _Led = _Led()
    account_details: list[_Account] = []

    def streams(self) -> Iterator[_StreamDetail]:
        for account in self.account_details:
            yield from account.stream_detail


class NatsCluster:
    """Running servers that know each other. Made by `run_cluster`."""

    def __init__(self, servers: Sequence[NatsServer], monitor_ports: Sequence[int]) -> None:
        self.servers: Final = tuple(servers)
        """Each may be started, stopped, killed, frozen, thawed and restarted as one likes."""
        self._monitor_ports = tuple(monitor_ports)

    @property
    def url(self) -> str:
        """Where clients connect: every server, separated by commas."""
        return ",".join(server.url for server in self.servers)

    def leader(self, timeout_s: float = ELECTED_S) -> NatsServer:
        """Return the server that leads JetStream itself; wait for an election if one is due.

        Raises:
            NoQuorum: nobody leads within `timeout_s`.
        """
        return self._await(
            lambda: self._agreed([view.meta_cluster.leader for view in self._views()]),
            timeout_s,
            "JetStream has no leader",
        )

    def leader_of(self, stream: str, timeout_s: float = ELECTED_S) -> NatsServer:
        """Return the server that leads `stream`; wait for an election if one is due.

        Raises:
            NoQuorum: nobody leads it within `timeout_s`, or there is no such stream.
        """

        def find() -> NatsServer | None:
            return self._leading(
                [detail for view in self._views() for detail in view.streams() if detail.name == stream]
            )

        return self._await(find, timeout_s, f"stream {stream} has no leader")

    def await_quorum(self, timeout_s: float = ELECTED_S) -> None:
        """Return when JetStream and every stream has a leader that is alive, and every live server knows the former.

        Raises:
            NoQuorum: it has not come to that within `timeout_s`.
        """

        def settled() -> bool | None:
            views = self._views()
            led = [view.meta_cluster.leader for view in views]
            streams: dict[str, list[_StreamDetail]] = {}
            for view in views:
                for detail in view.streams():
                    streams.setdefault(detail.name, []).append(detail)
            whole = (
                len(views) == sum(map(_answers, self.servers))
                and len(set(led)) == 1
                and self._agreed(led) is not None
                and all(self._leading(details) is not None for details in streams.values())
            )
            return whole or None

        self._await(settled, timeout_s, "the servers do not agree on their leaders")

    def await_caught_up(self, timeout_s: float = ELECTED_S) -> None:
        """Return when every live server has all that it keeps of every stream: the next one may now go.

        Raises:
            NoQuorum: it has not come to that within `timeout_s`.
        """

        def caught_up() -> bool | None:
            live = [port for server, port in self._with_ports() if _answers(server)]
            return all(_get(port, "/healthz") is not None for port in live) or None

        self.await_quorum(timeout_s)
        self._await(caught_up, timeout_s, "a server has not caught up")

    def _leading(self, details: Sequence[_StreamDetail]) -> NatsServer | None:
        """Return who leads the stream that `details` are about, by a majority of the servers that keep it."""
        kept_by = max((1 + len(detail.cluster.replicas) for detail in details), default=1)
        return self._agreed([detail.cluster.leader for detail in details], of=kept_by)

    def _agreed(self, leaders: Sequence[str], of: int | None = None) -> NatsServer | None:
        """Return whom more than half of `of` servers (all, if None) name, if that one is alive."""
        ((name, votes),) = Counter(filter(None, leaders)).most_common(1) or [("", 0)]
        if 2 * votes <= (len(self.servers) if of is None else of):
            return None
        # The followers of a leader that died name it until the election.
        return next((server for server in self.servers if server.folder.name == name and _answers(server)), None)

    def _views(self) -> list[_View]:
        answers = [_get(port, "/jsz?streams=true") for server, port in self._with_ports() if _answers(server)]
        return [msgspec.json.decode(answer, type=_View) for answer in answers if answer is not None]

    def _with_ports(self) -> Iterator[tuple[NatsServer, int]]:
        return zip(self.servers, self._monitor_ports, strict=True)

    def _await(self, look: Callable[[], _T | None], timeout_s: float, problem: str) -> _T:
        deadline = time.monotonic() + timeout_s
        while (found := look()) is None:
            if time.monotonic() > deadline:
                raise NoQuorum(f"{problem} ({timeout_s:g} s waited)")
            time.sleep(_POLL_S)
        return found


@contextlib.contextmanager
def run_cluster(nodes: int = 3, *, store_dir: Path | None = None, config: str = "") -> Iterator[NatsCluster]:
    """Run a cluster for the length of the block.

    Args:
        nodes: how many servers, two at least; named n1, n2, ….
        store_dir: folder for their folders, kept afterwards; a temporary one, removed afterwards, if None.
        config: settings for each, in the syntax of nats-server's own file.

    Yields:
        The cluster, with a quorum.

    Raises:
        NatsMissing: the binary is not installed.
        NatsNotStarted: see `NatsServer.start`.
        NoQuorum: the servers did not find each other.
    """
    with contextlib.ExitStack() as stack:
        folder = (store_dir or stack.enter_context(temporary_folder())).resolve()
        cluster = _start(folder, nodes, config)
        for server in cluster.servers:
            stack.callback(server.kill)
        cluster.await_quorum()
        yield cluster


def _start(folder: Path, nodes: int, config: str) -> NatsCluster:
    attempt = 1
    while True:
        try:
            return _start_on(free_ports(3 * nodes), folder, config)
        except NatsNotStarted as error:
            if attempt == _NEW_PORTS or "is taken" not in str(error):
                raise
        attempt += 1


def _start_on(ports: Sequence[int], folder: Path, config: str) -> NatsCluster:
    nodes = len(ports) // 3
    client_ports, cluster_ports, monitor_ports = ports[:nodes], ports[nodes : 2 * nodes], ports[2 * nodes :]
    binary, servers = find_binary(), []
    for i in range(nodes):
        name = f"n{i + 1}"
        text = _CONFIG.format(
            name=name,
            host=HOST,
            monitor_port=monitor_ports[i],
            cluster=_NAME,
            cluster_port=cluster_ports[i],
            routes=", ".join(f'"nats-route://{HOST}:{port}"' for port in cluster_ports if port != cluster_ports[i]),
        )
        servers.append(NatsServer(binary, folder / name, port=client_ports[i], jetstream=True, config=text + config))
    try:
        for server in servers:
            server.start()
    except BaseException:
        for server in servers:
            server.kill()
        raise
    return NatsCluster(servers, monitor_ports)


def _answers(server: NatsServer) -> bool:
    return server.running and not server.frozen


def _get(port: int, path: str) -> bytes | None:
    """Return what the monitoring page says; None if it does not answer with 200."""
    connection = http.client.HTTPConnection(HOST, port, timeout=_ASK_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return content if answer.status == http.client.OK else None
