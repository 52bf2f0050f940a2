"""Ask a process whether it is ready: one GET, no client library."""

import asyncio
import json
from typing import Final

TIMEOUT_S: Final = 1.0
_MOST_BYTES: Final = 65_536


async def why_not_ready(port: int, host: str = "127.0.0.1") -> str | None:
    """Return None if ``/health/ready`` of the process at `port` answers 200, else what is in the way."""
    writer = None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port)
            request = f"GET /health/ready HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
            writer.write(request.encode())
            answer = await reader.read(_MOST_BYTES)
            while more := await reader.read(_MOST_BYTES):
                answer += more
    except (OSError, TimeoutError):
        return "it does not answer"
    finally:
        if writer is not None:
            writer.close()
    return reason_in(answer)


def reason_in(answer: bytes) -> str | None:
    """Return None if the HTTP `answer` has status 200, else the problems its body names, or its status line."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b"\r\n", 1)[0].decode(errors="replace")
    if status.split(" ")[1:2] == ["200"]:
        return None
    try:
        problems = json.loads(body)["problems"]
        return "; ".join(f"{name}: {text}" for name, text in problems.items()) or status
    except (ValueError, LookupError, TypeError, AttributeError):
        return status or "it closes the connection"
