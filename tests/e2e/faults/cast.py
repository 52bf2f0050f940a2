"""The emulated vendors of a deployment: all in this process, each at one address, healthy and failing at once.

A model's name says how requests for it fail: ``nova-3~stall`` is ``nova-3`` that stalls. So does a key term, where the
adapter knows its models.
"""

import contextlib
import re
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from aiohttp import web

from trunkline.testing.providers.anthropic import AnthropicEmulator
from trunkline.testing.providers.content import Asked, Lines, Reply
from trunkline.testing.providers.deepgram import DeepgramEmulator
from trunkline.testing.providers.elevenlabs import MODELS, ElevenLabsEmulator
from trunkline.testing.providers.fish import FishEmulator
from trunkline.testing.providers.google import GoogleEmulator
from trunkline.testing.providers.openai import OpenAiEmulator
from trunkline.testing.providers.openai_audio import OpenAiAudioEmulator
from trunkline.testing.providers.server import Emulator, Fault, Seen

from .chords import ANSWER, voice_of

PHRASE: Final = "what grows in your garden"
KEY: Final = "test-key"
_FAULT: Final = re.compile(rb"~(" + "|".join(Fault).encode() + rb")\b")


class Joined(Emulator):
    """Several emulators at one address: what one company sells for more than one stage."""

    def __init__(self, *parts: Emulator) -> None:
        super().__init__(key=KEY)
        self.parts = parts

    def routes(self) -> list[web.RouteDef]:
        """Serve what any of them does; where two do, the first."""
        found = {(route.method, route.path): route for part in reversed(self.parts) for route in part.routes()}
        return list(found.values())


class Cast(NamedTuple):
    """Who plays. Never keep a call to `spare` from being served: it is who takes over when all others are gone."""

    vendors: dict[str, Emulator]
    """By the name that their settings begin with, in lower case."""
    spare: Emulator

    @property
    def environ(self) -> dict[str, str]:
        """Return what tells the services of them."""
        environ = {}
        for name, emulator in {**self.vendors, "spare": self.spare}.items():
            path = "/v1" if isinstance(emulator, Joined) else ""
            environ |= {f"{name.upper()}_BASE_URL": emulator.url + path, f"{name.upper()}_API_KEY": KEY}
        return environ


def chosen(seen: Seen) -> Fault | None:
    """Return the fault that the model's name asks for, wherever this vendor has it."""
    where = (seen.path, *seen.query.values(), seen.headers.get("model", ""))
    found = _FAULT.search("\n".join(where).encode()) or _FAULT.search(seen.body)
    return Fault(found[1].decode()) if found is not None else None


@contextlib.asynccontextmanager
async def playing() -> AsyncIterator[Cast]:
    """Have all vendors serve for the length of a block."""
    elevenlabs = ElevenLabsEmulator(ear=_ear(), voice=voice_of("elevenlabs"), key=KEY)
    elevenlabs.models = (*MODELS, *(f"{MODELS[0]}~{fault}" for fault in Fault))
    openai, groq, spare = (_openai(speaker) for speaker in ("openai", "openai", "spare"))
    vendors: dict[str, Emulator] = {
        "elevenlabs": elevenlabs,
        "deepgram": DeepgramEmulator(ear=_ear(), voice=voice_of("deepgram"), key=KEY),
        "fish": FishEmulator(voice=voice_of("fish"), key=KEY),
        "anthropic": AnthropicEmulator(mind=_mind, key=KEY),
        "google": GoogleEmulator(mind=_mind, key=KEY),
        "openai": openai,
        "groq": groq,
    }
    async with contextlib.AsyncExitStack() as stack:
        for emulator in (*vendors.values(), spare):
            for part in emulator.parts if isinstance(emulator, Joined) else (emulator,):
                part.choose = chosen
            await stack.enter_async_context(emulator)
        yield Cast(vendors, spare)


def _openai(speaker: str) -> Joined:
    thinking = OpenAiEmulator(mind=_mind, key=KEY)
    return Joined(thinking, OpenAiAudioEmulator(ear=_ear(), voice=voice_of(speaker), key=KEY))


def _mind(_: Asked) -> Reply:
    return Reply(ANSWER)


def _ear() -> Lines:
    """Hear the one thing that callers say, as often as somebody says it."""
    return Lines([PHRASE] * 100_000)
