# mypy: disable-error-code="import-not-found,misc,untyped-decorator,unused-ignore"
# What it imports lives in the peer's environment only (out/peers/pipecat), where it runs.
"""When the peer's voice detector says that somebody has begun to speak.

    out/peers/pipecat/bin/python -m tools.bench.peers.pipecat_alarms SETTINGS < frames

Reads ``<bytes of a clip, 4 bytes little-endian><PCM16, 8 kHz>`` again and again, and writes for each clip a JSON list:
the samples that had been heard each time. SETTINGS is JSON, of `VADParams`; ``{}`` are Pipecat's own.
"""

import asyncio
import json
import sys

from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.audio.vad.vad_analyzer import VADParams, VADState

from tools.bench.peers.tones import RATE_HZ

_PIECE_BYTES = 2 * RATE_HZ // 50
"""What a carrier sends at a time: 20 ms."""


async def onsets(pcm: bytes, params: VADParams) -> list[int]:
    """Return after how many samples each stretch of speech was believed in."""
    analyzer = SileroVADAnalyzer(sample_rate=RATE_HZ, params=params)
    analyzer.set_sample_rate(RATE_HZ)
    found, speaks = [], False
    for at in range(0, len(pcm) - _PIECE_BYTES + 1, _PIECE_BYTES):
        state = await analyzer.analyze_audio(pcm[at : at + _PIECE_BYTES])
        begins = state is VADState.SPEAKING and not speaks
        speaks = state is VADState.SPEAKING or (speaks and state is VADState.STOPPING)
        if begins:
            found.append((at + _PIECE_BYTES) // 2)
    await analyzer.cleanup()
    return found


def main() -> None:
    """Judge clip after clip until there is none any more."""
    params = VADParams(**json.loads(sys.argv[1]))
    while size := sys.stdin.buffer.read(4):
        pcm = sys.stdin.buffer.read(int.from_bytes(size, "little"))
        print(json.dumps(asyncio.run(onsets(pcm, params))), flush=True)


if __name__ == "__main__":
    main()
