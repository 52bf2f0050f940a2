"""Lines on a terminal: time, call, topic, words; in colour where there is a terminal."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from rich.console import Console
from rich.text import Text

from trunkline.cli.story import Line, Style

_STYLES: Final[Mapping[Style, str]] = {
    "caller": "bold green",
    "agent": "bold cyan",
    "interrupt": "bold red",
    "playout": "blue",
    "tool": "magenta",
    "trouble": "bold white on red",
    "fact": "yellow",
    "faint": "dim",
    "raw": "dim italic",
}
_CALL_WIDTH: Final = 8
_TOPIC_WIDTH: Final = 16


def row(line: Line, wall_at: float, *, day: bool = False, call: bool = True) -> Text:
    """Lay out `line`, which happened at `wall_at`; with the day and with the call's first letters if wanted."""
    local = datetime.fromtimestamp(wall_at).astimezone()
    moment = local.strftime("%Y-%m-%d %H:%M:%S.%f" if day else "%H:%M:%S.%f")[:-3]
    text = Text(moment, style="dim")
    if call:
        text.append(f"  {line.call[:_CALL_WIDTH]:<{_CALL_WIDTH}}", style="not dim")
    text.append(f"  {line.topic:<{_TOPIC_WIDTH}}", style="not dim")
    text.append(f"  {line.text}", style=f"not dim {_STYLES[line.style]}")
    return text


def show(console: Console, text: Text) -> None:
    """Print `text` as one line, however long."""
    console.print(text, soft_wrap=True, highlight=False)
