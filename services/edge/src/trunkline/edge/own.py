"""What the edge says by itself, from its clips: the greeting, and what is said when nobody else can.

Everything is an utterance like any other, so the playout is told as usual. What is not the greeting is numbered far
above whatever a brain counts, and no brain knows of it.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from trunkline.edge.clips import Clips
from trunkline.edge.downlink import Downlink
from trunkline.proto import clips
from trunkline.proto.agent import Agent
from trunkline.proto.ids import Generation, UtteranceId
from trunkline.proto.messages import PlayoutFinished, PlayoutMessage

GREETING: Final = UtteranceId(1)
OURS: Final = 1_000_000
"""Utterances of the edge's own, but for the greeting, are numbered from here."""
BYTES_PER_S: Final = 2 * clips.RATE_HZ
PARTING_SLACK_S: Final = 1.0
"""How much longer than its length the last sentence may take to be heard."""
FILLER_AFTER_S: Final = 1.2
"""How long nobody may serve a stage before the caller, if nothing else is to be heard, is told to wait."""
FILLER_AGAIN_S: Final = 4.0


class OwnVoice:
    """One call's.

    Args:
        agent: whose words these are.
        kept: where they are found.
        downlink: the way to the caller.
        end: ends the call, for a reason.
    """

    def __init__(self, agent: Agent, kept: Clips, downlink: Downlink, end: Callable[[str], None]) -> None:
        self._agent = agent
        self._clips = kept
        self._downlink = downlink
        self._end = end
        self._last = UtteranceId(OURS)
        self._parting: tuple[Generation, str] | None = None

    @property
    def parting(self) -> bool:
        """Whether the last sentence of the call is being said."""
        return self._parting is not None

    def greet(self) -> UtteranceId:
        """Greet the caller at once if the greeting is at hand: workers are looked for meanwhile. 0: it is not."""
        pcm = self._clips.find(self._agent, self._agent.greeting)
        if pcm is None:
            return UtteranceId(0)
        self._downlink.play(pcm, Generation(1), GREETING)
        return GREETING

    async def fill(self) -> None:
        """Ask the caller to wait, now and then, while there is nothing else to be heard; until cancelled."""
        said = 0
        await asyncio.sleep(FILLER_AFTER_S)
        while True:
            fillers = self._agent.turns.fillers
            text = fillers[min(said, len(fillers) - 1)] if fillers else ""
            pcm = self._clips.find_any(self._agent, text)
            if pcm is not None and self._downlink.idle and not self.parting:
                said += 1
                self._downlink.play(pcm, self._downlink.highest, self._next())
                await asyncio.sleep(len(pcm) / BYTES_PER_S + FILLER_AGAIN_S)
            else:
                await asyncio.sleep(FILLER_AFTER_S)

    async def part(self, reason: str, text: str) -> None:
        """Have the call end for `reason`, once the caller has heard `text` if that is at hand."""
        pcm = self._clips.find_any(self._agent, text)
        if pcm is not None and self._parting is None:
            generation = Generation(self._downlink.highest + 1)
            self._parting = generation, reason
            self._downlink.interrupt(generation)
            self._downlink.play(pcm, generation, self._next())
            await asyncio.sleep(len(pcm) / BYTES_PER_S + PARTING_SLACK_S)
        self._end(reason)

    def on_playout(self, said: PlayoutMessage) -> None:
        """End the call when its last sentence was heard."""
        if self._parting is not None and isinstance(said, PlayoutFinished) and said.generation == self._parting[0]:
            self._end(self._parting[1])

    def _next(self) -> UtteranceId:
        self._last = UtteranceId(self._last + 1)
        return self._last
