"""All rules, over all calls: what was promised, counted, and every promise that was broken. Pure.

A run in which a rule had nothing to look at proves nothing, so what was looked at is checked as well (`vacuous`).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

import msgspec

from trunkline.chaos import facts, sound, words
from trunkline.chaos.evidence import CallerRecord, CallEvidence, Evidence, Fault, Violation, by_call

Rule = Callable[[CallEvidence, "Counter[str]"], Iterator[Violation]]
RULES: Final[tuple[Rule, ...]] = (
    words.agent_words,
    words.caller_words,
    words.script_done,
    sound.one_speaker,
    sound.stale_is_fenced,
    sound.frames_heard,
    facts.tools,
    facts.tool_facts,
    facts.lifecycle,
    facts.ended,
)
SEEN: Final[Mapping[str, str]] = {
    "agent words heard": "no word of the agent's was heard in any recording",
    "caller words told": "no fact tells what a caller said",
    "chunks played": "no journal of an edge tells what was played",
    "voices assigned": "no journal of an edge tells who was assigned",
    "frames sent": "no journal of an edge tells which frames were sent",
    "frames heard": "no journal of an STT worker tells which frames were heard",
    "tool effects": "the tool had no effect in any call",
    "facts delivered": "no facts were delivered",
}
"""What has to be there for a verdict: the count, and what it means when it is 0."""


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What the checker has to say about a run."""

    calls: int
    """Calls that were admitted and held to their end."""
    refused: int
    broken_off: int
    """Calls the harness itself broke off; not judged."""
    counts: dict[str, int]
    violations: tuple[Violation, ...]
    vacuous: tuple[str, ...]
    """Why the verdict means less than it seems: what nobody could look at."""

    @property
    def clean(self) -> bool:
        """Whether every promise was kept, and seen to be kept."""
        return not self.violations and not self.vacuous


def check(evidence: Evidence, *, may_refuse: bool = False) -> Findings:
    """Hold `evidence` against all rules.

    Args:
        evidence: of a whole run.
        may_refuse: whether there were to be more calls than there is room for.
    """
    counts: Counter[str] = Counter()
    violations: list[Violation] = []
    judged = [call for call in by_call(evidence) if _judged(call.caller)]
    for call in judged:
        for rule in RULES:
            violations += rule(call, counts)
    violations += facts.delivered(evidence, counts)
    refused = [caller for caller in evidence.callers if caller.refused]
    for caller in refused:
        if may_refuse or without_bus(caller, evidence.faults):
            counts["calls refused for a reason"] += 1
        else:
            violations.append(Violation(rule="refused", call=caller.call, t=caller.began_t, text=caller.refused))
    return Findings(
        calls=len(judged),
        refused=len(refused),
        broken_off=len(evidence.callers) - len(judged) - len(refused),
        counts=dict(sorted(counts.items())),
        violations=tuple(sorted(violations, key=lambda violation: violation.t)),
        vacuous=tuple(meaning for name, meaning in SEEN.items() if not counts[name]),
    )


def without_bus(caller: CallerRecord, faults: Iterable[Fault]) -> bool:
    """Return whether the call began while there was no bus: it is to be told at once."""
    return any(
        fault.kind == "nats-restart" and fault.t - 1.0 <= caller.began_t <= max(fault.t, fault.until_t) + 1.0
        for fault in faults
    )


def _judged(caller: CallerRecord) -> bool:
    return not caller.refused and caller.ended_by != "nobody"
