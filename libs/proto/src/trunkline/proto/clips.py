"""Clips: what an agent says word for word in any call, synthesised once.

A clip is PCM16 at 8 kHz, mono. Its key depends on all that can be heard and on nothing else, so every process finds the
same clip without asking anybody.
"""

import hashlib
from typing import Final

import msgspec

from trunkline.proto.agent import Timeouts, Tts

RATE_HZ: Final = 8_000
LONGEST_S: Final = 60.0
_SAME: Final = Timeouts()


def key_of(tts: Tts, text: str) -> str:
    """Return the key of `text` spoken as `tts` says; its time-outs and fallbacks are not heard."""
    voice = msgspec.structs.replace(tts, timeouts=_SAME, fallbacks=())
    heard = msgspec.json.encode((voice, " ".join(text.split())), order="sorted")
    return hashlib.sha256(heard).hexdigest()[:40]
