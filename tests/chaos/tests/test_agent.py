from pathlib import Path

import pytest

from trunkline.agents.folder import read_agent
from trunkline.chaos.codebook import LINES
from trunkline.chaos.script import QUESTIONS, TOOL

pytestmark = pytest.mark.unit

AGENT = read_agent(Path(__file__).parents[1] / "agents" / "chaos.toml", {})


def test_the_agents_lines_are_those_of_the_codebook():
    said = (AGENT.greeting, AGENT.apology, AGENT.farewell, AGENT.busy, AGENT.spent, AGENT.resumed)
    assert said == (LINES.greeting, LINES.apology, LINES.farewell, LINES.busy, LINES.spent, LINES.resumed)
    assert AGENT.turns.fillers == (LINES.filler, LINES.filler_again)
    assert (AGENT.turns.reprompt, AGENT.turns.silence_goodbye) == (LINES.reprompt, LINES.silence_goodbye)


def test_the_agent_hears_every_question():
    assert all(question in AGENT.stt.grammar for question in QUESTIONS)


def test_the_tool_is_not_run_again_by_itself():
    (tool,) = AGENT.tools
    assert (tool.name, tool.repeatable) == (TOOL, False)
