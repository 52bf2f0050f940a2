"""A whole deployment for the tests that need one: five processes and a bus, on free ports."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from trunkline.devserver.devserver import Devserver, run_dev
from trunkline.devserver.journal import Journal
from trunkline.devserver.settings import Plan, find_agents


class Deployment:
    """Starts deployments and keeps what their processes logged."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @asynccontextmanager
    async def running(self, **workers: int) -> AsyncIterator[Devserver]:
        plan = Plan(
            port=0,
            note=False,
            workers=workers,
            agents=find_agents(Path(__file__).parent),
            drain_s=1.0,
            environ=dict(os.environ),
        )
        async with run_dev(plan, Journal(self.lines.append, [], colour=False)) as dev:
            yield dev


@pytest.fixture
def deployment():
    one = Deployment()
    yield one
    # Shown by pytest when the test fails.
    sys.stderr.write("\n".join(one.lines[-300:]))
