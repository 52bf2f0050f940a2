"""The edge's own copies of what agents say word for word, so that it can speak while, or although, nobody else does.

For every agent: its greeting, and what is said when nobody can serve the call. TTS workers make them; they are kept in
the bus's object store and here in memory. One that is not there yet is asked for again and again, less and less often.
"""

import asyncio
import contextlib
import logging
from typing import Final

from trunkline.agents import AgentFolder
from trunkline.bus import Bus, BusError, ClipStore, ended
from trunkline.proto import codec, subjects
from trunkline.proto.agent import Agent
from trunkline.proto.clips import key_of
from trunkline.proto.errors import BadMessage
from trunkline.proto.messages import MakeClip

log = logging.getLogger("trunkline.edge.clips")

_MAKE_S: Final = 12.0
_LOOK_S: Final = 2.0
_LONGEST_WAIT_S: Final = 30.0


class Clips:
    """The clips of all agents."""

    def __init__(self, bus: Bus, agents: AgentFolder, *, replicas: int = 1) -> None:
        self._bus = bus
        self._agents = agents
        self._store = ClipStore(bus, replicas=replicas)
        self._pcm: dict[str, bytes] = {}
        self._wait_s: dict[str, float] = {}
        self._keeping: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._pcm)

    def find(self, agent: Agent, text: str) -> bytes | None:
        """Return `text` in the agent's voice, PCM16 at 8 kHz; None when it is not there."""
        return self._pcm.get(key_of(agent.tts, text)) if text else None

    def find_any(self, agent: Agent, text: str) -> bytes | None:
        """Return `text` in the agent's voice, or else in that of a fallback; None when neither is there."""
        keys = (key_of(choice, text) for choice in (agent.tts, *agent.tts.fallbacks)) if text else ()
        return next((pcm for key in keys if (pcm := self._pcm.get(key)) is not None), None)

    def start(self) -> None:
        """Begin to gather, and go on with agents that come or change."""
        self._keeping = asyncio.create_task(self._keep(), name="clips")

    async def stop(self) -> None:
        """Gather no more."""
        if self._keeping is not None:
            await ended(self._keeping)

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        due: dict[str, float] = {}
        while True:
            wanted = {
                key_of(agent.tts, text): (agent, text)
                for name in self._agents.names
                if (agent := self._agents.get(name)) is not None
                for text in (agent.greeting, agent.busy, agent.farewell)
                if text
            }
            # Fillers are used when they are there: whoever speaks for a call makes them anyway.
            fillers = {
                key_of(agent.tts, text)
                for name in self._agents.names
                if (agent := self._agents.get(name)) is not None
                for text in agent.turns.fillers
            }
            instead = {key_of(choice, text) for agent, text in wanted.values() for choice in agent.tts.fallbacks}
            self._pcm = {
                key: pcm for key, pcm in self._pcm.items() if key in wanted or key in instead or key in fillers
            }
            for key in fillers - self._pcm.keys():
                if loop.time() >= due.get(key, 0.0):
                    due[key] = loop.time() + _LONGEST_WAIT_S / 3
                    with contextlib.suppress(BusError):
                        await self._fetch(key)
            for key, (agent, text) in wanted.items():
                if key in self._pcm or loop.time() < due.get(key, 0.0):
                    continue
                if not await self._gather(key, agent, text):
                    wait_s = self._wait_s[key] = min(2 * self._wait_s.get(key, 0.25), _LONGEST_WAIT_S)
                    due[key] = loop.time() + wait_s
            missing = any(self.find_any(agent, text) is None for agent, text in wanted.values())
            await asyncio.sleep(0.25 if missing else _LOOK_S)

    async def _gather(self, key: str, agent: Agent, text: str) -> bool:
        """Fetch a clip, made if need be, or else what a fallback's voice made of it; return whether it is the one."""
        try:
            if not await self._fetch(key):
                order = MakeClip(tts=agent.tts, text=text)
                made = codec.decode(codec.CLIP_MADE, await self._bus.request(subjects.MAKE_CLIP, order, _MAKE_S))
                if made.problem:
                    log.warning("clip not made", extra={"agent": agent.name, "problem": made.problem})
                elif not await self._fetch(key):
                    for choice in agent.tts.fallbacks:
                        await self._fetch(key_of(choice, text))
        except (BusError, BadMessage) as error:
            log.debug("clip not there yet", extra={"agent": agent.name, "problem": str(error)})
        return key in self._pcm

    async def _fetch(self, key: str) -> bool:
        pcm = await self._store.get(key)
        if pcm is not None:
            self._pcm[key] = pcm
            log.debug("clip kept", extra={"key": key, "ms": len(pcm) // 16})
        return pcm is not None
