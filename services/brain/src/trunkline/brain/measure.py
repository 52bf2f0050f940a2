"""Where the time of a turn goes. Pure.

From the caller's last sound to the agent's first: waiting for the silence to be long enough, the last words from STT,
the model's first token, its first sentence, the first audio from TTS, the way to the carrier. The parts sum to the
whole, because each begins where the one before it ends.
"""

from trunkline.proto.events import TurnMeasured
from trunkline.proto.ids import Generation, TurnId


class TurnTimes:
    """Moments of one turn, seconds of one steady clock."""

    def __init__(self, speech_ended_at: float, endpoint_at: float, final_at: float) -> None:
        self._speech_ended_at = speech_ended_at
        self.endpoint_at = endpoint_at
        self._final_at = max(final_at, endpoint_at)
        self._token_at: float | None = None
        self._sentence_at: float | None = None

    def asked(self, at: float) -> None:
        """The model was asked. Asked again after a tool, its first token may still be to come."""
        self._final_at = min(self._final_at, at)

    def first_token(self, at: float) -> None:
        """A token came; only the first counts."""
        if self._token_at is None:
            self._token_at = at

    def first_sentence(self, at: float) -> None:
        """A sentence was handed to TTS; only the first counts."""
        if self._sentence_at is None:
            self._sentence_at = at

    def fact(self, turn: TurnId, generation: Generation, synthesised_at: float, sent_at: float) -> TurnMeasured | None:
        """Return the turn's breakdown, now that its first audio has left; None when no sentence was said."""
        if self._sentence_at is None:
            return None
        token_at = self._sentence_at if self._token_at is None else min(self._token_at, self._sentence_at)
        return TurnMeasured(
            turn=turn,
            generation=generation,
            endpoint_delay_ms=_ms(self.endpoint_at - self._speech_ended_at),
            stt_final_ms=_ms(self._final_at - self.endpoint_at),
            llm_ttft_ms=_ms(token_at - self._final_at),
            first_sentence_ms=_ms(self._sentence_at - token_at),
            tts_ttfb_ms=_ms(synthesised_at - self._sentence_at),
            edge_ms=_ms(sent_at - synthesised_at),
            turn_latency_ms=_ms(sent_at - self._speech_ended_at),
        )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)
