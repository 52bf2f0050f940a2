"""The demo through the official SDKs: the providers' side of the same call, on this machine.

Deepgram's, OpenAI's and ElevenLabs' wire formats are spoken by emulators, in this process. What they hear is known from
the caller's own sound; what they think is the agent's script; what they say is espeak-ng's voice. Everything between
them and the caller is what runs in production.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

import msgspec
import numpy as np
import tomli_w
from numpy.typing import NDArray

from trunkline.agents import read_agent
from trunkline.audio.resample import resample
from trunkline.brain.llm import AgentSaid, CallerSaid, Message, SystemNote, ToolAnswered, ToolAsked
from trunkline.brain.script import answer
from trunkline.call import Scenario
from trunkline.call.caller import Clips
from trunkline.proto.agent import Agent, Llm, Script, Stt, Tts
from trunkline.proto.ids import ToolCallId
from trunkline.testing.providers import Asked, Reply, Said
from trunkline.testing.providers.content import RATE_HZ
from trunkline.testing.providers.deepgram import DeepgramEmulator
from trunkline.testing.providers.elevenlabs import ElevenLabsEmulator
from trunkline.testing.providers.openai import OpenAiEmulator
from trunkline.testing.providers.phrases import Phrases
from trunkline.tts.providers.espeak import espeak

STT_FINAL_S: Final = 0.25
LLM_FIRST_S: Final = 0.35
LLM_TOKENS_PER_S: Final = 80.0
TTS_FIRST_S: Final = 0.1
"""The providers' published speeds: Deepgram's final words after the last sound, a small GPT's first token and pace,
ElevenLabs Flash's first byte."""

_KEY: Final = "test-key"


class Emulated(NamedTuple):
    """What a set-up needs to be told to use the emulators."""

    agents: Path
    environ: dict[str, str]
    counts: Callable[[], dict[str, int]]
    """Requests and sockets each emulator has seen."""


@contextlib.asynccontextmanager
async def emulated(
    agents: Path, scenario: Scenario, clips: Clips, environ: Mapping[str, str]
) -> AsyncIterator[Emulated]:
    """Run the emulators for a call of `scenario`, whose caller sounds like `clips`; yield what points a set-up to them.

    Raises:
        AgentFileError: the agent's file cannot be read.
    """
    agent = read_agent(agents / f"{scenario.agent or 'restaurant'}.toml", environ)
    with TemporaryDirectory(prefix="trunkline-agents-") as folder:
        voice, ear = _voice(agent.tts), Phrases(_said(scenario, clips))
        deepgram = DeepgramEmulator(key=_KEY, ear=ear, final_s=STT_FINAL_S)
        openai = OpenAiEmulator(key=_KEY, mind=mind_of(agent), first_s=LLM_FIRST_S, tokens_per_s=LLM_TOKENS_PER_S)
        elevenlabs = ElevenLabsEmulator(key=_KEY, voice=voice, first_s=TTS_FIRST_S)
        (Path(folder) / f"{agent.name}.toml").write_bytes(_file_of(agent))
        async with deepgram, openai, elevenlabs:
            yield Emulated(
                agents=Path(folder),
                environ={
                    "DEEPGRAM_API_KEY": _KEY,
                    "DEEPGRAM_BASE_URL": deepgram.url,
                    "OPENAI_API_KEY": _KEY,
                    "OPENAI_BASE_URL": f"{openai.url}/v1",
                    "ELEVENLABS_API_KEY": _KEY,
                    "ELEVENLABS_BASE_URL": elevenlabs.url,
                },
                counts=lambda: {
                    "deepgram": len(deepgram.seen),
                    "openai": len(openai.seen),
                    "elevenlabs": len(elevenlabs.seen),
                },
            )


def mind_of(agent: Agent) -> Callable[[Asked], Reply]:
    """Return a mind that answers as the agent's script does."""
    script = agent.llm.script or Script()

    def think(asked: Asked) -> Reply:
        history = [message for said in asked.history if (message := _message(said)) is not None]
        reply = answer(script, history, set(asked.tools))
        if reply.tool is None:
            return Reply(reply.say)
        return Reply(reply.say, ((reply.tool.name, msgspec.json.encode(reply.tool.arguments).decode()),))

    return think


def _message(said: Said) -> Message | None:
    call = ToolCallId(said.tool_call)
    match said.who:
        case "caller" if said.text.startswith("["):
            return SystemNote(text=said.text.strip("[]"))
        case "caller":
            return CallerSaid(text=said.text)
        case "agent":
            return AgentSaid(text=said.text, heard=said.text)
        case "tool-asked":
            return ToolAsked(tool_call=call, name=said.tool, arguments=said.text)
        case "tool-answered":
            return ToolAnswered(tool_call=call, name=said.tool, result=said.text)
        case _:
            return None


def _file_of(agent: Agent) -> bytes:
    """Return the agent's file, with providers that must be reached."""
    served = msgspec.structs.replace(
        agent,
        stt=Stt(provider="deepgram"),
        llm=Llm(provider="openai"),
        tts=Tts(provider="elevenlabs"),
    )
    return tomli_w.dumps(_without_none(msgspec.to_builtins(served))).encode()


def _without_none(value: object) -> dict[str, object]:
    return {
        key: _without_none(item) if isinstance(item, dict) else item
        for key, item in (value.items() if isinstance(value, dict) else ())
        if item is not None
    }


def _said(scenario: Scenario, clips: Clips) -> dict[str, NDArray[np.int16]]:
    words = {
        number: step.say or (step.barge_in.say if step.barge_in is not None else "")
        for number, step in enumerate(scenario.steps)
    }
    return {words[number]: sound for number, sound in clips.items() if words[number]}


def _voice(tts: Tts) -> Callable[[str], NDArray[np.int16]]:
    """Return espeak-ng's voice as the agent's file has it."""
    library = espeak()
    setting = library.resolve(tts.voice or "en-gb", tts.speed, tts.pitch)

    def speak(text: str) -> NDArray[np.int16]:
        blocks: list[bytes] = []

        def emit(block: bytes) -> bool:
            blocks.append(block)
            return True

        library.synthesise(text, setting, emit)
        return resample(np.frombuffer(b"".join(blocks), "<i2"), library.sample_rate_hz, RATE_HZ)

    return speak
