"""``trunkline-tts``: run the service from its environment."""

from trunkline.runtime.process import run
from trunkline.tts.service import build
from trunkline.tts.settings import TtsSettings


def main() -> None:
    """Run until asked to stop."""
    run("tts", TtsSettings, build)


if __name__ == "__main__":
    main()
