"""The tools that run for a call. Pure.

A tool that was started is never stopped: its answer goes into the history beside its question, whenever it comes.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Final

from trunkline.brain.history import History
from trunkline.brain.llm import ToolAsked, ToolCall
from trunkline.brain.moves import Emit, Ignore, Order, RunTool, ToolDone
from trunkline.brain.snapshot import Running
from trunkline.proto.events import ToolCalled, ToolReturned
from trunkline.proto.ids import ToolCallId, TurnId

OUTCOME_UNKNOWN: Final = (
    "The outcome of {name} is not known: it may have been done. Do not call it again without asking the caller."
)


class Errands:
    """One call's.

    Args:
        history: where questions and answers are entered.
        most_per_turn: after so many in one turn of the caller's no more may be asked for.
        do: takes orders.
    """

    def __init__(self, history: History, most_per_turn: int, do: Callable[[Order], None]) -> None:
        self._history = history
        self._most_per_turn = most_per_turn
        self._do = do
        self._running: dict[ToolCallId, TurnId] = {}
        self._this_turn = 0

    @property
    def running(self) -> tuple[ToolCallId, ...]:
        """Those that have not answered."""
        return tuple(self._running)

    @property
    def concern_this_turn(self) -> bool:
        """Whether the turn cannot be undone: something runs, or was run for it."""
        return bool(self._running or self._this_turn)

    @property
    def allowed(self) -> bool:
        """Whether the model may ask for more in this turn."""
        return self._this_turn < self._most_per_turn

    def new_turn(self) -> None:
        """The caller has said something new."""
        self._this_turn = 0

    def start(self, turn: TurnId, calls: Sequence[ToolCall]) -> None:
        """Run what the model asked for."""
        self._this_turn += len(calls)
        for call in calls:
            tool_call = self._history.tool_asked(call)
            self._running[tool_call] = turn
            self._do(Emit(ToolCalled(turn=turn, tool_call=tool_call, name=call.name, arguments=call.arguments)))
            self._do(RunTool(turn=turn, tool_call=tool_call, name=call.name, arguments=call.arguments))

    def done(self, event: ToolDone) -> None:
        """Take in that one has answered, or failed."""
        turn = self._running.pop(event.tool_call, None)
        if turn is None:
            self._do(Ignore("unknown-tool-call"))
            return
        self._history.tool_answered(event)
        fact = ToolReturned(
            turn=turn,
            tool_call=event.tool_call,
            name=event.name,
            took_ms=event.took_ms,
            result=event.result,
            error=event.error,
        )
        self._do(Emit(fact))

    # --- for whoever goes on with it -------------------------------------------------------------------------------

    def kept(self) -> tuple[Running, ...]:
        """Return what runs as it is to be kept."""
        return tuple(Running(tool_call, turn) for tool_call, turn in self._running.items())

    @property
    def this_turn(self) -> int:
        """How many were asked for in this turn."""
        return self._this_turn

    def restore(self, running: Sequence[Running], this_turn: int) -> None:
        """Begin as kept."""
        self._running = {run.tool_call: run.turn for run in running}
        self._this_turn = this_turn

    def take_up(self, repeatable: Collection[str]) -> None:
        """Settle what ran when whoever ran it was lost: run it again if that does no harm, else own up to the model."""
        asked = {item.tool_call: item for item in self._history.kept() if isinstance(item, ToolAsked)}
        for tool_call, turn in list(self._running.items()):
            question = asked.get(tool_call)
            if question is None:
                del self._running[tool_call]
            elif question.name in repeatable:
                self._do(RunTool(turn=turn, tool_call=tool_call, name=question.name, arguments=question.arguments))
            else:
                error = OUTCOME_UNKNOWN.format(name=question.name)
                self.done(ToolDone(tool_call=tool_call, name=question.name, took_ms=0.0, error=error))
