"""A small real service for the tests of the chassis: it waits as long as it is told."""

import asyncio
from typing import Annotated

import msgspec
from msgspec import Meta

from trunkline.runtime.process import Chassis, run


class EchoSettings(msgspec.Struct, frozen=True, kw_only=True):
    drain_takes_s: Annotated[float, Meta(ge=0)] = 0.0
    fail_after_s: float = 0.0


class Echo:
    def __init__(self, settings: EchoSettings, chassis: Chassis) -> None:
        self.settings = settings
        self.chassis = chassis
        chassis.stats("echo", lambda: [("drain takes", settings.drain_takes_s)])

    async def start(self) -> None:
        if self.settings.fail_after_s:
            asyncio.get_running_loop().call_later(self.settings.fail_after_s, self.chassis.fail, "told to")

    async def drain(self) -> None:
        print("draining", flush=True)
        await asyncio.sleep(self.settings.drain_takes_s)
        print("drained", flush=True)

    async def stop(self) -> None:
        print("stopped", flush=True)


async def build(settings: EchoSettings, chassis: Chassis) -> Echo:
    return Echo(settings, chassis)


if __name__ == "__main__":
    run("echo", EchoSettings, build)
