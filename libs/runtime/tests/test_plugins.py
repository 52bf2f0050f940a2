import asyncio
import threading

import pytest

from trunkline.runtime.plugins import NoPlugin, PluginBroken, Plugins
from trunkline.testing.patience import PATIENCE_S

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


def test_a_part_is_loaded_once_in_a_thread_while_the_loop_goes_on():
    threads, may_go = [], threading.Event()

    def slow():
        threads.append(threading.current_thread())
        assert may_go.wait(PATIENCE_S)
        return Part

    async def story():
        parts = plugins(load=slow)
        waiting = [asyncio.create_task(parts.load("acme")) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()  # harms nobody else
        await asyncio.sleep(0)
        may_go.set()
        _, part, same = await asyncio.gather(*waiting, return_exceptions=True)
        assert part is same is parts.get("acme") is await parts.load("acme")

    asyncio.run(story())
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


def test_a_part_that_cannot_be_loaded_says_why_and_may_be_asked_for_again():
    problems = [SystemExit(), ImportError("no luck")]

    def load():
        if problems:
            raise problems.pop(0)
        return Part

    async def story():
        parts = plugins(load=load)
        with pytest.raises(NoPlugin, match="expected one of acme, ours"):
            await parts.load("akme")
        with pytest.raises(PluginBroken, match="'acme' cannot be made: SystemExit"):
            await parts.load("acme")
        with pytest.raises(PluginBroken, match="'acme' cannot be made: no luck"):
            await parts.load("acme")
        assert await parts.load("acme")

    asyncio.run(story())
