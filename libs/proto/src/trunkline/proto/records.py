"""What is kept of a live call besides the processes that serve it: the bucket CALLS, two keys a call.

``<call>.edge`` is the edge's: who has the call, and what another edge needs to go on with it, or to end it and bill it.
``<call>.brain`` is the conversation, in the brain's own words. Whoever writes either names the revision it knows, so
that of two writers who both believe that the call is theirs one is told otherwise.
"""

from typing import Literal

import msgspec

from trunkline.proto.agent import Agent
from trunkline.proto.ids import CallId, Epoch, Seq, Stage, WorkerId
from trunkline.proto.messages import Used


def edge_key(call: CallId) -> str:
    """Key of a call's `CallRecord`."""
    return f"{call}.edge"


def brain_key(call: CallId) -> str:
    """Key of a call's conversation."""
    return f"{call}.brain"


class CallRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A call, as its edge knows it."""

    call: CallId
    state: Literal["live", "away", "ended"]
    """Its line is open; it broke off and may come back; it is over, and must not be taken up again."""
    edge: WorkerId
    """Who has it, or had it last."""
    written_at: float
    """When this was written, wall clock."""
    agent: Agent
    carrier: str
    carrier_call: str
    direction: Literal["inbound", "outbound"] = "inbound"
    tenant: str = "default"
    started_at: float
    epochs: dict[Stage, Epoch] = {}
    """Highest epoch of each stage: who takes the call up goes on above."""
    next_seq: Seq = Seq(0)
    """No frame of the caller's had this number or a higher one when this was written."""
    frames_in: int = 0
    audio_ms_out: int = 0
    used: tuple[Used, ...] = ()
    """What the workers have told of their use so far."""
    bill_complete: bool = True
    winding_up: str = ""
    planned: bool = False
    """Of a call that is away: whether its edge gave it away."""
    reason: str = ""
    """Of one that is away: why it ends if nobody comes back; of one that is over: why it ended."""
    comebacks: int = 0
    """How often its caller has come back on a new line."""
