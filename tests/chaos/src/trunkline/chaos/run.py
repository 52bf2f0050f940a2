"""One row of the table: a deployment, calls all the time, a fault again and again, and what became of it."""

import asyncio
import contextlib
import csv
import gzip
import os
import platform
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Final

import msgspec

from trunkline.chaos import figures
from trunkline.chaos.checker import Findings, check
from trunkline.chaos.evidence import Evidence, Sample, by_call
from trunkline.chaos.figures import Cost, Slope, Spread
from trunkline.chaos.files import gather, keep, stored_ids
from trunkline.chaos.receiver import Posted, posted
from trunkline.chaos.rig import Rig, rig
from trunkline.chaos.rows import ROWS, Row
from trunkline.chaos.samples import Sampler, slopes
from trunkline.runtime.clock import SYSTEM

FIGURES: Final = ("extra_silence_ms", "reclaim_ms", "first_frame_ms", "next_audio_ms")
CALL_S: Final = 40.0
"""About how long a call takes: the first ones are spread over as much."""
_LAST_WAIT_S: Final = 90.0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a row is run."""

    row: str
    repeats: int
    calls: int
    seed: int
    questions: int = 5
    stagger_s: float = 0.0
    """Between the first calls; 0: spread over the length of a call."""
    folder: Path | None = None
    """Where the raw data stays; None: nowhere."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a row."""

    row: str
    title: str
    promise: str
    figure: str
    p95_ms: float | None
    settings: Settings
    machine: str
    at: float
    took_s: float
    faults: int
    affected: int
    """How many times a call was hit."""
    latest_ms: float
    """By how much the callers' own frames were late at worst: what this machine adds."""
    usual_latency_ms: float
    findings: Findings
    spreads: dict[str, Spread | None]
    costs: list[Cost]
    slopes: dict[str, Slope | None] = {}
    posted: Posted | None = None
    """What became of the facts that were posted to somebody."""

    @property
    def kept(self) -> bool:
        """Whether the row's promise was kept, the figure included."""
        spread = self.spreads.get(self.figure)
        figure_kept = self.p95_ms is None or (spread is not None and spread.p95 <= self.p95_ms)
        clean = self.findings.clean and (self.posted is None or not (self.posted.lost or self.posted.out_of_order))
        return clean and (self.affected > 0 or self.row == "calm") and figure_kept


async def run_row(settings: Settings, say: Callable[[str], None]) -> tuple[Result, Evidence]:
    """Run a row to its end and judge it; a run broken off is judged as far as it came.

    Raises:
        KeyError: there is no such row.
        DevError: the deployment does not start.
    """
    row = ROWS[settings.row]
    began_t = SYSTEM.monotonic()
    with _folder(settings) as folder:
        async with rig(folder, say, bed=row.bed, receives=row.beside is not None, environ=row.environ) as one:
            sampler = Sampler(one)
            try:
                await _play(one, row, settings, say, sampler)
            except asyncio.CancelledError:
                say("broken off; judging what there is")
                await one.hang_up(1.0)
            callers = sum(path.read_bytes().count(b"\n") for path in one.folders.callers())
            say(f"{callers} calls are over; waiting for their facts")
            await one.delivered(callers)
            receiver = one.receiver
            if receiver is not None:
                await receiver.caught_up(one.emitted)
            stored = await stored_ids(one.bus)
            events_file, faults, folders = one.dev.events_file, list(one.faults), one.folders
        evidence = gather(folders, events_file, faults, stored, sampler.samples)
    result = judged(row, settings, evidence, SYSTEM.monotonic() - began_t)
    if receiver is not None:
        result = msgspec.structs.replace(result, posted=posted(evidence.events, receiver.arrivals, receiver.away))
    return result, evidence


def judged(row: Row, settings: Settings, evidence: Evidence, took_s: float) -> Result:
    """Return what `evidence` says about the row."""
    costs = figures.costs(evidence)
    return Result(
        row=settings.row,
        title=row.title,
        promise=row.promise,
        figure=row.figure,
        p95_ms=row.p95_ms,
        settings=settings,
        machine=f"{os.cpu_count()} processors, {platform.machine()}, Python {platform.python_version()}",
        at=SYSTEM.wall(),
        took_s=took_s,
        faults=len(evidence.faults),
        affected=len(costs),
        latest_ms=max((caller.latest_ms for caller in evidence.callers), default=0.0),
        usual_latency_ms=1_000 * figures.usual_of(by_call(evidence)).plain,
        findings=check(evidence, may_refuse=row.may_refuse),
        spreads={name: figures.spread(getattr(cost, name) for cost in costs) for name in FIGURES},
        costs=costs,
        slopes=slopes(evidence.samples),
    )


def write(result: Result, evidence: Evidence, out: Path) -> None:
    """Leave `result` in the folder `out`: JSON for the report, CSV for eyes, and what speaks of broken promises."""
    out.mkdir(parents=True, exist_ok=True)
    # Where the raw data lies on this machine is nobody else's business.
    result = msgspec.structs.replace(result, settings=msgspec.structs.replace(result.settings, folder=None))
    (out / f"{result.row}.json").write_bytes(msgspec.json.format(msgspec.json.encode(result, enc_hook=str), indent=1))
    with (out / f"{result.row}.csv").open("w", newline="") as file:
        _table(file, Cost, result.costs)
    if evidence.samples:
        with gzip.open(out / f"{result.row}.samples.csv.gz", "wt", newline="") as file:
            _table(file, Sample, evidence.samples)
    raw = out / f"{result.row}.evidence.jsonl.gz"
    raw.unlink(missing_ok=True)
    if result.findings.violations:
        calls = list(dict.fromkeys(violation.call for violation in result.findings.violations))
        keep(evidence, calls[:5], raw)


def _table(file: IO[str], kind: type[msgspec.Struct], structs: Iterable[msgspec.Struct]) -> None:
    rows = csv.DictWriter(file, fieldnames=kind.__struct_fields__)
    rows.writeheader()
    rows.writerows(msgspec.structs.asdict(struct) for struct in structs)


async def _play(one: Rig, row: Row, settings: Settings, say: Callable[[str], None], sampler: Sampler) -> None:
    rng = random.Random(settings.seed)  # noqa: S311 - to be repeated, not to be guessed
    stagger_s = settings.stagger_s or CALL_S / settings.calls
    beside: list[asyncio.Future[None]] = [asyncio.create_task(sampler.run(), name="samples")]
    if row.beside is not None:
        beside.append(asyncio.ensure_future(row.beside(one, rng)))
    try:
        await one.call(settings.calls, seed=settings.seed, stagger_s=stagger_s, questions=settings.questions)
        await asyncio.sleep(min(stagger_s * settings.calls, 15.0))
        for repeat in range(settings.repeats):
            say(f"{settings.row} {repeat + 1}/{settings.repeats}: {len(one.watch.calls)} calls")
            await row.inject(one, rng)
            due = SYSTEM.monotonic() + row.settle_s
            with contextlib.suppress(TimeoutError):
                await one.manned()
            await asyncio.sleep(max(0.0, due - SYSTEM.monotonic()))
        say("no more faults; letting the calls come to their end")
        await one.hang_up(_LAST_WAIT_S)
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)


@contextlib.contextmanager
def _folder(settings: Settings) -> Iterator[Path]:
    if settings.folder is not None:
        shutil.rmtree(settings.folder, ignore_errors=True)
        settings.folder.mkdir(parents=True)
        yield settings.folder.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="trunkline-chaos-") as name:
        yield Path(name)
