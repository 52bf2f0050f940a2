"""Why a call ends at this edge, whether it goes on elsewhere, and the code its line is closed with."""

from typing import Final, Literal, NamedTuple

from trunkline.edge.close_codes import INTERNAL_ERROR, INVALID_PAYLOAD, MESSAGE_TOO_BIG, NORMAL, SERVICE_RESTART
from trunkline.edge.errors import LineClosed

REFUSED: Final = {MESSAGE_TOO_BIG: "oversize-message", INVALID_PAYLOAD: "invalid-utf8"}
"""Codes with which we closed the line ourselves, for what came on it."""


class Ending(NamedTuple):
    """Why a call ends here, and how its line is closed."""

    reason: str
    close_code: int
    close_text: str
    fate: Literal["over", "away", "elsewhere"] = "over"
    """It is over; it waits for its caller to come back; another edge has it already."""
    planned: bool = False


GIVEN_AWAY: Final = Ending("edge-stopped", SERVICE_RESTART, "another edge goes on", "away", planned=True)
"""The edge is to stop, and the carrier brings the caller to another one."""
USURPED: Final = Ending("usurped", NORMAL, "the call goes on elsewhere", "elsewhere")
"""Another line has the call."""
BROKEN_OFF: Final = Ending("edge-stopped", INTERNAL_ERROR, "")
"""The edge stops, and nobody has said more."""


def of_closed(closed: LineClosed, *, comes_back: bool) -> Ending:
    """Return how the call ends whose line was closed; `comes_back` says whether its carrier brings the caller back."""
    if closed.code in REFUSED:
        return Ending("carrier-protocol-error", closed.code, "carrier-protocol-error")
    reason = "phone-call-provider-closed-websocket"
    return Ending(reason, closed.code, "", "away") if comes_back else Ending(reason, NORMAL, reason)
