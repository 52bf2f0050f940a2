"""Fish Audio's voices keep the rules of every voice: what a third party's own tests hold."""

import asyncio

import pytest
from trunkline_fish.provider import FishProvider

from trunkline.proto.agent import Tts
from trunkline.testing.providers.fish import FishEmulator
from trunkline.tts.conformance import check_tts_provider

pytestmark = pytest.mark.integration

KEY = {"FISH_API_KEY": "test-key"}


def test_fish_conforms() -> None:
    async def run() -> None:
        async with FishEmulator(first_s=0.02, pace=200) as emulator:
            await check_tts_provider(
                lambda: FishProvider(KEY | {"FISH_BASE_URL": emulator.url}),
                Tts(provider="fish"),
                unreachable=lambda: FishProvider(KEY | {"FISH_BASE_URL": "http://127.0.0.1:9"}),
            )

    asyncio.run(run())
