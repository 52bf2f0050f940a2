"""What agents need is asked for before the first call."""

import pytest

from trunkline.agents.needs import agents_in, unmet
from trunkline.proto.agent import Agent, Llm

pytestmark = pytest.mark.unit


def minds(agent):
    yield "llm.provider", agent.llm
    for number, fallback in enumerate(agent.llm.fallbacks):
        yield f"llm.fallbacks[{number}].provider", fallback


def test_one_missing_key_is_one_line_that_names_everybody_who_needs_it():
    acme = Llm(provider="acme")
    agents = [Agent(name="a", llm=acme), Agent(name="b", llm=acme), Agent(name="c", llm=Llm(fallbacks=(acme,)))]
    problems = unmet(agents, minds, lambda _, llm: "ACME_API_KEY is not set" if llm.provider == "acme" else None)
    assert problems == [
        "ACME_API_KEY is not set; needed by llm.provider = 'acme' of agents a, b",
        "ACME_API_KEY is not set; needed by llm.fallbacks[0].provider = 'acme' of agent c",
    ]


def test_a_folder_that_is_not_given_or_empty_asks_for_nothing(tmp_path):
    assert agents_in("", {}) == []
    assert agents_in(str(tmp_path), {}) == []
    (tmp_path / "shop.toml").write_text('name = "shop"')
    assert [agent.name for agent in agents_in(str(tmp_path), {})] == ["shop"]
