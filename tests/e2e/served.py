"""Calls that are placed again when nobody had room for them."""

import asyncio
from functools import partial
from typing import Any

import msgspec

from trunkline.call import CallResult, Target, place_call
from trunkline.call.scenario import Scenario
from trunkline.devserver.devserver import Devserver
from trunkline.proto.events import CallEnded, Event
from trunkline.proto.ids import CallId
from trunkline.testing.patience import until


async def call_until_served(dev: Devserver, target: Target, scenario: Scenario, **more: Any) -> CallResult:
    """Place a call, and again after a second while it is turned away.

    It is for a second or two after the machine stood still: an edge or a worker that was late takes nothing new.
    """
    while True:
        result = await place_call(target, scenario, **more)
        if result.streams:
            await until(partial(_reason, dev, result.call))
            if not _reason(dev, result.call).endswith("-worker"):
                return result
        await asyncio.sleep(1.0)


def _reason(dev: Devserver, call: CallId) -> str:
    """Return why `call` ended, once the events service has written it."""
    events = (msgspec.json.decode(line, type=Event) for line in dev.events_file.read_bytes().splitlines())
    return next((event.fact.reason for event in events if event.call == call and isinstance(event.fact, CallEnded)), "")
