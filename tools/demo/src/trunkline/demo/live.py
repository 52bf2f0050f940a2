"""The call in the terminal, while it happens.

Lines that stand are printed; below them, on a terminal, one block shows this moment: who speaks, and the words so far.
Without a terminal the lines alone are printed.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.rule import Rule
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from trunkline.call import Seen
from trunkline.demo.scene import Line, Scene

_STYLES: Final = {
    "caller": "bold cyan",
    "agent": "bold blue",
    "tool": "yellow",
    "barge-in": "bold red",
    "latency": "dim",
    "line": "dim",
}
_REFRESHES_PER_S: Final = 12


class Stage:
    """Where the demo shows itself."""

    def __init__(self, console: Console, monotonic: Callable[[], float]) -> None:
        self.console = console
        self._monotonic = monotonic

    def say(self, text: str, style: str = "") -> None:
        """Print a line."""
        self.console.print(Text(text, style), soft_wrap=True)

    @contextlib.contextmanager
    def busy(self, text: str) -> Iterator[None]:
        """Show that something takes its time; tell how long it took."""
        began_at = self._monotonic()
        if self.console.is_terminal:
            with Live(Spinner("dots", Text(f" {text} …")), console=self.console, transient=True):
                yield
        else:
            self.say(f"  {text} …")
            yield
        self.console.print(Text.assemble(("✓ ", "green"), f"{text} ", (f"{self._monotonic() - began_at:.1f} s", "dim")))

    @contextlib.contextmanager
    def call(self, scene: Scene) -> Iterator[Callable[[Seen], None]]:
        """Show the call that is fed to the function this yields."""
        self.console.print(Rule(style="dim"))
        moment = _Moment(scene, self._monotonic)

        def take(seen: Seen) -> None:
            moment.at(seen.at_s)
            for line in scene.take(seen):
                self._print(line)

        with contextlib.ExitStack() as stack:
            if self.console.is_terminal:
                live = Live(moment, console=self.console, refresh_per_second=_REFRESHES_PER_S, transient=True)
                stack.enter_context(live)
            yield take
        self.console.print(Rule(style="dim"))

    def _print(self, line: Line) -> None:
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(width=7, justify="right", style="dim")
        grid.add_column(width=8, justify="right")
        grid.add_column(overflow="fold")
        quiet = line.who in {"latency", "line"}
        words = Text(line.text, "dim" if quiet else _STYLES["tool"] if line.who == "tool" else "")
        if line.unheard:
            words.append(" ✂ " if line.text else "✂ ", "bold red")
            words.append(line.unheard, "dim strike")
            words.append(" (never heard)", "dim")
        label = Text("" if line.who in {"line", "latency"} else line.who, _STYLES[line.who])
        grid.add_row(f"{line.at_s:.1f}", label, words)
        self.console.print(grid)


class _Moment:
    """This moment of the call, drawn anew many times a second."""

    def __init__(self, scene: Scene, monotonic: Callable[[], float]) -> None:
        self._scene = scene
        self._monotonic = monotonic
        self._zero_at = monotonic()

    def at(self, at_s: float) -> None:
        """Set the clock by the call's own: audio, not this process, says what time it is."""
        self._zero_at = self._monotonic() - at_s

    def __rich__(self) -> RenderableType:
        scene, now_s = self._scene, self._monotonic() - self._zero_at
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(width=7, justify="right", style="dim")
        grid.add_column(width=8, justify="right")
        grid.add_column(no_wrap=True, overflow="ellipsis")
        grid.add_row(f"{now_s:.1f}", *_side("caller", "cyan", scene.words, speaks=scene.caller_speaks))
        grid.add_row("", *_side("agent", "blue", scene.agent_words(now_s), speaks=scene.agent_speaks))
        return Group(Text(""), grid)


def _side(name: str, colour: str, words: str, *, speaks: bool) -> tuple[Text, Text]:
    lamp = ("● ", f"bold {colour}") if speaks else ("○ ", "dim")
    said = Text.assemble(lamp, (words, f"italic {colour}"), ("…" if speaks and words else "", "dim"))
    return Text(name, f"bold {colour}" if speaks else "dim"), said
