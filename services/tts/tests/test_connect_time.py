"""How long the adapters try to connect: as long as the agent says, to a server that takes connections and is silent."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from trunkline.proto.agent import Option, Timeouts, Tts
from trunkline.providers.errors import ProviderError
from trunkline.testing.patience import PATIENCE_S
from trunkline.tts.provider import providers

pytestmark = pytest.mark.integration


async def written() -> AsyncGenerator[str, None]:
    yield "Good evening."


@pytest.mark.parametrize(
    ("provider", "scheme", "options", "said"),
    [
        ("deepgram", "http", {}, "within 100 ms"),
        ("deepgram", "https", {}, "within 100 ms"),
        ("elevenlabs", "http", {}, "within 100 ms"),
        ("elevenlabs", "https", {"transport": "http"}, "no connection"),
        ("openai", "https", {}, "no connection"),
    ],
)
def test_a_connection_may_take_as_long_as_the_agent_says(
    provider: str, scheme: str, options: dict[str, Option], said: str
) -> None:
    async def story() -> None:
        variable = provider.upper()
        async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as silent:
            port = silent.sockets[0].getsockname()[1]
            plugins = providers(
                {f"{variable}_API_KEY": "k", f"{variable}_BASE_URL": f"{scheme}://127.0.0.1:{port}"}, []
            )
            tts = Tts(provider=provider, options=options, timeouts=Timeouts(connect_ms=100))
            adapter = plugins.get(provider)  # imports its SDK, which takes seconds
            voice = await adapter.open(tts)
            async with asyncio.timeout(PATIENCE_S):  # over HTTP, the adapters' own is ten minutes
                with pytest.raises(ProviderError, match=said) as failure:
                    async with aclosing(voice.speak(written())) as sound:
                        await anext(sound)
            assert failure.value.kind == "connect"
            await voice.aclose()
            await plugins.aclose()

    asyncio.run(story())
