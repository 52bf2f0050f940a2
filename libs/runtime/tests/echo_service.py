"""A small real service for the tests of the chassis: it waits as long as it is told."""

import asyncio
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from trunkline.runtime.process import Chassis, run

NUMBER = "+4915112345678"
"""Private: it stands in messages of exceptions."""


class EchoSettings(msgspec.Struct, frozen=True, kw_only=True):
    drain_takes_s: Annotated[float, Meta(ge=0)] = 0.0
    drains_while: str = ""
    """A drain lasts until there is no such file."""
    fail_after_s: float = 0.0
    breaks: Literal["", "build", "start", "task", "callback"] = ""


class Echo:
    def __init__(self, settings: EchoSettings, chassis: Chassis) -> None:
        self.settings = settings
        self.chassis = chassis
        chassis.stats("echo", lambda: [("drain takes", settings.drain_takes_s)])

    async def start(self) -> None:
        match self.settings.breaks:
            case "start":
                broken("start")
            case "task":
                asyncio.create_task(broken_later(), name="the-task")  # noqa: RUF006 - nobody holds or awaits it
            case "callback":
                asyncio.get_running_loop().call_soon(broken, NUMBER)
        if self.settings.fail_after_s:
            asyncio.get_running_loop().call_later(self.settings.fail_after_s, self.chassis.fail, "told to")

    @property
    def busy(self) -> bool:
        return bool(self.settings.drains_while) and Path(self.settings.drains_while).exists()

    async def drain(self) -> None:
        print("draining", flush=True)
        await asyncio.sleep(self.settings.drain_takes_s)
        while self.busy:
            await asyncio.sleep(0.02)
        print("drained", flush=True)

    async def stop(self) -> None:
        print("stopped", flush=True)


def broken(where: str) -> None:
    raise RuntimeError(f"{where} is broken for {NUMBER}")


async def broken_later() -> None:
    broken("task")


async def build(settings: EchoSettings, chassis: Chassis) -> Echo:
    if settings.breaks == "build":
        broken("build")
    return Echo(settings, chassis)


if __name__ == "__main__":
    run("echo", EchoSettings, build)
