"""What is to be called, and how the carrier takes its time."""

import secrets

import msgspec


class Delays(msgspec.Struct, frozen=True, kw_only=True):
    """How long Twilio takes between a stream's end and what follows. It documents none of this."""

    notice_s: float = 0.0
    """From a socket that broke without a closing handshake (FIN or RST alone) until Twilio acts on it. Until then the
    caller goes on hearing what waits. A socket that only falls silent is never noticed."""
    ask_s: tuple[float, float] = (0.05, 0.15)
    """Between these, anew each time: until a webhook is asked once a verb has ended, the way there included."""


class Dial(msgspec.Struct, frozen=True, kw_only=True):
    """A call to be placed to a Twilio application."""

    voice_url: str
    """The voice webhook, query string included."""
    call_sid: str
    token: str | None = None
    """Auth token; with it, webhooks and WebSockets carry `X-Twilio-Signature`."""
    caller: str = "+15550100"
    called: str = "+15550199"
    account_sid: str = "AC" + 32 * "0"
    delays: Delays = Delays()


def new_call_sid() -> str:
    """Return a fresh call SID: `CA` and 32 hexadecimal digits."""
    return "CA" + secrets.token_hex(16)
