"""Run the events service: ``python -m trunkline.events``."""

from trunkline.events.service import build
from trunkline.events.settings import EventsSettings
from trunkline.runtime.process import run


def main() -> None:
    """Run until asked to stop."""
    run("events", EventsSettings, build)


if __name__ == "__main__":
    main()
