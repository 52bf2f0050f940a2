"""Pipecat in an environment of its own, so that nothing of it comes near ours."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

VERSION: Final = "1.14.0"
"""The newest one on PyPI when the figures were taken."""
EXTRAS: Final = "websocket,silero,runner"
ROOT: Final = Path(__file__).resolve().parents[3]
FOLDER: Final = ROOT / "out" / "peers" / "pipecat"
_NAMES: Final = ("pipecat-ai", "onnxruntime", "fastapi", "uvicorn", "websockets", "numpy")


class NotInstalled(Exception):
    """The peer could not be installed; the text says what is missing."""


def install() -> Path:
    """Return the peer's interpreter, after installing what is not there yet.

    Raises:
        NotInstalled: a step failed.
    """
    python = FOLDER / "bin" / "python"
    stamp = FOLDER / "installed.txt"
    wanted = f"pipecat-ai[{EXTRAS}]=={VERSION}"
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"installing {wanted} into {FOLDER.relative_to(ROOT)}", flush=True)
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv:
        _run(uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(FOLDER))
        # Compiled now, or the first call would wait for it.
        _run(uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), wanted)
    else:
        _run(sys.executable, "-m", "venv", "--clear", str(FOLDER))
        _run(str(python), "-m", "pip", "install", "--quiet", wanted)
    _run(str(python), "-c", "import pipecat.audio.vad.silero, pipecat.transports.websocket.fastapi, uvicorn, fastapi")
    stamp.write_text(wanted)
    return python


def versions(python: Path) -> dict[str, str]:
    """Return what is installed there."""
    code = f"import importlib.metadata as m; print(*(m.version(n) for n in {_NAMES}))"
    told = subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout.split()  # noqa: S603 - our own
    return dict(zip(_NAMES, told, strict=True))


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - our own words
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        told = " ".join(command)
        raise NotInstalled(f"Pipecat {VERSION} is missing: `{told}` failed with {done.returncode}:\n{said}")
