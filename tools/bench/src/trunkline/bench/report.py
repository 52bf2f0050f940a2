"""What a run came to: its table, its file, how it compares with an earlier one, and how far the calls may grow."""

import os
import platform
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from trunkline.bench.measure import CALLERS, Column

TAIL: Final = 1.2
"""The 99th percentile of the response may be this many times what it is with the fewest calls."""
_NOISE: Final = {"%": (0.15, 0.02), "ms": (0.1, 8.0), "MiB": (0.2, 0.05)}
"""By unit, what two runs of the same code differ by: so much of the value, or so much whatever the value."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What is written."""

    what: str
    date: str
    command: str
    machine: str
    columns: list[Column]
    churn: Column | None = None
    """With calls that come and go."""
    startup_s: dict[str, float] = {}
    """By service, from its start to its readiness: the median of some."""


def outcome_of(what: str, columns: list[Column]) -> Outcome:
    """Return `columns` with where and how they came about."""
    return Outcome(what=what, date=today(), command=command(), machine=machine(), columns=columns)


def today() -> str:
    """Return the date as results have it."""
    return datetime.now(UTC).date().isoformat()


def command() -> str:
    """Return how it was begun."""
    return " ".join(["python", *sys.orig_argv[1:]])


def machine() -> str:
    """Return what results are to be compared by."""
    return f"{os.cpu_count()} processors, {platform.machine()}, Python {platform.python_version()}"


def write(outcomes: list[Outcome], path: Path) -> None:
    """Write everything to a file."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(outcomes), indent=1) + b"\n")


def load(path: Path) -> list[Outcome]:
    """Read what `write` has written.

    Raises:
        OSError: it cannot be read.
        msgspec.MsgspecError: it is of another kind, or an older one.
    """
    return msgspec.json.decode(path.read_bytes(), type=list[Outcome])


def rows(column: Column) -> Iterator[tuple[str, float, str]]:
    """Yield name, value and unit of what there is to tell of a column."""
    for name, share in column.core_percent_per_call.items():
        yield f"{name}, of a core per call", share, "%"
    yield "platform and bus, of a core per call", column.ours, "%"
    yield "memory per call", sum(column.mib_per_call.values()), "MiB"
    for what, spread in (("response", column.response_ms), ("interruption to clear", column.interrupt_ms)):
        yield f"{what}, p50", spread.p50, "ms"
        yield f"{what}, p99", spread.p99, "ms"
    for name, part in msgspec.structs.asdict(column.parts_ms).items():
        yield f"  of the mean response: {name.replace('_', '-')}", part, "ms"
    for what, spread in (("platform's share", column.platform_ms), ("  answering alone", column.answering_ms)):
        yield f"{what}, p50", spread.p50, "ms"
        yield f"{what}, p99", spread.p99, "ms"
    for name, by_service in column.told.items():
        for service, found in by_service.items():
            if found.n:
                label = name.removeprefix("trunkline_").removesuffix("_seconds").replace("_", " ")
                yield f"{service}: {label}, p99 below", found.p99, "ms"
                yield f"{service}: {label}, p99.9 below", found.p999, "ms"
    for field in msgspec.structs.fields(column.flow):
        yield f"bus per call and second, {field.name.replace('_', ' ')}", getattr(column.flow, field.name), ""
    for service, grown in column.growth.items():
        yield f"{service}: memory per 100 calls more", grown.mib_per_100_calls, "MiB"
        yield f"{service}:   give or take", grown.within, "MiB"
    yield "gaps heard", column.gaps.n, ""
    yield "callers late by, p99", column.lag_ms.p99, "ms"
    for field_name in ("unanswered", "closed_early", "failed"):
        yield field_name.replace("_", " "), getattr(column, field_name), ""


def show(what: str, columns: Sequence[Column]) -> None:
    """Print the table."""
    tables = [{name: (value, unit) for name, value, unit in rows(column)} for column in columns]
    print(f"\n{what}\n")
    print(f"{'calls at once':<58}" + "".join(f"{column.calls:>10}" for column in columns))
    for name in dict.fromkeys(name for table in tables for name in table):
        cells = [table.get(name) for table in tables]
        unit = next(cell[1] for cell in cells if cell is not None)
        values = "".join(f"{'' if cell is None else _shown(*cell):>10}" for cell in cells)
        print(f"{name + (f', {unit}' if unit else ''):<58}{values}")
    print(f"{'callers in time':<58}" + "".join(f"{'yes' if column.proves else 'NO':>10}" for column in columns))


def pace(before: Sequence[Column], now: Sequence[Column]) -> float:
    """Return how many times as dear this machine is, by what the callers cost, whose work is the same; 1 if unknown."""
    were, are = ({one.calls: one.core_percent_per_call.get(CALLERS, 0.0) for one in run} for run in (before, now))
    ratios = [are[calls] / were[calls] for calls in were.keys() & are.keys() if were[calls] and are[calls]]
    return median(ratios) if ratios else 1.0


def moved(before: Sequence[Column], now: Sequence[Column]) -> Iterator[str]:
    """Yield what moved by more than two runs of the same code differ by; shares of a core at the machine's `pace`."""
    dearer = pace(before, now)
    if abs(dearer - 1.0) > _NOISE["%"][0]:
        yield (
            f"the callers, who do the same as before, cost {dearer:.2f} times as much: by this machine or this Python. "
            "Shares of a core are compared with so many times what they were; times cannot be compared"
        )
    known = {column.calls: {name: value for name, value, _ in rows(column)} for column in before}
    for column in now:
        for name, value, unit in rows(column):
            old = known.get(column.calls, {}).get(name)
            if old is None or unit not in _NOISE:
                continue
            share, least = _NOISE[unit]
            expected = old * dearer if unit == "%" else old
            if abs(value - expected) > max(least, share * abs(expected)):
                yield f"{column.calls} calls: {name.strip()}: {_shown(expected, unit)} -> {_shown(value, unit)} {unit}"


def knee(columns: Sequence[Column]) -> int:
    """Return the most calls up to which everybody is served, in time, within `TAIL` of the least; 0: not even those."""
    most = 0
    for column in columns:
        if not (column.served and column.proves and column.response_ms.p99 <= TAIL * columns[0].response_ms.p99):
            break
        most = column.calls
    return most


def _shown(value: float, unit: str) -> str:
    return f"{value:.3f}" if unit == "%" else f"{value:.2f}" if unit == "MiB" else f"{value:.1f}"
