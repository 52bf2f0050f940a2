"""Agent files: strict where somebody typed, patient while calls go on."""

import logging
import os

import pytest

from trunkline.agents import AgentFileError, AgentFolder, read_agent

pytestmark = pytest.mark.unit

GOOD = """
name = "shop"
greeting = "Hello, ${AI_NAME:-Sophie} here."

[turns]
barge_in = true

[[llm.script.rules]]
hear = "hours|open"
say = "From nine to five."
"""


def folder_with(tmp_path, **files):
    for name, text in files.items():
        (tmp_path / f"{name}.toml").write_text(text, "utf-8")
    return tmp_path


def problems_of(tmp_path, text, environ=None, name="shop"):
    path = folder_with(tmp_path, **{name: text}) / f"{name}.toml"
    with pytest.raises(AgentFileError) as raised:
        read_agent(path, environ or {})
    return [problem.removeprefix(f"{path}: ") for problem in raised.value.problems]


class TestAGoodFile:
    def test_becomes_an_agent(self, tmp_path):
        agent = read_agent(folder_with(tmp_path, shop=GOOD) / "shop.toml", {})
        assert agent.name == "shop"
        assert agent.turns.barge_in
        assert agent.llm.script.rules[0].say == "From nine to five."

    @pytest.mark.parametrize(
        ("text", "environ", "greeting"),
        [
            ("${AI_NAME:-Sophie}", {}, "Sophie"),
            ("${AI_NAME:-Sophie}", {"AI_NAME": ""}, "Sophie"),
            ("${AI_NAME:-Sophie}", {"AI_NAME": "Ada"}, "Ada"),
            ("${AI_NAME}", {"AI_NAME": "Ada"}, "Ada"),
            ("${AI_NAME}", {"AI_NAME": ""}, ""),
            ("${AI_NAME:-}", {}, ""),
            ("${A:-x} and ${B:-y}", {"B": "z"}, "x and z"),
            ("$${A} costs $5", {}, "${A} costs $5"),
            ("${A}", {"A": "${B} $(rm -rf /) `id`"}, "${B} $(rm -rf /) `id`"),
        ],
    )
    def test_is_filled_in_from_the_environment(self, tmp_path, text, environ, greeting):
        path = folder_with(tmp_path, shop=f"name = 'shop'\ngreeting = '{text}'") / "shop.toml"
        assert read_agent(path, environ).greeting == greeting

    def test_keys_are_never_filled_in(self, tmp_path):
        found = problems_of(tmp_path, "name = 'shop'\n'${X:-prompt}' = 'a'")
        assert found[0].startswith("${X:-prompt}: unknown key")


