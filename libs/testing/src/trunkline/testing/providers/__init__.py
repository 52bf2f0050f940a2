"""Emulators of providers: the real wire format, scripted content, real timing, and faults on demand.

Each is one HTTP and WebSocket server on this machine that an official SDK cannot tell from the provider by anything
Trunkline relies on. What is said is given to it (`Reply`s, an `Ear`, a `Voice`); how it fails is told while it runs.
"""

from trunkline.testing.providers.content import Asked, Ear, Hearing, Lines, Reply, Said, Voice, WordHeard, tones
from trunkline.testing.providers.server import Answer, Emulator, Fault, Seen

__all__ = [
    "Answer",
    "Asked",
    "Ear",
    "Emulator",
    "Fault",
    "Hearing",
    "Lines",
    "Reply",
    "Said",
    "Seen",
    "Voice",
    "WordHeard",
    "tones",
]
