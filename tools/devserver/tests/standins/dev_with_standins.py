"""``trunkline dev`` with stand-ins for its services: ``python dev_with_standins.py <port>``."""

import asyncio
import os
import sys

from trunkline.devserver.__main__ import run_until_asked
from trunkline.devserver.services import ServiceSpec
from trunkline.devserver.settings import Plan

SERVICES = tuple(
    ServiceSpec(
        name=name,
        module=f"standin_{name}",
        port_variable=f"STANDIN_{name.upper()}_PORT",
        many=name == "stt",
        stops_last=name == "events",
    )
    for name in ("edge", "stt", "events")
)

if __name__ == "__main__":
    plan = Plan(services=SERVICES, port=int(sys.argv[1]), drain_s=600.0, environ=dict(os.environ))
    sys.exit(asyncio.run(run_until_asked(plan)))
