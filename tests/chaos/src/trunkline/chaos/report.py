"""The table of promises, with what came of them: a page's text, with the part between two marks replaced."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from trunkline.chaos.figures import Cost, Slope, Spread, spread
from trunkline.chaos.receiver import Posted
from trunkline.chaos.rows import ROWS
from trunkline.chaos.run import Result

BEGIN: Final = "<!-- chaos:begin (written by `python -m trunkline.chaos report`) -->"
END: Final = "<!-- chaos:end -->"
_HEAD: Final = (
    "| fault | promised | faults | calls hit | silence added | taken over | words lost or twice | broken promises |",
    "|---|---|--:|--:|--:|--:|--:|--:|",
)
SOAK: Final = "random"
"""The row in which the kills of other rows happen too, under their names."""
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
            lines.append(_from_soak(name, results.get(SOAK)))
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
    if (receipt := results[SOAK].posted if SOAK in results else None) is not None:
        lines += ["", _receipt(receipt)]
    if SOAK in results:
        lines += ["", *_growth(results[SOAK])]
    return "\n".join(lines)


def _from_soak(name: str, soak: Result | None) -> str:
    row = ROWS[name]
    costs: list[Cost] = [cost for cost in soak.costs if cost.kind == name] if soak is not None else []
    if not costs:
        return f"| {row.title} | {row.promise} | not run | | | | | |"
    cells = (
        row.title,
        row.promise,
        str(len({cost.fault_t for cost in costs})),
        str(len(costs)),
        _cell(spread(cost.extra_silence_ms for cost in costs)),
        _cell(spread(cost.reclaim_ms for cost in costs)),
        "see soak",
        "see soak",
    )
    return f"| {' | '.join(cells)} |"


def _receipt(receipt: Posted) -> str:
    return (
        f"A webhook's receiver was away {len(receipt.away_s)} times during the soak, "
        f"for {_list(receipt.away_s)} s. It was back with {_list(receipt.waiting)} facts waiting, and had them all "
        f"after {_list(receipt.caught_up_s)} s. Of {receipt.facts} facts {receipt.lost} were lost, {receipt.repeated} "
        f"came twice (with the same id), {receipt.out_of_order} came behind a later one of their call."
    )


def _list(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _growth(soak: Result) -> list[str]:
    lines = [
        f"What grew in the later half of {soak.took_s / 60:.0f} minutes of soak (of the processes that were spared):",
        "",
        "| reading | per hour | 95 % | readings |",
        "|---|--:|--:|--:|",
    ]
    for name, slope in sorted(soak.slopes.items()):
        if slope is not None:
            lines.append(f"| {name} | {_signed(slope.per_hour)} | {_range(slope)} | {slope.n} |")
    return lines


def _range(slope: Slope) -> str:
    return f"{_signed(slope.low)} to {_signed(slope.high)}"


def _signed(value: float) -> str:
    return f"{value:+.1f}"


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
