from pathlib import Path

import pytest

from trunkline.call.errors import BadScenario
from trunkline.call.scenario import BargeIn, WaitForAgent, built_in_scenarios, find_scenario, parse_scenario

pytestmark = pytest.mark.unit

MINIMAL = 'name = "x"\n[[steps]]\nhang_up = true\n'


def test_every_kind_of_step_is_read() -> None:
    scenario = parse_scenario(
        """
        name = "all"
        agent = "sophie"
        [caller]
        voice = "en-gb"
        from = "+441632960000"
        noise_dbfs = -50
        [[steps]]
        wait_for_agent = {}
        [[steps]]
        say = "a table for two"
        [[steps]]
        barge_in = { after_s = 2, say = "no" }
        [[steps]]
        wav = "x.wav"
        words = "what is in it"
        [[steps]]
        press = "12#"
        [[steps]]
        silence_s = 2
        [[steps]]
        wait_for_end_s = 1.5
        [[steps]]
        hang_up = true
        [expect]
        tools = ["book_table"]
        """,
        "test",
    )

    actions = [step.action for step in scenario.steps]
    assert actions == [
        "wait_for_agent",
        "say",
        "barge_in",
        "wav",
        "press",
        "silence_s",
        "wait_for_end_s",
        "hang_up",
    ]
    assert scenario.steps[0].wait_for_agent == WaitForAgent(quiet_ms=800, timeout_s=15.0)
    assert scenario.steps[2].barge_in == BargeIn(after_s=2.0, say="no", timeout_s=15.0)
    assert scenario.steps[5].silence_s == 2.0
    assert scenario.caller.from_number == "+441632960000"
    assert scenario.expect.tools == ("book_table",)
    assert [step.passive for step in scenario.steps] == [True, False, False, False, False, True, True, True]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("name = ", "test: "),
        ("[[steps]]\nhang_up = true", "missing required field `name`"),
        ('name = "x"\nsteps = []', r"length >= 1 - at `\$.steps`"),
        ('name = "x"\n[[steps]]\nshout = "hey"', r"unknown field `shout` - at `\$.steps\[0\]`"),
        ('name = "x"\n[[steps]]\n', r"a step is exactly one of say, .*found none - at `\$.steps\[0\]`"),
        ('name = "x"\n[[steps]]\nsay = "a"\npress = "1"', "found say and press"),
        ('name = "x"\n[[steps]]\nsay = "a"\nwords = "a"', "stands beside one only"),
        ('name = "x"\n[[steps]]\npress = "12x"', r"at `\$.steps\[0\].press`"),
        ('name = "x"\n[[steps]]\nhang_up = false', r"at `\$.steps\[0\].hang_up`"),
        ('name = "x"\n[[steps]]\nwait_for_agent = { quiet = 3 }', r"`quiet` - at `\$.steps\[0\].wait_for_agent`"),
        (MINIMAL + "[caller]\nspeed = 9", r"<= 2.0 - at `\$.caller.speed`"),
        (MINIMAL + '[caller]\nfrom = "Alice"', r"at `\$.caller.from`"),
        (MINIMAL + "[expect]\nword_error_rate_at_most = 1.5", r"at `\$.expect.word_error_rate_at_most`"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(text: str, why: str) -> None:
    with pytest.raises(BadScenario, match=why):
        parse_scenario(text, "test")


@pytest.mark.parametrize("name", built_in_scenarios())
def test_a_built_in_scenario_goes_by_its_file_name(name: str) -> None:
    assert find_scenario(name).name == name


def test_the_promised_scenarios_are_there() -> None:
    assert {"hello", "silent", "digits", "barge-in"} <= set(built_in_scenarios())


def test_a_wav_is_beside_the_scenario(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text('name = "x"\n[[steps]]\nwav = "a.wav"\n')

    assert find_scenario(str(path)).steps[0].wav == str(tmp_path / "a.wav")


def test_neither_file_nor_name_lists_the_names() -> None:
    with pytest.raises(BadScenario, match=r"neither a file nor a built-in scenario \(barge-in, "):
        find_scenario("helo")


def test_the_example_of_the_readme_is_a_scenario() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    example = readme.split("```toml\n")[1].split("```")[0]

    assert parse_scenario(example, "README").name == "booking"
