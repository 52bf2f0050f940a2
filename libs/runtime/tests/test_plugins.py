import asyncio

import pytest

from trunkline.runtime.plugins import NoPlugin, PluginBroken, Plugins

pytestmark = pytest.mark.unit


class Part:
    def __init__(self, environ):
        self.environ = environ
        self.closed = False

    async def aclose(self):
        self.closed = True


class Installed:
    def __init__(self, name, load):
        self.name = name
        self.load = load


def plugins(load=lambda: Part, environ=None) -> Plugins[Part]:
    ours = {"ours": "no_such_module:Part"}
    return Plugins("x.provider", "trunkline.none", ours, environ or {}, [Installed("acme", load)])


def test_names_are_known_without_loading_anything():
    assert plugins().names() == ["acme", "ours"]


def test_a_part_is_made_once_given_the_environment_and_closed():
    parts = plugins(environ={"KEY": "k"})
    part = parts.get("acme")
    assert part is parts.get("acme")
    assert part.environ == {"KEY": "k"}
    asyncio.run(parts.aclose())
    assert part.closed


def test_an_unknown_name_is_refused_with_the_setting_and_the_choice():
    with pytest.raises(NoPlugin, match=r"x\.provider: no provider 'akme' here; expected one of acme, ours"):
        plugins().get("akme")


def test_a_part_that_cannot_be_imported_or_made_says_why():
    with pytest.raises(PluginBroken, match=r"x\.provider: 'ours' cannot be made: No module named"):
        plugins().get("ours")
    with pytest.raises(PluginBroken, match=r"x\.provider: 'acme' cannot be made: 'KEY'"):
        plugins(load=lambda: lambda environ: environ["KEY"]).get("acme")


def test_a_name_of_ours_cannot_be_taken_over():
    parts = Plugins("x", "none", {"acme": "no_such_module:Part"}, {}, [Installed("acme", lambda: Part)])
    with pytest.raises(PluginBroken):
        parts.get("acme")
