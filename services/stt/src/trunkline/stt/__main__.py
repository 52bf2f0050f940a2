"""``trunkline-stt``: run the service from its environment."""

from trunkline.runtime.process import run
from trunkline.stt.service import build
from trunkline.stt.settings import SttSettings


def main() -> None:
    """Run until asked to stop."""
    run("stt", SttSettings, build)


if __name__ == "__main__":
    main()
