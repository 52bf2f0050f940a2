"""The report of a call, from its log and its recording. Pure."""

import statistics
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from trunkline.call import CallResult, Spoken, Verdict
from trunkline.call.words import word_error_rate
from trunkline.demo import report as shape
from trunkline.demo.hearing import Channel
from trunkline.demo.watch import Record, Utterance, ms, record_of
from trunkline.demo.words import parsed
from trunkline.proto.events import (
    AgentSpoke,
    CallBilled,
    CallEnded,
    CallerBargedIn,
    CallerSpoke,
    CallStarted,
    ProviderFailed,
    ToolCalled,
    ToolReturned,
    TurnMeasured,
)

RATE_HZ: Final = 8_000
_FRAME_MS: Final = 20
_MS_PER_CHARACTER: Final = 62
"""Pace of an agent nothing was heard of."""
_SAME_WORDS_MS: Final = 500
"""How far the caller's speech and the turn it belongs to may be apart."""


def build(result: CallResult, file: str = "call.wav") -> shape.Report:
    """Return the report of `result`, with the verdicts of its scenario.

    Args:
        result: a call that is over, watched on the bus.
        file: name of the recording beside the report.
    """
    record = record_of(result.log, result.started_at)
    left, right = Channel(result.left, RATE_HZ), Channel(result.right, RATE_HZ)
    started = next((fact for fact in record.facts() if isinstance(fact, CallStarted)), None)
    ended = next((fact for fact in record.facts() if isinstance(fact, CallEnded)), None)
    turns = _turns(result, record, right)
    interrupts = tuple(_barge_ins(result, record, right))
    tools = tuple(_tools(record))
    return shape.Report(
        call=result.call,
        agent=started.agent if started is not None else "",
        scenario=result.scenario,
        started_at=_utc(result.started_at),
        ended_at=_utc(result.started_at + result.duration_s),
        duration_s=round(result.duration_s, 3),
        ended_reason=ended.reason if ended is not None else "",
        recording=shape.Recording(
            file=file,
            sample_rate_hz=RATE_HZ,
            duration_ms=ms(result.duration_s),
            caller=left.level(),
            agent=right.level(),
        ),
        turns=turns,
        interrupts=interrupts,
        tools=tools,
        verdicts=result.verdicts,
        totals=_totals(turns, interrupts, tools),
        cost=_cost(record),
        failures=tuple(_failures(record)),
        events=tuple(shape.SeenEvent(at_ms=at_ms, event=event) for at_ms, event in record.events),
    )


def _cost(record: Record) -> shape.Cost | None:
    billed = next((fact for fact in record.facts() if isinstance(fact, CallBilled)), None)
    return None if billed is None else shape.Cost(usd=billed.usd, complete=billed.complete, items=billed.items)


def _failures(record: Record) -> Iterable[shape.Failure]:
    for at_ms, event in record.events:
        match event.fact:
            case ProviderFailed(stage=stage, provider=provider, kind=kind, then=then, to=to):
                yield shape.Failure(at_ms=at_ms, stage=stage, provider=provider, kind=kind, then=then, to=to)
            case _:
                pass


def with_verdicts(report: shape.Report, more: Iterable[Verdict]) -> shape.Report:
    """Return `report` with `more` verdicts after those it has."""
    return msgspec.structs.replace(report, verdicts=(*report.verdicts, *more))


def _utc(wall_at: float) -> str:
    return datetime.fromtimestamp(wall_at, UTC).isoformat(timespec="milliseconds")


def _turns(result: CallResult, record: Record, right: Channel) -> tuple[shape.Turn, ...]:
    facts = list(record.facts())
    numbers = sorted({fact.turn for fact in facts if isinstance(fact, CallerSpoke | AgentSpoke | TurnMeasured)})
    callers = {fact.turn: fact for fact in facts if isinstance(fact, CallerSpoke)}
    owners = _owners(result, list(callers.values()))
    turns = []
    for number in numbers:
        caller = None
        if number in callers:
            caller = _caller(callers[number], owners[number], record, result.started_at)
        agent = _agent([f for f in facts if isinstance(f, AgentSpoke) and f.turn == number], record, right)
        measured = next((f for f in facts if isinstance(f, TurnMeasured) and f.turn == number), None)
        latency = None if measured is None or caller is None else _latency(measured, caller, right, result)
        turns.append(shape.Turn(turn=number, caller=caller, agent=agent, latency=latency))
    return tuple(turns)


