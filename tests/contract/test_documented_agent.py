"""docs/agents.md names every key of an agent file with its default, and its examples are agents."""

import asyncio
import re
from pathlib import Path

import msgspec
import pytest

from trunkline.agents import read_agent
from trunkline.brain.llm import llm_providers
from trunkline.proto.agent import Agent, Rule, Script, Slot, Tool
from trunkline.stt.provider import providers as stt_providers
from trunkline.tts.provider import providers as tts_providers

pytestmark = pytest.mark.unit

PAGE = (Path(__file__).parents[2] / "docs" / "agents.md").read_text()
SCRIPTS, TOOLS = (PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0] for title in ("Scripts", "Tools"))
KEYS = {"DEEPGRAM_API_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "ELEVENLABS_API_KEY"}
ENVIRON = {**dict.fromkeys(KEYS, "test-key"), "WHISPER_BASE_URL": "http://127.0.0.1:9/v1"}


def keys_of(kind: type[msgspec.Struct], prefix: str, whole: msgspec.Struct | None = None):
    for field in msgspec.structs.fields(kind):
        default = field.default if whole is None else getattr(whole, field.name)
        if default is msgspec.NODEFAULT and field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        if isinstance(default, msgspec.Struct):
            yield from keys_of(type(default), f"{prefix}{field.name}.", default)
        elif field.name != "tools":  # a table of its own
            yield prefix + field.name, default


def shown(default: object) -> tuple[str, ...]:
    match default:
        case bool():
            return (str(default).lower(),)
        case int() | float():
            return (f"{default:g}",)
        case None | "" | () | {}:
            return ("none",)
        case str():
            return (default,)
        case tuple():
            return tuple(map(str, default))
        case _:
            return ("needed",)


AGENT_KEYS = list(keys_of(Agent, ""))


@pytest.mark.parametrize(("key", "default"), AGENT_KEYS, ids=[key for key, _ in AGENT_KEYS])
def test_a_key_is_documented_with_its_default(key, default):
    row = next((line for line in PAGE.splitlines() if line.startswith(f"| `{key}` |")), None)
    assert row is not None, f"{key} is missing"
    cell = row.split("|")[2]
    assert all(text in cell for text in shown(default)), f"{key}: {default!r} is not in {cell!r}"


@pytest.mark.parametrize("kind", [Script, Slot, Rule, Tool])
def test_a_key_of_what_agents_list_is_documented(kind):
    section = TOOLS if kind is Tool else SCRIPTS
    named = set(re.findall(r"`(?:llm\.script\.)?(\w+)`", section)) | set(re.findall(r"llm\.script\.(\w+)", section))
    assert {field.name for field in msgspec.structs.fields(kind)} <= named


def test_no_key_is_documented_that_does_not_exist():
    known = {key for key, _ in AGENT_KEYS}
    paths = set(re.findall(r"^\| `((?:stt|llm|tts|turns|limits)\.[\w.]+)` \|", PAGE, re.MULTILINE))
    assert paths <= known


EXAMPLES = {text.split('"')[1]: text for text in re.findall(r"```toml\n(name = .*?)```", PAGE, re.DOTALL)}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_an_agent_that_can_be_served(tmp_path, name):
    path = tmp_path / f"{name}.toml"
    path.write_text(EXAMPLES[name])
    agent = read_agent(path, ENVIRON)

    async def ask() -> None:
        ears, minds, mouths = stt_providers(ENVIRON), llm_providers(ENVIRON), tts_providers(ENVIRON)
        for stt in (agent.stt, *agent.stt.fallbacks):
            (await ears.load(stt.provider)).check(stt)
        for llm in (agent.llm, *agent.llm.fallbacks):
            (await minds.load(llm.provider)).check(llm, agent.tools)
        for tts in (agent.tts, *agent.tts.fallbacks):
            (await mouths.load(tts.provider)).check(tts)
        for plugins in (ears, minds, mouths):
            await plugins.aclose()

    asyncio.run(ask())
