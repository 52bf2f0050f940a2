"""A simulated caller with a scenario and a verdict.

Knows Twilio's wire through `trunkline.testing.twilio` and the deployment through its public face alone: a webhook, a
WebSocket and, if asked to watch, the bus.
"""

from trunkline.call.command import main
from trunkline.call.errors import BadScenario, BadTarget, CallToolError, NoVoice
from trunkline.call.place import Target, place_call
from trunkline.call.scenario import Scenario, find_scenario, load_scenario, parse_scenario
from trunkline.call.seen import CallResult, Seen, Spoken, Verdict
from trunkline.call.speech import prepare_speech

__all__ = [
    "BadScenario",
    "BadTarget",
    "CallResult",
    "CallToolError",
    "NoVoice",
    "Scenario",
    "Seen",
    "Spoken",
    "Target",
    "Verdict",
    "find_scenario",
    "load_scenario",
    "main",
    "parse_scenario",
    "place_call",
    "prepare_speech",
]
