"""Rules about what is left of a call: the tool's effects, the facts as delivered, and why it ended. Pure."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from trunkline.chaos.evidence import CallEvidence, Evidence, Violation
from trunkline.chaos.script import TOOL, WANTS_TOOL
from trunkline.proto.events import (
    CallBilled,
    CallEnded,
    CallerSpoke,
    CallStarted,
    ToolCalled,
    ToolReturned,
    kind_of,
)

CALLER_HUNG_UP: Final = "customer-ended-call"
EDGE_LOST: Final = "edge-lost"
_UNSEEN_S: Final = 2.0
"""A caller whose last frame an edge took so shortly before they hung up, and whose end no edge noted, was not seen."""


def tools(call: CallEvidence, counts: Counter[str]) -> Iterator[Violation]:
    """A tool has its effect at most once per key, and exactly once per question that wants it.

    Unless the model was told that its outcome is not known: then at most once.
    """
    caller = call.caller.call
    keys = Counter(effect.key for effect in call.effects)
    counts["tool effects"] += len(call.effects)
    for key, times in keys.items():
        if times > 1:
            at_t = [effect.t for effect in call.effects if effect.key == key]
            text = f"the effect of {key} was had {times} times: {', '.join(f'{t:.3f}' for t in at_t)}"
            yield Violation(rule="tool-twice", call=caller, t=at_t[1], text=text)
    wanted = next((asked for asked in call.caller.asked if asked.question == WANTS_TOOL), None)
    unknown = sum(
        isinstance(event.fact, ToolReturned) and event.fact.name == TOOL and bool(event.fact.error)
        for event in call.events
    )
    counts["tool outcomes not known"] += unknown
    had = len(keys)
    if wanted is None:
        if had:
            t = call.effects[0].t
            yield Violation(rule="tool-unasked", call=caller, t=t, text="a tool had an effect that nobody asked for")
        return
    counts["tools wanted"] += 1
    if had > 1:
        text = f"the question wants one effect, and there are {had}, under different keys: {', '.join(keys)}"
        yield Violation(rule="tool-twice", call=caller, t=call.effects[-1].t, text=text)
    if not had and not unknown:
        text = "the question wants an effect; there is none, and nobody was told that it is not known"
        yield Violation(rule="tool-lost", call=caller, t=wanted.ended_t, text=text)


def tool_facts(call: CallEvidence, counts: Counter[str]) -> Iterator[Violation]:
    """Every tool that was called has returned, once."""
    called = Counter(event.fact.tool_call for event in call.events if isinstance(event.fact, ToolCalled))
    returned = Counter(event.fact.tool_call for event in call.events if isinstance(event.fact, ToolReturned))
    counts["tools called"] += len(called)
    for key in called | returned:
        if returned[key] != 1 or called[key] < 1:
            text = f"{key} was called {called[key]} times and returned {returned[key]} times, by the facts"
            yield Violation(rule="tool-facts", call=call.caller.call, t=call.caller.ended_t, text=text)


def lifecycle(call: CallEvidence, counts: Counter[str]) -> Iterator[Violation]:
    """One start, which is first; one end, which is last; no id twice; the caller's turns counted without a gap."""
    caller, t = call.caller.call, call.caller.ended_t
    facts = [event.fact for event in call.events]
    counts["facts delivered"] += len(facts)
    for kind, name in ((CallStarted, "call.started"), (CallEnded, "call.ended"), (CallBilled, "call.billed")):
        found = sum(isinstance(fact, kind) for fact in facts)
        if found != 1:
            yield Violation(rule=f"fact-{name}", call=caller, t=t, text=f"{name} was delivered {found} times")
    if facts and not isinstance(facts[0], CallStarted):
        yield Violation(rule="fact-order", call=caller, t=t, text=f"the first fact is {kind_of(facts[0])}")
    if facts and not isinstance(facts[-1], CallEnded):
        yield Violation(rule="fact-order", call=caller, t=t, text=f"the last fact is {kind_of(facts[-1])}")
    for identity, times in Counter(event.id for event in call.events).items():
        if times > 1:
            yield Violation(rule="fact-twice", call=caller, t=t, text=f"{identity} was delivered {times} times")
    # A sound without words counts with the turn before.
    turns = [fact.turn for fact in facts if isinstance(fact, CallerSpoke) and fact.text]
    if turns != list(range(1, len(turns) + 1)):
        yield Violation(rule="fact-turns", call=caller, t=t, text=f"the caller's turns are numbered {turns}")


def ended(call: CallEvidence, counts: Counter[str]) -> Iterator[Violation]:
    """The call ended because its caller hung up, and for no other reason.

    When they did so while their edge was dead, nobody knows of it: such a call ends as one that nobody took up again.
    """
    last = max((note.t for note in call.noted("frame")), default=0.0)
    unseen = not any(True for _ in call.noted("end")) and call.caller.ended_t - last < _UNSEEN_S
    reasons = [event.fact.reason for event in call.events if isinstance(event.fact, CallEnded)]
    for reason in reasons:
        counts[f"ended: {reason}"] += 1
        if reason == EDGE_LOST and unseen:
            counts["calls hung up while their edge was dead"] += 1
        elif reason != CALLER_HUNG_UP:
            text = f"the call ended by {reason!r}"
            yield Violation(rule="ended-early", call=call.caller.call, t=call.caller.ended_t, text=text)


def delivered(evidence: Evidence, counts: Counter[str]) -> Iterator[Violation]:
    """What is in the stream was delivered."""
    if evidence.stored is None:
        return
    got = {event.id for event in evidence.events}
    counts["facts stored"] += len(evidence.stored)
    missing = [identity for identity in evidence.stored if identity not in got]
    if missing:
        text = f"{len(missing)} stored facts were not delivered: {', '.join(missing[:5])}"
        yield Violation(rule="fact-not-delivered", call="", t=0.0, text=text)
