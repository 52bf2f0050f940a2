"""What others installed, in a real brain: imported before the first claim, and no reason not to serve."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trunkline.testing.nats_server import run_nats
from trunkline.testing.patience import PATIENCE_S

pytestmark = pytest.mark.integration


def install(folder: Path) -> None:
    info = folder / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[trunkline.tools]\nlook = acme_good:look\nleave = acme_bad:leave\n"
        "[trunkline.llm_providers]\nacme = acme_worse:Acme\n"
    )
    (folder / "acme_good.py").write_text("print('imported', flush=True)\ndef look(arguments, call): ...\n")
    (folder / "acme_bad.py").write_text("raise SystemExit(3)\n")
    (folder / "acme_worse.py").write_text("import acme_is_not_there\n")


def test_a_brain_imports_what_is_installed_before_it_is_ready_and_serves_without_what_is_broken(tmp_path):
    install(tmp_path)
    with run_nats() as server:
        environ = {
            **os.environ,
            "PYTHONPATH": str(tmp_path),
            "TRUNKLINE_NATS_URL": server.url,
            "TRUNKLINE_LOG_FORMAT": "json",
        }
        brain = subprocess.Popen(
            [sys.executable, "-m", "trunkline.brain"],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            lines = []
            for line in brain.stderr:
                lines.append(json.loads(line))
                if lines[-1]["message"] == "ready":
                    break
            brain.send_signal(signal.SIGINT)
            out, _ = brain.communicate(timeout=PATIENCE_S)
        finally:
            brain.kill()
    assert brain.returncode == 0
    assert out == "imported\n"
    broken = {line["part"]: line["problem"] for line in lines if line["message"] == "cannot import"}
    assert broken == {"leave": "SystemExit was raised", "acme": "No module named 'acme_is_not_there'"}
