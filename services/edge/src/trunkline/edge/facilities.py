"""What all calls of an edge share."""

from typing import NamedTuple

from trunkline.bus import Bus, CallStore, EventLog
from trunkline.edge.clips import Clips
from trunkline.edge.liveness import Liveness
from trunkline.edge.metrics import EdgeMetrics
from trunkline.edge.settings import EdgeSettings
from trunkline.proto.ids import WorkerId
from trunkline.runtime.clock import Clock
from trunkline.runtime.journal import Journal


class Facilities(NamedTuple):
    """One edge's."""

    bus: Bus
    events: EventLog
    edge: WorkerId
    clock: Clock
    settings: EdgeSettings
    metrics: EdgeMetrics
    liveness: Liveness
    clips: Clips
    store: CallStore
    journal: Journal
