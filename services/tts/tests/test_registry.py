"""Providers by name."""

import asyncio

import pytest

from trunkline.tts.errors import Misconfigured, Unavailable
from trunkline.tts.providers.bench import BenchProvider
from trunkline.tts.registry import Registry

pytestmark = pytest.mark.unit


def test_ours_are_there_without_being_loaded():
    assert {"local", "bench"} <= set(Registry().names())


def test_a_provider_is_made_once():
    registry = Registry()
    assert isinstance(registry.get("bench"), BenchProvider)
    assert registry.get("bench") is registry.get("bench")
    asyncio.run(registry.aclose())


def test_an_unknown_one_is_refused_with_the_choice():
    with pytest.raises(Misconfigured, match=r"tts\.provider = 'acme' is not there; expected one of bench, local"):
        Registry().get("acme")


def test_one_that_cannot_be_imported_says_why():
    def load():
        raise ModuleNotFoundError("No module named 'acme_voices'")

    with pytest.raises(Unavailable, match="'acme' cannot be loaded: No module named 'acme_voices'"):
        Registry({"acme": load}).get("acme")
