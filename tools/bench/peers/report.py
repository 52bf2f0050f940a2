"""The figures of a campaign as a table, with what they do not say."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import msgspec

from tools.bench.peers import tones
from tools.bench.peers.caller import Outcome

_LATE_MS = 200.0
_SILENCE = "silence, s: median (longest)"
_WORDS = f"words heard of {tones.ANSWER_WORDS}"
_CAVEATS = """
What the figures mean, and where they are unfair:

- *Calls alive* counts those whose caller was answered again after the fault. *Silence* is what a caller waited at the
  longest, by ear, for the agent's next word; the row without a fault has what is usual. It is only told of calls that
  live. *Memory* is kept if the agent goes on counting what the caller has said. *Words heard* are those of the answer
  under way when the fault fell, its rest included if that came later.
- A trial in which a caller did not hear the first answer whole, before any fault, is repeated.
- Calls of one row and trial share one process and one blow: they are not independent of each other, except in "a warm
  process per call", where the blow meets one call's process only and the others' callers are counted apart.
- "As in its guides": TwiML of `<Connect><Stream>` alone. `<Redirect>` and `<Pause>` behind it are additions of ours; we
  found no guide of Pipecat's that speaks of them. Twilio asks a webhook whose connection is refused once more and at
  once, then ends the call (11200): a `<Redirect>` alone comes before a new process is up. The pause is ours to choose
  (4 s here, a new process mostly takes 2 to 3 s), and most of the silence is the pause; where all calls of a row with a
  pause ended, the new process came later than that, and why it did is not known.
- A caller who misses the last word of an answer waits 8 s and asks again: that is what a longest silence of 10 s
  without a fault is. Why sound broke is not known; callers, agent and others share two cores.
- One process for all calls is what the Twilio example and the development runner do. For production Pipecat's guides
  advise a process or machine per call, deploys that wait until all calls are over, and Pipecat Cloud, which was not
  measured. SIGTERM here is what a deploy does to calls that last longer than it is willing to wait.
- Memory is lost because nothing is asked to keep it: an application of Pipecat's may store its context itself and read
  it again. Its guide to production leaves what happens after a crash to the application.
- The caller is a synthetic voice, and says what Pipecat's Smart Turn takes for complete; it would wait for 3 s behind
  what it does not. Detection of speech and of its end is Pipecat's own, with its defaults.
- The vendors are in the process and never fail; a hanging LLM has no time limit and no second choice here, though
  Pipecat has `ServiceSwitcher` for that and some of its LLM services take a time limit.
- The carrier is an emulator: it notices a lost socket at once, drops what it had not played, and asks within 0.15 s.
"""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a campaign found."""

    command: str
    date: str
    machine: str
    versions: dict[str, str]
    seconds: float
    restarts_s: list[float]
    """From each death of the one process until a new one answered, 1 s of a supervisor's delay included."""
    outcomes: list[Outcome]


def machine() -> str:
    """Return what this ran on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1] for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].strip() if names else model
    system = f"{platform.system()} {platform.release()}"
    return f"{os.cpu_count()} cores ({model}), {system}, Python {platform.python_version()}"


def markdown(report: Report) -> str:
    """Return the table and its caveats."""
    named = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    lines = [
        "# What callers hear when a Pipecat agent is hurt",
        "",
        f"`{report.command.strip()}`, {report.date}, {report.seconds:g} s, {report.machine}. {named}.",
        "",
        f"| setup | fault | calls hit | alive | {_SILENCE} | memory kept | {_WORDS} | how the others ended |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in report.outcomes:
        rows.setdefault((outcome.setup, outcome.fault), []).append(outcome)
    lines += [_row(setup, fault, found) for (setup, fault), found in rows.items()]
    lines.append("")
    if report.restarts_s:
        lines.append(
            f"The one process was back {median(report.restarts_s):.1f} s after it died (median of"
            f" {len(report.restarts_s)}, longest {max(report.restarts_s):.1f} s); the supervisor waits 1 s of that."
        )
    latest_ms = max(outcome.latest_ms for outcome in report.outcomes)
    late = ": THE CALLERS WERE LATE, the machine was too busy" if latest_ms > _LATE_MS else ""
    lines.append(f"The latest 20 ms of any caller came {latest_ms:.0f} ms late{late}.")
    return "\n".join(lines) + "\n" + _CAVEATS


def _row(setup: str, fault: str, found: Sequence[Outcome]) -> str:
    hit = [outcome for outcome in found if outcome.hit]
    spared = [outcome for outcome in found if not outcome.hit]
    alive = [outcome for outcome in hit if outcome.survived]
    waits = [outcome.silence_s for outcome in alive if outcome.silence_s is not None]
    silence = f"{median(waits):.1f} ({max(waits):.1f})" if waits else "-"
    kept = f"{sum(outcome.memory == 'kept' for outcome in alive)}/{len(alive)}" if alive else "-"
    words = f"{median([outcome.answer_heard for outcome in hit]):g}"
    ends = "; ".join(dict.fromkeys(outcome.how for outcome in hit if not outcome.survived)) or "-"
    others = f" (others: {sum(outcome.survived for outcome in spared)}/{len(spared)})" if spared else ""
    return f"| {setup} | {fault} | {len(hit)} | {len(alive)}{others} | {silence} | {kept} | {words} | {ends} |"
