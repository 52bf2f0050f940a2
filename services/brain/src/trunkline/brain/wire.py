"""What a call's conversation orders, as messages of the bus; and as notes for whoever proves what was said."""

import msgspec

from trunkline.brain.moves import EndCall, Speak, Void
from trunkline.bus import Bus
from trunkline.proto import subjects
from trunkline.proto.ids import CallId, Epoch
from trunkline.proto.messages import HangUp, Interrupt, Say
from trunkline.runtime.journal import Journal


class Wire:
    """One call's.

    Args:
        bus: of the process.
        journal: of the process.
        call: whose.
        epoch: in which it is ours.
    """

    def __init__(self, bus: Bus, journal: Journal, call: CallId, epoch: Epoch) -> None:
        self._bus = bus
        self._journal = journal
        self._call = call
        self._epoch = epoch

    async def send(self, order: Speak | Void | EndCall, voice: Epoch) -> None:
        """Publish `order`; `voice` says which TTS worker is meant."""
        call, epoch = self._call, self._epoch
        match order:
            case Speak(generation, utterance, text, goes_on, filler_at, at):
                say = Say(
                    epoch=epoch,
                    generation=generation,
                    utterance=utterance,
                    text=text,
                    goes_on=goes_on,
                    filler_at=filler_at,
                    voice=voice,
                    at=at,
                )
                self._note("say", say)
                await self._bus.publish(subjects.speak(call), say)
            case Void(generation, reason, onset_at):
                void = Interrupt(epoch=epoch, generation=generation, reason=reason, onset_at=onset_at)
                self._note("void", void)
                await self._bus.publish(subjects.interrupt(call), void)
            case EndCall(generation, reason):
                hang_up = HangUp(epoch=epoch, generation=generation, reason=reason)
                await self._bus.publish(subjects.control(call), hang_up)

    def _note(self, what: str, message: Say | Interrupt) -> None:
        if self._journal.on:
            self._journal.note(what, self._call, **msgspec.structs.asdict(message))
