"""The keys a caller presses, as one entry. Pure."""

from collections.abc import Callable
from typing import Final

from trunkline.brain.moves import ArmTimer, DisarmTimer

END_S: Final = 0.15
"""How long ``#`` waits for the carrier to tell what was heard of the words it cut."""
PAUSE_S: Final = 1.5
"""Keys pressed within this time of each other are one entry; ``#`` ends it."""


class Keypad:
    """One call's.

    Args:
        do: takes orders.
    """

    def __init__(self, do: Callable[..., None]) -> None:
        self._do: Callable[..., None] = do
        self.pressed = ""
        """What was pressed of an entry that is not over."""

    def press(self, digit: str, at: float) -> None:
        """Take a key. The silence of a caller who types is none."""
        self.pressed += digit
        self._do(DisarmTimer("silence"), ArmTimer("keys", at + (END_S if digit == "#" else PAUSE_S)))

    def take(self) -> str:
        """Return the entry: no more keys come."""
        self._do(DisarmTimer("keys"))
        entry, self.pressed = self.pressed, ""
        return entry

    def restore(self, pressed: str, at: float) -> None:
        """Begin with what was pressed when somebody else had the call."""
        self.pressed = pressed
        if pressed:
            self._do(ArmTimer("keys", at + PAUSE_S))
