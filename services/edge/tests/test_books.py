"""A call's record as it is opened, and opened again when its caller has come back."""

import msgspec
import pytest

from trunkline.edge.books import opened
from trunkline.edge.carrier import Started
from trunkline.edge.comeback import reopened
from trunkline.proto.agent import Agent
from trunkline.proto.frame import Codec
from trunkline.proto.ids import CallId, WorkerId

pytestmark = pytest.mark.unit

STARTED = Started(
    carrier_call="CA1",
    stream="MZ1",
    account="AC1",
    agent=None,
    parameters={"direction": "outbound"},
    codec=Codec.MULAW,
    sample_rate_hz=8_000,
)


def record():
    return opened(CallId("call-a"), Agent(name="restaurant"), STARTED, "twilio", WorkerId("edge-old"), 1_000.0)


def test_a_call_that_we_placed_is_outbound_and_any_other_inbound():
    plain = msgspec.structs.replace(STARTED, parameters={})
    assert record().direction == "outbound"
    again = opened(CallId("call-a"), Agent(name="restaurant"), plain, "twilio", WorkerId("edge-old"), 1_000.0)
    assert again.direction == "inbound"


def test_whoever_takes_a_call_up_keeps_its_beginning_and_counts_the_comeback():
    away = msgspec.structs.replace(
        record(), state="away", planned=True, reason="edge-stopped", frames_in=50, comebacks=1
    )
    back = reopened(away, WorkerId("edge-new"))
    assert (back.state, back.edge, back.planned, back.reason) == ("live", "edge-new", False, "")
    assert (back.started_at, back.frames_in, back.comebacks) == (1_000.0, 50, 2)
