"""Where the bus is: told by an option or the environment, else by the ``trunkline dev`` that runs here."""

import os
from collections.abc import Mapping
from typing import Final

from trunkline.devserver import whereabouts

NATS_URL: Final = "TRUNKLINE_NATS_URL"


class NoBus(Exception):
    """Nobody said where NATS is, and no ``trunkline dev`` of this user runs here."""


def find_nats_url(given: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return the URL of the bus: `given`, else ``TRUNKLINE_NATS_URL``, else that of the running ``trunkline dev``.

    Raises:
        NoBus: none of these; the text says what to set or to start.
    """
    if found := given or environ.get(NATS_URL, ""):
        return found
    path = whereabouts.note_path(environ)
    # The folder may be one that everybody can write: a note of somebody else would lead to somebody else's bus.
    note = whereabouts.read(path) if path.exists() and path.stat().st_uid == os.getuid() else None
    if note is None:
        raise NoBus(
            f"no bus found: start one with 'trunkline dev', or say where it is with --nats URL or {NATS_URL}=nats://host:4222"
            f" (looked for a running 'trunkline dev' in {path})"
        )
    return note.nats_url
