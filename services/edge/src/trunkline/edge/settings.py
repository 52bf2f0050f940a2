"""What the edge is told by its environment, checked as a whole before anything starts."""

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from trunkline.edge.signature import PublicUrl
from trunkline.runtime.settings import Secret, SettingsError, load

ENVIRONMENT: Final[Mapping[str, str]] = os.environ
E164: Final = re.compile(r"\+[1-9][0-9]{6,14}")
"""A telephone number, https://www.itu.int/rec/T-REC-E.164."""


class EdgeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``TRUNKLINE_EDGE_*``."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8080
    public_url: str = ""
    """How carriers reach this edge, for example ``https://voice.example.com``. Signatures are checked against it."""
    api_token: Secret = ""
    """Bearer token for placing calls."""
    default_agent: str = "restaurant"
    """Who answers when neither webhook nor stream names an agent."""
    media_codec: Literal["pcm16", "mulaw"] = "mulaw"
    """How caller audio travels on the bus: as Twilio sends it, or decoded at the edge."""
    capacity: Annotated[int, Meta(ge=1, le=10_000)] = 500
    """Calls at once; further ones are refused with close code 1013."""
    start_timeout_s: Annotated[float, Meta(gt=0, le=60)] = 10.0
    """A socket on which no stream has begun by then is closed."""
    claim_timeout_ms: Annotated[int, Meta(ge=20, le=5_000)] = 500
    """How long a worker may take to answer a claim, before another is asked."""
    reclaim_s: Annotated[float, Meta(ge=0, le=300)] = 10.0
    """For how long a live call that has lost a worker looks for another; meanwhile the caller is asked to wait."""
    replay_ms: Annotated[int, Meta(ge=0, le=60_000)] = 5_000
    """Caller audio kept for a worker that takes over."""
    unsent_bytes: Annotated[int, Meta(ge=16_384, le=2**26)] = 2**20
    """Agent audio that may wait for one socket that does not read."""


class TwilioSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``TRUNKLINE_TWILIO_*``, but for ``TRUNKLINE_TWILIO_FROM``, whose name is a word of Python's."""

    auth_token: Secret = ""
    """Secret that Twilio signs with. Without it only loopback clients are served."""
    account_sid: str = ""
    api_url: str = "https://api.twilio.com"
    """Where calls are placed."""


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``TRUNKLINE_AGENTS``."""

    agents: str = "agents"


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """Everything together."""

    edge: EdgeSettings
    twilio: TwilioSettings
    twilio_from: str
    agents: Path
    environ: Mapping[str, str]
    """What agent files may be filled in from."""

    def public_url(self, port: int) -> PublicUrl:
        """Return the origin carriers use; that of the listener itself when nothing else is set."""
        host = f"[{self.edge.host}]" if ":" in self.edge.host else self.edge.host
        return PublicUrl(self.edge.public_url or f"http://{host}:{port}")


def read(edge: EdgeSettings, environ: Mapping[str, str] = ENVIRONMENT) -> Setup:
    """Read what stands beside `edge`, and check what only makes sense together.

    Raises:
        SettingsError: naming every variable that is wrong or missing.
    """
    twilio = load(TwilioSettings, "TRUNKLINE_TWILIO_", environ)
    twilio_from = environ.get("TRUNKLINE_TWILIO_FROM", "")
    problems = []
    if not is_loopback(edge.host):
        if not twilio.auth_token:
            problems.append(
                f"TRUNKLINE_EDGE_HOST={edge.host!r} lets others in, but TRUNKLINE_TWILIO_AUTH_TOKEN is not set, so that"
                " nobody could be told from Twilio; set it, or TRUNKLINE_EDGE_HOST=127.0.0.1"
            )
        elif not edge.public_url:
            problems.append(
                f"TRUNKLINE_EDGE_PUBLIC_URL is not set; with TRUNKLINE_EDGE_HOST={edge.host!r} it must be the URL"
                " Twilio calls, for example https://voice.example.com, because signatures cover it"
            )
    if edge.public_url:
        try:
            PublicUrl(edge.public_url)
        except ValueError as error:
            problems.append(f"TRUNKLINE_EDGE_PUBLIC_URL: {error}")
    if twilio_from and not E164.fullmatch(twilio_from):
        problems.append("TRUNKLINE_TWILIO_FROM is wrong; expected a number such as +15551230000")
    if problems:
        raise SettingsError("\n".join(problems))
    agents = load(AgentSettings, "TRUNKLINE_", environ).agents
    return Setup(edge=edge, twilio=twilio, twilio_from=twilio_from, agents=Path(agents), environ=environ)


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine's own: ``localhost`` or a loopback address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