class TestABadFile:
    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("[turns]\nbarge_inn = true", "turns.barge_inn: unknown key; did you mean barge_in?"),
            ("[sst]\nprovider = 'x'", "sst: unknown key; did you mean stt?"),
            ("[[llm.script.rules]]\nsey = 'x'", "llm.script.rules[0].sey: unknown key; did you mean say?"),
            (
                "[llm.script.slots.day]\nhear='a'\nhere='a'",
                "llm.script.slots.day.here: unknown key; did you mean hear?",
            ),
            (
                "[limits]\nzzz = 1",
                (
                    "limits.zzz: unknown key; known here: max_cost_usd, max_duration_s, max_failed_turns, "
                    "max_tool_calls_per_turn"
                ),
            ),
            ("[[tools]]\nname='a'\ntimeout = 1", "tools[0].timeout: unknown key; did you mean timeout_s?"),
            ("[turns]\nbarge_in = 'yes'", "turns.barge_in: expected bool, got str"),
            ("[turns]\nendpoint_silence_ms = 5", "turns.endpoint_silence_ms: expected int >= 100"),
            ("[tts]\nspeed = 3.0", "tts.speed: expected float <= 2.0"),
            ("greeting = '${NOBODY}'", "greeting: the variable NOBODY is not set and has no default"),
            (
                "[[llm.script.rules]]\nsay='${NO}'",
                "llm.script.rules[0].say: the variable NO is not set and has no default",
            ),
            (
                "greeting = '${'",
                "greeting: '${' begins no ${NAME} or ${NAME:-default}; '$${' stands for the characters",
            ),
            (
                "[[llm.script.rules]]\nhear = '('",
                "llm.script.rules[0].hear: no regular expression: missing ), unterminated subpattern at position 0",
            ),
        ],
    )
    def test_is_refused_with_the_place_and_the_fault(self, tmp_path, text, problem):
        assert problems_of(tmp_path, f"name = 'shop'\n{text}") == [problem]

    def test_has_all_its_unknown_keys_listed(self, tmp_path):
        assert len(problems_of(tmp_path, "name = 'shop'\nx = 1\ny = 2")) == 2

    def test_must_be_named_after_its_agent(self, tmp_path):
        assert problems_of(tmp_path, "name = 'bakery'") == [
            "name: is 'bakery', but the file is named 'shop'; they must be the same"
        ]

    def test_that_is_no_toml_says_where(self, tmp_path):
        assert "line 2" in problems_of(tmp_path, "name = 'shop'\nx = = 1")[0]

    def test_tool_parameters_may_hold_any_key(self, tmp_path):
        text = "name = 'shop'\n[[tools]]\nname = 'book'\n[tools.parameters]\ntype = 'object'\nany = {thing = 1}"
        path = folder_with(tmp_path, shop=text) / "shop.toml"
        assert read_agent(path, {}).tools[0].parameters["any"] == {"thing": 1}


class TestTheFolder:
    def test_that_is_empty_is_an_error_that_names_the_variable(self, tmp_path):
        with pytest.raises(AgentFileError, match="TRUNKLINE_AGENTS"):
            AgentFolder(tmp_path, {}).load()

    def test_reports_the_problems_of_all_files_at_once(self, tmp_path):
        folder_with(tmp_path, shop="x = 1", bakery="y = 1", good="name = 'good'")
        with pytest.raises(AgentFileError) as raised:
            AgentFolder(tmp_path, {}).load()
        assert {problem.split(":")[0].rsplit("/", 1)[-1] for problem in raised.value.problems} == {
            "shop.toml",
            "bakery.toml",
        }

    def test_knows_its_agents_by_name(self, tmp_path):
        agents = AgentFolder(folder_with(tmp_path, shop=GOOD, other="name = 'other'"), {})
        agents.load()
        assert agents.names == ["other", "shop"]
        assert agents.get("shop").name == "shop"
        assert agents.get("nobody") is None

    def test_takes_up_changed_new_and_removed_files(self, tmp_path):
        agents = AgentFolder(folder_with(tmp_path, shop=GOOD, old="name = 'old'"), {})
        agents.load()
        before = agents.get("shop")
        folder_with(tmp_path, shop="name = 'shop'\ngreeting = 'Changed.'", new="name = 'new'")
        (tmp_path / "old.toml").unlink()
        assert agents.get("shop").greeting == "Changed."
        assert before.greeting == "Hello, Sophie here."
        assert agents.names == ["new", "shop"]

    def test_keeps_the_last_good_agent_when_its_file_breaks_and_says_so_once(self, tmp_path, caplog):
        agents = AgentFolder(folder_with(tmp_path, shop=GOOD), {})
        agents.load()
        folder_with(tmp_path, shop="name = 'shop'\nbroken = ")
        with caplog.at_level(logging.ERROR):
            assert agents.get("shop").greeting == "Hello, Sophie here."
            assert agents.get("shop").greeting == "Hello, Sophie here."
        assert [record.message for record in caplog.records] == ["agent file refused"]
        folder_with(tmp_path, shop="name = 'shop'\ngreeting = 'Mended.'")
        assert agents.get("shop").greeting == "Mended."

    def test_reads_nothing_again_while_nothing_changes(self, tmp_path):
        agents = AgentFolder(folder_with(tmp_path, shop=GOOD), {})
        agents.load()
        assert agents.get("shop") is agents.get("shop")
        os.utime(tmp_path / "shop.toml", ns=(1, 1))
        assert agents.get("shop") is not None
