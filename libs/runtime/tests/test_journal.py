import json
import signal
import subprocess
import sys

import pytest

from trunkline.runtime.journal import Journal

pytestmark = pytest.mark.unit

NOTES_AND_DIES = """
import os, signal, sys
from trunkline.runtime.journal import Journal
journal = Journal(sys.argv[1], "stt")
journal.note("heard", "a-call", seq=7)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_noted_survives_the_death_of_the_process(tmp_path):
    died = subprocess.run([sys.executable, "-c", NOTES_AND_DIES, str(tmp_path)], check=False)
    assert died.returncode == -signal.SIGKILL
    (file,) = tmp_path.iterdir()
    line = json.loads(file.read_text())
    assert (line["who"], line["what"], line["call"], line["seq"]) == ("stt", "heard", "a-call", 7)
    assert line["t"] > 0


def test_without_a_folder_nothing_is_noted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    journal = Journal()
    journal.note("heard", "a-call", seq=7)
    journal.close()
    assert not journal.on
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_learnt_later_stands_in_the_lines(tmp_path):
    journal = Journal(str(tmp_path), "stt")
    journal.who = "stt-abc"
    journal.note("heard", "a-call")
    journal.close()
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text())["who"] == "stt-abc"
