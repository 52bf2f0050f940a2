"""What a peer's voice hook answers. Pure; read in the peer's environment as well."""

from typing import Final
from xml.sax.saxutils import escape, quoteattr

PAUSE_S: Final = 4
"""Longer than a bot process takes to be back (2 to 3 s), with something to spare on a busy machine."""


def twiml(stream_url: str, then: str = "", hook: str = "/voice") -> str:
    """Return TwiML that connects to `stream_url`.

    Args:
        stream_url: the media socket.
        then: what is to follow once the stream is over: nothing, as in Pipecat's guides, ``redirect`` back to the hook,
            or ``pause`` and then redirect.
        hook: path of the hook.
    """
    stream = f"<Connect><Stream url={quoteattr(stream_url)}/></Connect>"
    pause = f'<Pause length="{PAUSE_S}"/>' if then == "pause" else ""
    again = f"<Redirect>{escape(f'{hook}?then={then}')}</Redirect>" if then else ""
    return f'<?xml version="1.0" encoding="UTF-8"?><Response>{stream}{pause}{again}</Response>'
