"""Fish Audio's voices keep the rules of every voice: what a third party's own tests hold."""

import asyncio

import pytest
from trunkline_fish.provider import FishProvider

from trunkline.proto.agent import Timeouts, Tts
from trunkline.testing.patience import PATIENCE_S
from trunkline.testing.providers.fish import FishEmulator
from trunkline.tts import conformance
from trunkline.tts.conformance import check_tts_provider

pytestmark = pytest.mark.integration

KEY = {"FISH_API_KEY": "test-key"}


def test_fish_conforms(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("STOP_S", "LOST_S"):  # a machine that stands still breaks no rule
        monkeypatch.setattr(conformance, limit, PATIENCE_S)

    async def run() -> None:
        async with FishEmulator(first_s=0.02, pace=200) as emulator:
            await check_tts_provider(
                lambda: FishProvider(KEY | {"FISH_BASE_URL": emulator.url}),
                Tts(provider="fish", timeouts=Timeouts(connect_ms=60_000)),
                unreachable=lambda: FishProvider(KEY | {"FISH_BASE_URL": "http://127.0.0.1:9"}),
            )

    asyncio.run(run())