def _owners(result: CallResult, turns: Sequence[CallerSpoke]) -> dict[int, list[Spoken]]:
    """Give everything the caller said to the turn whose time it shares most."""
    owners: dict[int, list[Spoken]] = {turn.turn: [] for turn in turns}
    for spoken in result.spoken:
        start_s, end_s = spoken.start_s + result.started_at, spoken.end_s + result.started_at
        shared = {turn.turn: min(end_s, turn.offset_at) - max(start_s, turn.onset_at) for turn in turns}
        best = max(shared, key=lambda number: shared[number], default=None)
        if best is not None and shared[best] * 1_000 > -_SAME_WORDS_MS:
            owners[best].append(spoken)
    return owners


def _caller(fact: CallerSpoke, spoken: Sequence[Spoken], record: Record, started_at: float) -> shape.CallerPart:
    written = [words for words in record.written if words.utterance in fact.utterances]
    said = " ".join(part.words for part in spoken if part.words)
    finals = [words.at_ms for words in written if words.final]
    return shape.CallerPart(
        said_by_scenario=said,
        transcript=fact.text,
        wer=round(word_error_rate(said, fact.text), 4),
        partials=tuple(shape.Partial(at_ms=words.at_ms, text=words.text) for words in written if not words.final),
        final_ms=max(finals, default=None),
        onset_ms=ms(spoken[0].start_s) if spoken else ms(fact.onset_at - started_at),
        offset_ms=ms(spoken[-1].end_s) if spoken else ms(fact.offset_at - started_at),
    )


def _agent(facts: Sequence[AgentSpoke], record: Record, right: Channel) -> shape.AgentPart | None:
    if not facts:
        return None
    generations = {fact.generation for fact in facts}
    utterances = [said for said in record.utterances.values() if said.generation in generations]
    for alone in [said for said in utterances if not said.text]:
        alone.text = facts[0].said
    sentences = tuple(_sentences(utterances, record, right))
    return shape.AgentPart(
        said=" ".join(fact.said for fact in facts if fact.said),
        heard=" ".join(fact.heard for fact in facts if fact.heard),
        interrupted=any(fact.interrupted for fact in facts),
        starts_ms=sentences[0].starts_ms if sentences else 0,
        ends_ms=max((sentence.ends_ms for sentence in sentences), default=0),
        sentences=sentences,
    )


def _sentences(utterances: Sequence[Utterance], record: Record, right: Channel) -> Iterable[shape.Sentence]:
    """Place sentences on the recording: each begins where it was sent or where the one before it ended."""
    clear_ms = _clear_of(utterances, record)
    last_ms = 0
    heard_ms = heard_characters = 0
    for said in utterances:
        begins = max(last_ms, said.sent_ms if said.sent_ms is not None else last_ms)
        ends = said.played_ms if said.played_ms is not None else clear_ms
        # A clear lets the frame that is playing play out.
        limit = begins if ends is None else ends + (0 if said.played_ms is not None else _FRAME_MS)
        first = right.first_sound(begins, limit) if said.sent_ms is not None else None
        last = right.last_sound(begins, limit) if first is not None else None
        pace = heard_ms / heard_characters if heard_characters else _MS_PER_CHARACTER
        if first is None or last is None:
            at = clear_ms if clear_ms is not None else begins
            unheard = round(len(said.text) * pace) if said.played_ms is None else 0
            first = last = at
        elif said.cut is None:
            heard_ms, heard_characters = heard_ms + last - first, heard_characters + len(said.text)
            unheard = 0
        else:
            whole = said.cut.total_ms if said.cut.complete else max(said.cut.total_ms, round(len(said.text) * pace))
            unheard = max(0, whole - (last - first))
        yield shape.Sentence(
            utterance=said.utterance,
            generation=said.generation,
            text=said.text,
            starts_ms=first,
            ends_ms=last,
            unheard_ms=unheard,
        )
        last_ms = limit


