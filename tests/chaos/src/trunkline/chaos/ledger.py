"""The tool `ledger`: leaves a line in a file, once for every time it has its effect.

The effect stands in the middle of its run, so that a kill may come before it, after it, or never.
"""

import asyncio
import os
from typing import Any, Final

import msgspec

from trunkline.brain.tools import ToolCallInfo
from trunkline.chaos.evidence import Effect
from trunkline.runtime.clock import SYSTEM

FILE_VARIABLE: Final = "TRUNKLINE_CHAOS_EFFECTS"
AROUND_S: Final = 0.15


async def ledger(arguments: dict[str, Any], call: ToolCallInfo) -> dict[str, object]:
    """Write down that it ran.

    Raises:
        ValueError: there is no file to write to.
    """
    name = os.environ.get(FILE_VARIABLE)
    if not name:
        raise ValueError(f"{FILE_VARIABLE} is not set")
    await asyncio.sleep(AROUND_S)
    effect = Effect(key=call.idempotency_key, call=call.call, question=int(arguments["question"]), t=SYSTEM.monotonic())
    # One write to a file opened for appending is whole or not there, whoever else writes.
    file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, msgspec.json.encode(effect) + b"\n")
    finally:
        os.close(file)
    await asyncio.sleep(AROUND_S)
    return {"written": True}
