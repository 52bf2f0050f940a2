"""``trunkline-brain``: the process."""

from trunkline.brain.service import build
from trunkline.brain.settings import BrainSettings
from trunkline.runtime.process import run


def main() -> None:
    """Run the brain until it is asked to stop."""
    run("brain", BrainSettings, build)


if __name__ == "__main__":
    main()