def _clear_of(utterances: Sequence[Utterance], record: Record) -> int | None:
    """Return when the carrier was told to drop `utterances`, None if it was not."""
    if all(said.played_ms is not None for said in utterances):
        return None
    newest = max((said.generation for said in utterances), default=0)
    stop = next((stop for stop in record.stops if stop.generation > newest), None)
    if stop is None:
        return None
    return min(record.clears_ms, key=lambda at_ms: abs(at_ms - stop.at_ms), default=stop.at_ms)


def _latency(fact: TurnMeasured, caller: shape.CallerPart, right: Channel, result: CallResult) -> shape.Latency:
    # An answer that began before the caller had ended has no latency to speak of.
    speaking = right.first_sound(caller.offset_ms, caller.offset_ms + _FRAME_MS) is not None
    first = None if speaking else right.first_sound(caller.offset_ms, ms(result.duration_s))
    return shape.Latency(
        endpoint_delay_ms=fact.endpoint_delay_ms,
        stt_final_ms=fact.stt_final_ms,
        llm_ttft_ms=fact.llm_ttft_ms,
        first_sentence_ms=fact.first_sentence_ms,
        tts_ttfb_ms=fact.tts_ttfb_ms,
        edge_ms=fact.edge_ms,
        turn_latency_ms=fact.turn_latency_ms,
        measured_ms=None if first is None else first - caller.offset_ms,
    )


def _barge_ins(result: CallResult, record: Record, right: Channel) -> Iterable[shape.BargeIn]:
    for at_ms, event in record.events:
        fact = event.fact
        if not isinstance(fact, CallerBargedIn):
            continue
        heard_ms = ms(fact.onset_at - result.started_at)
        spoken = [ms(part.start_s) for part in result.spoken if abs(ms(part.start_s) - heard_ms) < 2 * _SAME_WORDS_MS]
        onset = min(spoken, key=lambda start: abs(start - heard_ms), default=heard_ms)
        cleared = next((clear for clear in record.clears_ms if clear >= onset), at_ms)
        silent_from = cleared + _FRAME_MS  # what is playing this instant plays out
        answers = [u.sent_ms for u in record.utterances.values() if u.generation >= fact.generation and u.sent_ms]
        next_ms = min((sent for sent in answers if sent > cleared), default=ms(result.duration_s))
        last = right.last_sound(onset, next_ms - _FRAME_MS)
        yield shape.BargeIn(
            turn=fact.turn,
            at_ms=onset,
            cleared_ms=cleared,
            stopped_after_ms=0 if last is None else last - onset,
            generation=fact.generation,
            old_generation_audio_after_clear_ms=right.audible_ms(silent_from, next_ms - _FRAME_MS),
        )


def _tools(record: Record) -> Iterable[shape.ToolUse]:
    returned = {f.tool_call: f for f in record.facts() if isinstance(f, ToolReturned)}
    for at_ms, event in record.events:
        if isinstance(called := event.fact, ToolCalled):
            back = returned.get(called.tool_call)
            yield shape.ToolUse(
                turn=called.turn,
                name=called.name,
                called_ms=at_ms,
                took_ms=round(back.took_ms, 2) if back is not None else 0.0,
                arguments=parsed(called.arguments),
                result=parsed(back.result) if back is not None else None,
                error=back.error if back is not None else "no answer",
            )


def _totals(
    turns: Sequence[shape.Turn], interrupts: Sequence[shape.BargeIn], tools: Sequence[shape.ToolUse]
) -> shape.Totals:
    callers = [turn.caller for turn in turns if turn.caller is not None]
    latencies = [turn.latency for turn in turns if turn.latency is not None]
    reported = [latency.turn_latency_ms for latency in latencies]
    measured = [latency.measured_ms for latency in latencies if latency.measured_ms is not None]
    return shape.Totals(
        caller_turns=len(callers),
        barge_ins=len(interrupts),
        tool_calls=len(tools),
        mean_wer=round(statistics.fmean(caller.wer for caller in callers), 4) if callers else 0.0,
        worst_wer=max((caller.wer for caller in callers), default=0.0),
        p50_turn_latency_ms=round(statistics.median(reported), 1) if reported else None,
        worst_turn_latency_ms=max(reported, default=None),
        p50_measured_latency_ms=round(statistics.median(measured), 1) if measured else None,
    )
