"""The end of the demo: the call as a table, what held and what did not, the files, and what to do next."""

import re
import sys
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from trunkline.demo.report import Report, Turn

_COMPLAINT: Final = re.compile(r"^\S+ +│ \S+ +(?:warning|error|critical)\b|Error\b")
_MOST_COMPLAINTS: Final = 6
_PLAYERS: Final = {"darwin": "afplay", "linux": "aplay"}


def print_summary(console: Console, report: Report, folder: Path) -> None:
    """Print all of it."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("turn", justify="right", style="dim")
    table.add_column("the caller said", overflow="fold", ratio=2)
    table.add_column("errors", justify="right")
    table.add_column("answer", justify="right")
    table.add_column("the agent was heard to say", overflow="fold", ratio=3)
    for turn in report.turns:
        table.add_row(*_row(turn))
    console.print(table)
    console.print()
    _print_providers(console, report)
    _print_verdicts(console, report)
    if not report.passed:
        print_complaints(console, folder / "services.log")
    _print_next(console, report, folder)


def print_complaints(console: Console, log: Path) -> None:
    """Print what the services last warned of: where to look first when something went wrong."""
    try:
        lines = log.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    complaints = [line for line in lines if _COMPLAINT.search(line)]
    if complaints:
        console.print(Text(f"the services complained {len(complaints)} times; the last of it:", "yellow"))
    for line in complaints[-_MOST_COMPLAINTS:]:
        console.print(Text(f"  {line}", "dim"), soft_wrap=True)


def _row(turn: Turn) -> tuple[str | Text, ...]:
    caller, agent, latency = turn.caller, turn.agent, turn.latency
    measured = f"{latency.measured_ms} ms" if latency is not None and latency.measured_ms is not None else ""
    heard = Text(agent.heard if agent is not None else "")
    if agent is not None and agent.interrupted:
        heard.append("  ✂ barge-in", "bold red")
    return (
        str(turn.turn),
        Text(caller.transcript if caller is not None else "", "cyan"),
        f"{caller.wer:.0%}" if caller is not None else "",
        measured,
        heard,
    )


def _print_providers(console: Console, report: Report) -> None:
    """Print what the providers cost, where there is a price, and which of them failed."""
    cost = report.cost
    if cost is not None and (cost.usd or not cost.complete):
        parts = ", ".join(
            f"{item.provider} {f'${item.usd:.4f}' if item.priced else 'not in the price table'}" for item in cost.items
        )
        console.print(Text(f"providers: ${cost.usd:.4f} ({parts})", "dim"))
    for failure in report.failures:
        what = f"{failure.stage}: {failure.provider} failed ({failure.kind}); {failure.then} {failure.to}".rstrip()
        console.print(Text(what, "yellow"))


def _print_verdicts(console: Console, report: Report) -> None:
    judged = [verdict for verdict in report.verdicts if verdict.passed is not None]
    failed = [verdict for verdict in judged if not verdict.passed]
    if not failed:
        console.print(Text.assemble(("✓ ", "bold green"), (f"all {len(judged)} expectations held", "green")))
    for verdict in failed:
        console.print(
            Text.assemble(("✗ ", "bold red"), f"{verdict.name}: expected {verdict.expected}, found {verdict.found}")
        )
    for verdict in report.verdicts:
        if verdict.passed is None:
            console.print(Text(f"? {verdict.name}: {verdict.found}", "dim"))


def _print_next(console: Console, report: Report, folder: Path) -> None:
    player = _PLAYERS.get(sys.platform, "play")
    rows = [
        (f"{folder / report.recording.file}", "caller left, agent right, as the caller heard it"),
        (f"{folder / 'timeline.png'}", "the call as a picture"),
        (f"{folder / 'report.json'}", "everything measured"),
        (f"{folder / 'services.log'}", "what the five services logged"),
        ("", ""),
        (f"{player} {folder / report.recording.file}", "listen"),
        ("make dev", "the same services, to stay; then make call in another terminal"),
        ("agents/restaurant.toml", "change what the agent says, and run this again"),
    ]
    table = Table.grid(padding=(0, 3, 0, 0))
    for name, what in rows:
        table.add_row(Text(name, "bold"), Text(what, "dim"))
    border = "green" if report.passed else "red"
    console.print(Panel(table, border_style=border, padding=(1, 2), expand=False))
