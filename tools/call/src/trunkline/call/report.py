"""A finished call for people and for files: the verdict as a table, call.wav, call.json."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trunkline.audio import wav
from trunkline.call.judge import audible
from trunkline.call.seen import CallResult, Seen
from trunkline.proto import messages
from trunkline.testing.twilio import RATE_HZ

_SIGNS: Final = {True: ("✓", "green"), False: ("✗", "bold red"), None: ("?", "dim")}
_COLOURS: Final = {"caller": "cyan", "agent": "magenta", "line": "dim", "bus": "dim"}


def print_verdicts(console: Console, result: CallResult) -> None:
    """Print what was expected and what was found."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title_justify="left")
    for heading in ("", "expectation", "expected", "found"):
        table.add_column(heading, overflow="fold")
    for verdict in result.verdicts:
        sign, style = _SIGNS[verdict.passed]
        cells = (verdict.name, verdict.expected, verdict.found)
        table.add_row(Text(sign, style), *(Text(cell, style if verdict.passed is None else "") for cell in cells))
    console.print(table)
    judged = [verdict.passed for verdict in result.verdicts if verdict.passed is not None]
    sign, style = _SIGNS[result.passed]
    console.print(
        Text.assemble(
            (f"{sign} {result.scenario}: {sum(judged)} of {len(judged)} met", style),
            f" · {result.duration_s:.1f} s · ended by the {result.ended_by} · {result.call_sid} · call {result.call}",
        )
    )


def print_summary(console: Console, results: Sequence[CallResult], failures: Sequence[str]) -> None:
    """Print how many of many calls met each expectation, and why others could not be placed."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    table.add_column("expectation", overflow="fold")
    table.add_column("met", justify="right")
    table.add_column("first miss", overflow="fold")
    by_name: dict[str, list[tuple[bool | None, str]]] = {}
    for result in results:
        for verdict in result.verdicts:
            by_name.setdefault(verdict.name, []).append((verdict.passed, verdict.found))
    for name, found in by_name.items():
        missed = [text for passed, text in found if passed is False]
        unseen = all(passed is None for passed, _ in found)
        sign, style = _SIGNS[None if unseen else not missed]
        met = sum(1 for passed, _ in found if passed)
        table.add_row(Text(sign, style), Text(name), f"{met}/{len(found)}", Text(missed[0] if missed else ""))
    console.print(table)
    passed = sum(result.passed for result in results)
    total = len(results) + len(failures)
    sign, style = _SIGNS[passed == total]
    latest_ms = max((result.latest_ms for result in results), default=0.0)
    console.print(
        Text.assemble((f"{sign} {passed} of {total} calls passed", style), f" · latest frame {latest_ms:.0f} ms")
    )
    for failure in dict.fromkeys(failures):
        console.print(Text(f"{failures.count(failure)} not placed: {failure}", "red"))


def print_seen(console: Console, seen: Seen) -> None:
    """Print one thing that happened, on one line; media and noise of the protocol are left out."""
    what, text = seen.what, seen.text
    match seen.message:
        case messages.PartialTranscript() | messages.PlayoutStarted():
            return
        case messages.FinalTranscript(text=words) | messages.Say(text=words):
            text = f"{text} “{words}”"
        case _:
            if seen.who == "line" and what.startswith("mark"):
                return
    label = Text(f"{seen.at_s:7.2f} s  {seen.who:<6} ", _COLOURS[seen.who])
    console.print(Text.assemble(label, f"{what} {text}".rstrip()), highlight=False)


def write_files(folder: Path, result: CallResult) -> None:
    """Write ``call.wav`` (caller left, agent right) and ``call.json`` into `folder`, which is made if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    wav.write_stereo(folder / "call.wav", result.left, result.right, RATE_HZ)
    fields = {name: getattr(result, name) for name in result.__struct_fields__ if name not in ("left", "right")}
    record = {"passed": result.passed, **fields, "agent_audible_s": audible(result.right)}
    text = msgspec.json.format(msgspec.json.encode(record), indent=2)
    (folder / "call.json").write_bytes(text + b"\n")
