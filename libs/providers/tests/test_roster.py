"""What agents need is asked for before the first call, and opened when it rings."""

import asyncio

import pytest

from trunkline.proto.agent import Agent, Llm
from trunkline.providers.errors import Misconfigured, Unavailable
from trunkline.providers.roster import Roster
from trunkline.runtime.plugins import Plugins
from trunkline.runtime.settings import SettingsError

pytestmark = pytest.mark.unit


class Acme:
    """A provider that needs a key."""

    def __init__(self, environ):
        self.key = environ.get("ACME_API_KEY", "")
        self.warmed = []

    async def warm(self, llm):
        if llm.model == "broken":
            raise OSError
        self.warmed.append(llm)

    async def aclose(self):
        pass


class Found:
    def __init__(self, name, made):
        self.name = name
        self._made = made

    def load(self):
        if self._made is None:
            raise ImportError("no such library")
        return self._made


def check(provider, _agent, _choice):
    if not provider.key:
        raise Misconfigured("ACME_API_KEY", "is not set")


def roster(environ):
    found = [Found("acme", Acme), Found("broken", None)]
    plugins = Plugins("llm.provider", "trunkline.nothing", {}, environ, found)
    return Roster("llm", plugins, lambda agent: (agent.llm, *agent.llm.fallbacks), check)


def agents(tmp_path, **files):
    for name, text in files.items():
        (tmp_path / f"{name}.toml").write_text(f'name = "{name}"\n{text}')
    return str(tmp_path)


ACME = '[llm]\nprovider = "acme"\n'


def test_one_missing_key_is_one_line_that_names_everybody_who_needs_it(tmp_path):
    folder = agents(tmp_path, a=ACME, b=ACME, c=ACME + '[[llm.fallbacks]]\nprovider = "acme"\n')
    with pytest.raises(SettingsError) as raised:
        asyncio.run(roster({}).meet(folder, {}))
    assert str(raised.value).splitlines() == [
        "ACME_API_KEY: is not set; needed by llm.provider = 'acme' of agents a, b, c",
        "ACME_API_KEY: is not set; needed by llm.fallbacks[0].provider = 'acme' of agent c",
    ]


def test_a_provider_that_is_not_there_is_named_with_what_there_is(tmp_path):
    with pytest.raises(SettingsError, match=r"no provider 'script' here; expected one of acme, broken; needed by .* a"):
        asyncio.run(roster({}).meet(agents(tmp_path, a=""), {}))


def test_a_folder_that_is_not_given_or_empty_or_cannot_be_read_asks_for_nothing(tmp_path):
    assert asyncio.run(roster({}).meet("", {})) == set()
    assert asyncio.run(roster({}).meet(str(tmp_path), {})) == set()
    assert asyncio.run(roster({}).meet(agents(tmp_path, a="greeting = '${NOT_SET_HERE}'"), {})) == set()


def test_what_is_there_is_used(tmp_path):
    assert asyncio.run(roster({"ACME_API_KEY": "k"}).meet(agents(tmp_path, a=ACME), {})) == {"acme"}


@pytest.mark.parametrize(("name", "error"), [("nobody", Misconfigured), ("broken", Unavailable)])
def test_a_call_that_asks_for_what_is_not_there_is_told_so(name, error):
    with pytest.raises(error, match=r"^llm\.provider: "):
        asyncio.run(roster({}).get(name))


def test_when_it_rings_the_first_choice_is_warmed_and_trouble_is_only_counted():
    async def ring():
        those = roster({})
        acme = await those.get("acme")
        for llm in (Llm(provider="acme"), Llm(provider="acme", model="broken"), Llm(provider="nobody")):
            those.ring(Agent(name="a", llm=llm))
        while those._warming:
            await asyncio.gather(*those._warming)
        warmed, failed = list(acme.warmed), those.not_warmed
        await those.aclose()
        return warmed, failed

    warmed, failed = asyncio.run(ring())
    assert [llm.provider for llm in warmed] == ["acme"]
    assert failed == 2
