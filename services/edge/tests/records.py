"""Records of calls, as an edge leaves them."""

import secrets

import msgspec

from trunkline.proto.agent import Agent
from trunkline.proto.ids import CallId, WorkerId
from trunkline.proto.records import CallRecord

OLD, NEW = WorkerId("edge-old"), WorkerId("edge-new")


def record_of_a_call(**changes):
    known = CallRecord(
        call=CallId(f"call-{secrets.token_hex(4)}"),
        state="live",
        edge=OLD,
        written_at=1_060.0,
        agent=Agent(name="restaurant", farewell="So long."),
        carrier="twilio",
        carrier_call="CA1",
        started_at=1_000.0,
    )
    return msgspec.structs.replace(known, **changes)
