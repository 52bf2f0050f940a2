"""How long the adapters try to connect: as long as the agent says, to a server that takes connections and is silent."""

import asyncio

import pytest

from trunkline.proto.agent import Stt, Timeouts
from trunkline.proto.ids import UtteranceId
from trunkline.stt.provider import Failed, Heard, Lost, providers
from trunkline.testing.patience import PATIENCE_S

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("provider", "variable", "scheme"),
    [
        ("deepgram", "DEEPGRAM", "http"),
        ("deepgram", "DEEPGRAM", "https"),
        ("deepgram-flux", "DEEPGRAM", "http"),
        ("elevenlabs", "ELEVENLABS", "http"),
        ("openai", "OPENAI", "https"),
    ],
)
def test_a_connection_may_take_as_long_as_the_agent_says(provider: str, variable: str, scheme: str) -> None:
    async def story() -> None:
        heard: asyncio.Queue[Heard] = asyncio.Queue()
        async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as silent:
            port = silent.sockets[0].getsockname()[1]
            plugins = providers(
                {f"{variable}_API_KEY": "k", f"{variable}_BASE_URL": f"{scheme}://127.0.0.1:{port}"}, []
            )
            stt = Stt(provider=provider, timeouts=Timeouts(connect_ms=100))
            adapter = plugins.get(provider)  # imports its SDK, which takes seconds
            stream = await adapter.open(stt, heard.put_nowait)
            stream.begin(UtteranceId(1))
            stream.push(bytes(3_200), voiced=True)
            stream.finish()
            match await asyncio.wait_for(heard.get(), PATIENCE_S):
                case Lost(error) | Failed(_, error):
                    assert error.kind == "connect"
                    # OpenAI's library does not say how long it tried; left to itself it would for 600 s.
                    assert provider == "openai" or str(error) == "no connection within 100 ms"
                case other:
                    raise AssertionError(other)
            await stream.aclose()
            await plugins.aclose()

    asyncio.run(story())
