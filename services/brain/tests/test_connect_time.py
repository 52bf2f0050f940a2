"""How long the adapters try to connect: as long as the agent says, to a server that takes connections and is silent."""

import asyncio
from contextlib import aclosing

import pytest

from trunkline.brain.llm import CallerSaid, LlmRequest, llm_providers
from trunkline.proto.agent import Llm, Timeouts
from trunkline.proto.ids import CallId, TurnId
from trunkline.providers.errors import ProviderError
from trunkline.testing.patience import PATIENCE_S

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("provider", "variable", "endpoint"),
    [
        ("openai", "OPENAI", ""),
        ("openai-responses", "OPENAI", ""),
        ("openai-compatible", "VLLM", "vllm"),
        ("anthropic", "ANTHROPIC", ""),
        ("google", "GOOGLE", ""),
    ],
)
def test_a_connection_may_take_as_long_as_the_agent_says(provider: str, variable: str, endpoint: str) -> None:
    async def story() -> None:
        async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as silent:
            address = f"https://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
            plugins = llm_providers({f"{variable}_API_KEY": "k", f"{variable}_BASE_URL": address}, [])
            llm = Llm(provider=provider, model="m", endpoint=endpoint, timeouts=Timeouts(connect_ms=100))
            request = LlmRequest(
                call=CallId("c1"), turn=TurnId(1), llm=llm, prompt="", messages=(CallerSaid(text="Hello."),), tools=()
            )
            adapter = plugins.get(provider)  # imports its SDK, which takes seconds
            async with asyncio.timeout(PATIENCE_S):  # the adapters' own is ten minutes
                with pytest.raises(ProviderError) as failure:
                    async with aclosing(adapter.stream(request)) as deltas:
                        await anext(deltas)
            assert failure.value.kind == "connect"
            await plugins.aclose()

    asyncio.run(story())
