"""docs/settings.md names every variable that a process reads, with its default."""

import re
from pathlib import Path

import msgspec
import pytest

from trunkline.brain.settings import BrainSettings
from trunkline.edge.settings import AgentSettings, EdgeSettings, TwilioSettings
from trunkline.events.settings import EventsSettings
from trunkline.providers.endpoints import ENDPOINTS
from trunkline.providers.keys import variable_of
from trunkline.runtime.settings import BaseSettings, HttpSettings
from trunkline.stt.providers.local import LocalSettings
from trunkline.stt.settings import SttSettings
from trunkline.tts.settings import TtsSettings

pytestmark = pytest.mark.unit

PAGE = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()
STRUCTS = [
    ("TRUNKLINE_", BaseSettings),
    ("TRUNKLINE_<SERVICE>_", HttpSettings),
    ("TRUNKLINE_EDGE_", EdgeSettings),
    ("TRUNKLINE_", AgentSettings),
    ("TRUNKLINE_TWILIO_", TwilioSettings),
    ("TRUNKLINE_STT_", SttSettings),
    ("TRUNKLINE_POCKETSPHINX_", LocalSettings),
    ("TRUNKLINE_BRAIN_", BrainSettings),
    ("TRUNKLINE_TTS_", TtsSettings),
    ("TRUNKLINE_EVENTS_", EventsSettings),
]
FIELDS = [
    (prefix + field.name.upper(), field.default) for prefix, kind in STRUCTS for field in msgspec.structs.fields(kind)
]


@pytest.mark.parametrize(("name", "default"), FIELDS, ids=[name for name, _ in FIELDS])
def test_a_variable_is_documented_with_its_default(name, default):
    row = next((line for line in PAGE.splitlines() if line.startswith("|") and f"`{name}`" in line), None)
    assert row is not None, f"{name} is missing"
    shown = default if isinstance(default, str) else f"{default:g}" if isinstance(default, float) else str(default)
    if shown and name != "TRUNKLINE_EDGE_PUBLIC_URL":
        assert f"`{shown}`" in row


def test_no_variable_is_documented_that_nobody_reads():
    known = {name for name, _ in FIELDS} | {"TRUNKLINE_TWILIO_FROM", "TRUNKLINE_PRICES", "TRUNKLINE_SECRETS"}
    assert set(re.findall(r"`(TRUNKLINE_[A-Z_<>]+)`", PAGE)) <= known


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_an_endpoint_is_documented_with_its_variables(endpoint):
    row = next((line for line in PAGE.splitlines() if line.startswith(f"| endpoint `{endpoint}` |")), "")
    assert f"`{variable_of(endpoint, 'API_KEY')}`" in row
    assert f"`{variable_of(endpoint, 'BASE_URL')}`" in row
    assert ("if it wants one" in row) is not ENDPOINTS[endpoint].needs_key
