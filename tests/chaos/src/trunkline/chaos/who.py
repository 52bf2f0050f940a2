"""Which process is which worker: from its journal, else from what it has subscribed to."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import msgspec

WORKER_ID: Final = re.compile(r"(?:edge|stt|brain|tts)-[a-z2-7]{8}")
_SUBSCRIBED: Final = re.compile(r"(?:probe|release|audio|handover|holds)\.((?:edge|stt|brain|tts)-[a-z2-7]{8})\b")
_INODE: Final = re.compile(r"socket:\[(\d+)\]")


class _Connection(msgspec.Struct, frozen=True):
    port: int
    subscriptions_list: list[str] = []


class _Connections(msgspec.Struct, frozen=True):
    connections: list[_Connection] = []


def noted(journals: Path, pid: int) -> str:
    """Return the id that process `pid` signs its journal with; empty if it has written nothing yet."""
    for path in journals.glob(f"*-{pid}.jsonl"):
        with path.open("rb") as file:
            for line in file:
                with contextlib.suppress(msgspec.MsgspecError):
                    who = str(msgspec.json.decode(line).get("who", ""))
                    if WORKER_ID.fullmatch(who):
                        return who
    return ""


async def subscribed(monitor_port: int, pid: int) -> str:
    """Return the id in what the process has subscribed to, as the server's monitoring page tells; empty if none."""
    url = f"http://127.0.0.1:{monitor_port}/connz?subs=1&limit=1024"
    try:
        async with httpx.AsyncClient(timeout=1.0, trust_env=False) as client:
            page = msgspec.json.decode((await client.get(url)).content, type=_Connections)
    except (httpx.HTTPError, msgspec.MsgspecError):
        return ""
    ports = set(_ports(pid))
    for connection in page.connections:
        if connection.port in ports:
            for subject in connection.subscriptions_list:
                if found := _SUBSCRIBED.match(subject):
                    return found[1]
    return ""


def _ports(pid: int) -> Iterator[int]:
    """Yield the local ports of the process's TCP connections."""
    inodes: set[str] = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if found := _INODE.fullmatch(str(entry.readlink())):
                    inodes.add(found[1])
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes:
                yield int(fields[1].partition(":")[2], 16)
