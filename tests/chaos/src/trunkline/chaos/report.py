"""The table of promises, with what came of them: a page's text, with the part between two marks replaced."""

from pathlib import Path
from typing import Final

import msgspec

from trunkline.chaos.figures import Spread
from trunkline.chaos.rows import ROWS
from trunkline.chaos.run import Result

BEGIN: Final = "<!-- chaos:begin (written by `python -m trunkline.chaos report`) -->"
END: Final = "<!-- chaos:end -->"
_HEAD: Final = (
    "| fault | promised | faults | calls hit | silence added | taken over | words lost or twice | broken promises |",
    "|---|---|--:|--:|--:|--:|--:|--:|",
)
_WORDS: Final = ("agent words lost", "agent words heard twice", "caller word lost", "caller word twice")


def failures_page(page: str, results: Path) -> str:
    """Return `page` with the table made of what lies in the folder `results`.

    Raises:
        ValueError: the page has no place for it.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} … {END}")
    return f"{before}{BEGIN}\n\n{table(_read(results))}\n\n{END}{after}"


def table(results: dict[str, Result]) -> str:
    """Return the table; rows that were not run say so."""
    lines = list(_HEAD)
    for name, row in ROWS.items():
        result = results.get(name)
        if result is None and name == "quick":
            continue
        if result is None:
            lines.append(f"| {row.title} | {row.promise} | not run | | | | | |")
            continue
        counts = result.findings.counts
        cells = (
            row.title,
            row.promise,
            str(result.faults),
            str(result.affected),
            _cell(result.spreads.get("extra_silence_ms")),
            _cell(result.spreads.get("reclaim_ms")),
            str(sum(counts.get(name, 0) for name in _WORDS)),
            str(len(result.findings.violations)) if not result.findings.vacuous else "no proof",
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *_totals(results)]
    return "\n".join(lines)


def one_line(result: Result) -> str:
    """Return a row for the terminal."""
    silence, back = result.spreads.get("extra_silence_ms"), result.spreads.get("reclaim_ms")
    findings = result.findings
    return (
        f"{result.row}: {_verdict(result)}; {result.faults} faults hit {result.affected} calls of "
        f"{findings.calls}; silence added {_cell(silence)} ms, taken over {_cell(back)} ms (p50 / p95 / max); "
        f"{len(findings.violations)} violations; callers' frames at most {result.latest_ms:.0f} ms late"
    )


def _verdict(result: Result) -> str:
    if result.kept:
        return "kept"
    spread = result.spreads.get(result.figure)
    if not result.findings.clean:
        return "BROKEN"
    if spread is None or result.p95_ms is None:
        return "NO PROOF, nothing was hit"
    return f"TOO SLOW ({result.figure} p95 {spread.p95:.0f}, promised {result.p95_ms:.0f})"


def _totals(results: dict[str, Result]) -> list[str]:
    if not results:
        return ["Nothing has been run."]
    calls = sum(result.findings.calls for result in results.values())
    words = sum(result.findings.counts.get("agent words heard", 0) for result in results.values())
    machine = "; ".join(dict.fromkeys(result.machine for result in results.values()))
    return [f"{calls} calls, {words} words heard and compared. Times in ms: p50 / p95 / max. Measured on: {machine}."]


def _cell(spread: Spread | None) -> str:
    return "-" if spread is None else f"{spread.p50:.0f} / {spread.p95:.0f} / {spread.max:.0f}"


def _read(folder: Path) -> dict[str, Result]:
    return {
        path.stem: msgspec.json.decode(path.read_bytes(), type=Result, dec_hook=_path)
        for path in sorted(folder.glob("*.json"))
        if path.stem in ROWS
    }


def _path(kind: type, value: object) -> object:
    return kind(value)
