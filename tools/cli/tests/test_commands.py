"""The command line: what it takes, what it refuses, what it says."""

import os

import msgspec
import pytest

from trunkline.cli import events, tail
from trunkline.cli.__main__ import main
from trunkline.cli.settings import NoBus, find_nats_url

pytestmark = pytest.mark.unit


def test_help_names_every_command(capsys):
    for words in (["--help"], ["-h"], []):
        assert main(words) == 0
        shown = capsys.readouterr().out
        assert all(f"\n  {command} " in shown for command in ("dev", "call", "demo", "tail", "events"))


def test_the_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("trunkline 0.")


def test_an_unknown_command_is_refused_with_a_guess(capsys):
    assert main(["tial", "--all"]) == 2
    said = capsys.readouterr().err
    assert "no command 'tial'; did you mean tail?" in said
    assert "usage: trunkline" in said
    assert main(["xyzzy"]) == 2
    assert "did you mean" not in capsys.readouterr().err


def test_tail_takes_a_call_or_all_but_not_both():
    assert tail.parser().parse_args([]).call == ""
    assert tail.parser().parse_args(["abc", "--nats", "nats://h"]).call == "abc"
    assert tail.parser().parse_args(["--all"]).all
    with pytest.raises(SystemExit) as refusal:
        tail.parser().parse_args(["abc", "--all"])
    assert refusal.value.code == 2


def test_events_refuses_what_cannot_be_a_call(capsys):
    options = events.parser().parse_args(["--call", "abc", "--json", "-f"])
    assert (options.call, options.json, options.follow) == ("abc", True, True)
    with pytest.raises(SystemExit):
        events.parser().parse_args(["--call", "a.>"])
    assert "no call id" in capsys.readouterr().err


def note(folder, **what):
    path = folder / f"trunkline-{os.getuid()}" / "dev.json"
    path.parent.mkdir()
    path.write_bytes(
        msgspec.json.encode({"nats_url": "nats://noted:1", "edge_url": "http://e", "pid": os.getpid(), **what})
    )


def test_the_option_wins_over_the_environment_and_that_over_a_running_dev(tmp_path):
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    note(tmp_path)
    assert find_nats_url("", environ) == "nats://noted:1"
    assert find_nats_url("", environ | {"TRUNKLINE_NATS_URL": "nats://set:1"}) == "nats://set:1"
    assert find_nats_url("nats://given:1", environ | {"TRUNKLINE_NATS_URL": "nats://set:1"}) == "nats://given:1"


def test_without_a_bus_it_says_what_to_set_or_start(tmp_path):
    with pytest.raises(NoBus, match=r"'trunkline dev'.*--nats URL or TRUNKLINE_NATS_URL"):
        find_nats_url("", {"XDG_RUNTIME_DIR": str(tmp_path)})


def test_the_note_of_a_dev_that_is_gone_is_not_believed(tmp_path):
    note(tmp_path, pid=2**22 + 1)
    with pytest.raises(NoBus):
        find_nats_url("", {"XDG_RUNTIME_DIR": str(tmp_path)})


@pytest.mark.parametrize("command", ["dev", "call", "demo"])
def test_the_commands_of_other_packages_get_their_own_arguments(command, capsys):
    with pytest.raises(SystemExit) as asked_for_help:
        main([command, "--help"])
    assert asked_for_help.value.code == 0
    assert f"usage: trunkline {command}" in capsys.readouterr().out
    with pytest.raises(SystemExit) as misspelt:
        main([command, "--no-such-option"])
    assert misspelt.value.code == 2
    assert "--no-such-option" in capsys.readouterr().err
