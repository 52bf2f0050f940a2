import asyncio

import pytest

from trunkline.stt.errors import Misconfigured, Unavailable
from trunkline.stt.providers.bench import BenchProvider
from trunkline.stt.registry import Registry

pytestmark = pytest.mark.unit


def test_our_names_are_known_without_loading_anything():
    assert set(Registry({}).names()) >= {"bench", "local"}


def test_an_unknown_name_is_refused_with_setting_value_and_choice():
    with pytest.raises(
        Misconfigured, match=r"stt\.provider: no provider 'depgram' here; expected one of .*bench.*local"
    ):
        Registry({}).get("depgram")


def test_a_provider_is_made_once_and_given_the_environment():
    seen = []

    def make(environ):
        seen.append(environ)
        return BenchProvider(environ)

    registry = Registry({"ACME_KEY": "k"}, {"acme": lambda: make})
    assert registry.get("acme") is registry.get("acme")
    assert seen == [{"ACME_KEY": "k"}]
    asyncio.run(registry.aclose())


def test_a_provider_that_cannot_be_made_says_which():
    def broken():
        raise ImportError("no module named acme")

    with pytest.raises(Unavailable, match=r"stt\.provider: 'acme' cannot be made: no module named acme"):
        Registry({}, {"acme": broken}).get("acme")


def test_a_wrong_setting_of_the_local_provider_names_the_variable():
    with pytest.raises(Unavailable, match="TRUNKLINE_POCKETSPHINX_DECODERS='many'"):
        Registry({"TRUNKLINE_POCKETSPHINX_DECODERS": "many"}).get("local")
