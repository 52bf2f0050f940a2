"""What is to be done, in order, and the timers that are set. Pure.

The parts of a conversation give their orders here. A timer that was moved or forgotten may have fired already; whether
one that fires is still meant is known here alone.
"""

from types import MappingProxyType
from typing import Final

from trunkline.brain.moves import ArmTimer, DisarmTimer, Order, Timer

EARLY_S: Final = 0.05
"""How much too early a timer may fire: clocks differ a little."""


class Agenda:
    """One call's."""

    def __init__(self) -> None:
        self._orders: list[Order] = []
        self._due: dict[Timer, float] = {}
        self.due = MappingProxyType(self._due)
        """The timers that are set, and when they fire."""

    def do(self, *orders: Order) -> None:
        """Have `orders` carried out after those given before."""
        for order in orders:
            match order:
                case ArmTimer(timer, at):
                    self._due[timer] = at
                case DisarmTimer(timer):
                    self._due.pop(timer, None)
        self._orders.extend(orders)

    def came_due(self, timer: Timer, at: float) -> bool:
        """Tell whether `timer` is set and its time has come; it is not set any more then."""
        due = self._due.get(timer)
        if due is None or at < due - EARLY_S:
            return False
        del self._due[timer]
        return True

    def take(self) -> list[Order]:
        """Return what was ordered since the last time."""
        orders, self._orders = self._orders, []
        return orders
