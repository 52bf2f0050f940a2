"""What a message on the bus means, in words for a person at night. Pure: bytes in, lines out.

Nothing here fails on a message it does not know: a newer process may have sent it, and seeing it raw is the point.
"""

from typing import Final, Literal

import msgspec

from trunkline.bus import read_envelope
from trunkline.proto import codec
from trunkline.proto.errors import BadMessage
from trunkline.proto.events import (
    AgentSpoke,
    CallBilled,
    CallEnded,
    CallerBargedIn,
    CallerSpoke,
    CallResumed,
    CallStarted,
    Fact,
    KeyPressed,
    ProviderFailed,
    StageAssigned,
    StageLost,
    StageSettled,
    ToolCalled,
    ToolReturned,
    TurnMeasured,
)
from trunkline.proto.messages import (
    Assigned,
    DigitPressed,
    FinalTranscript,
    HangUp,
    Interrupt,
    PartialTranscript,
    PlayoutCut,
    PlayoutFinished,
    PlayoutStarted,
    Say,
    SpeakingFailed,
    SpeechStarted,
    SpeechStopped,
    TurnEnded,
    Used,
    VoiceChanged,
    WindUp,
    WordsTimed,
)

Style = Literal["caller", "agent", "interrupt", "playout", "tool", "trouble", "fact", "faint", "raw"]

_LONGEST_RAW: Final = 2_000


class Line(msgspec.Struct, frozen=True):
    """One line of the story."""

    call: str
    topic: str
    text: str
    style: Style


def of_message(subject: str, data: bytes) -> Line:
    """Tell what a message seen on `subject` means."""
    tokens = subject.split(".")
    if tokens[0] == "events":
        return of_event(data, tokens[-1])
    call, topic = (tokens[1], ".".join(tokens[2:])) if len(tokens) > 2 else ("", subject)
    try:
        text, style = _spoken(codec.decode_story(topic, data))
    except BadMessage:
        text, style = _raw(data), "raw"
    return Line(clean(call), clean(topic), clean(text), style)


def of_event(data: bytes, call: str = "") -> Line:
    """Tell what an event of the stream means; `call` is shown if the event does not say which it is about."""
    try:
        envelope = read_envelope(data)
    except ValueError:
        return Line(clean(call), "event", clean(_raw(data)), "raw")
    try:
        text, style = _happened(envelope.event().fact)
    except BadMessage:
        text, style = _raw(data), "raw"
    return Line(clean(envelope.call), clean(envelope.kind), clean(text), style)


def clean(text: str) -> str:
    """Return `text` with whatever could steer a terminal made visible."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _spoken(message: codec.Story) -> tuple[str, Style]:
    match message:
        case SpeechStarted():
            return "caller begins to speak", "faint"
        case PartialTranscript(text=text):
            return f"caller … {text}", "faint"
        case FinalTranscript(text=text, confidence=sure):
            return f'caller: "{text}"' + ("" if sure is None else f" (confidence {sure:.2f})"), "caller"
        case TurnEnded(speech_ended_at=spoke_at, endpoint_at=judged_at):
            return f"caller has finished; silence took {_ms(judged_at - spoke_at)}", "faint"
        case Say(text=text, generation=generation, utterance=utterance):
            return f'agent is to say #{utterance}: "{text}" (generation {generation})', "agent"
        case Interrupt(generation=generation, reason=reason):
            return f"INTERRUPT ({reason}): speech below generation {generation} is void", "interrupt"
        case PlayoutStarted(utterance=utterance, synthesised_at=made_at, sent_at=sent_at):
            return f"#{utterance} begins to play; {_ms(sent_at - made_at)} from synthesis to carrier", "playout"
        case PlayoutFinished(utterance=utterance, heard_ms=heard_ms):
            return f"#{utterance} was heard in full, {heard_ms / 1000:.1f} s", "playout"
        case PlayoutCut(utterance=utterance, heard_ms=heard_ms, total_ms=total_ms, complete=complete):
            whole = f"{total_ms / 1000:.1f} s" if complete else f"{total_ms / 1000:.1f} s so far"
            return f"#{utterance} was cut: {heard_ms / 1000:.1f} of {whole} heard", "interrupt"
        case WordsTimed(utterance=utterance, points=points):
            return f"#{utterance}: where {len(points)} of its words lie is known", "faint"
        case SpeakingFailed(utterance=utterance, instead=instead):
            return f"#{utterance} could not be spoken; the caller heard {instead or 'nothing'}", "trouble"
        case Used(stage=stage, provider=provider, usd=usd):
            return f"{stage} has used {provider} for ${usd:.4f} so far", "faint"
        case WindUp(reason=reason):
            return f"bring the call to an end: {reason}", "interrupt"
        case SpeechStopped():
            return "caller is silent; the words are being found", "faint"
        case HangUp(reason=reason):
            return f"hang up: {reason}", "trouble" if "error" in reason else "interrupt"
        case DigitPressed(digit=digit):
            return f"caller pressed {digit}", "caller"
        case Assigned(stage=stage, worker=worker, epoch=epoch):
            return f"{stage} is {worker} (epoch {epoch})", "faint"
        case VoiceChanged(reached=reached):
            return f"another voice goes on; audio of {len(reached)} sentences is on its way", "trouble"


def _happened(fact: Fact) -> tuple[str, Style]:
    match fact:
        case CallStarted(agent=agent, carrier=carrier, carrier_call=carrier_call, direction=direction, edge=edge):
            return f"{direction} call for {agent}, {carrier} {carrier_call}, at {edge}", "fact"
        case StageAssigned(stage=stage, worker=worker, epoch=epoch, claim_ms=claim_ms):
            return f"{stage} is {worker} (epoch {epoch}), claimed in {claim_ms:.1f} ms", "fact"
        case StageLost(stage=stage, worker=worker, epoch=epoch, reason=reason):
            return f"{stage} lost {worker} (epoch {epoch}): {reason}", "trouble"
        case CallResumed(edge=edge, before=before, away_ms=away_ms, planned=planned):
            how = "given" if planned else "lost"
            return f"the caller is back at {edge} after {away_ms / 1000:.1f} s; {before} had {how} the call", "trouble"
        case StageSettled(stage=stage, epoch=epoch, used=used):
            return f"{stage} (epoch {epoch}) settled ${sum(one.usd for one in used):.4f} before it left", "fact"
        case CallerSpoke(turn=turn, text=text, onset_at=began_at, offset_at=ended_at):
            said = f'"{text}"' if text else "something without words"
            return f"turn {turn}, caller: {said} ({ended_at - began_at:.1f} s)", "caller"
        case AgentSpoke(turn=turn, said=said, heard=heard, interrupted=interrupted):
            cut = f', cut off after "{heard}"' if interrupted else ""
            return f'turn {turn}, agent: "{said}"{cut}', "agent"
        case CallerBargedIn(turn=turn, generation=generation, onset_at=onset_at, at=at):
            late = _ms(at - onset_at)
            return f"turn {turn}, caller barged in; below generation {generation} void {late} after onset", "interrupt"
        case ToolCalled(turn=turn, name=name, arguments=arguments):
            return f"turn {turn}, tool {name}({arguments})", "tool"
        case ToolReturned(turn=turn, name=name, took_ms=took_ms, result=result, error=error):
            if error:
                return f"turn {turn}, tool {name} failed after {took_ms:.0f} ms: {error}", "trouble"
            return f"turn {turn}, tool {name} returned {result} after {took_ms:.0f} ms", "tool"
        case TurnMeasured():
            return _latency(fact), "fact"
        case ProviderFailed(stage=stage, provider=provider, kind=kind, text=text, then=then, to=to):
            return f"{stage}: {provider} failed ({kind}: {text}); {then} {to}".rstrip(), "trouble"
        case CallBilled(usd=usd, complete=complete):
            return f"providers cost ${usd:.4f}" + ("" if complete else " and what is not known"), "fact"
        case KeyPressed(digit=digit):
            return f"caller pressed {digit}", "caller"
        case CallEnded(reason=reason, duration_s=duration_s, frames_in=frames_in, audio_ms_out=audio_ms_out):
            amounts = f"{frames_in} frames in, {audio_ms_out / 1000:.1f} s of agent out"
            return f"call ended after {duration_s:.1f} s: {reason} ({amounts})", "fact"


def _latency(turn: TurnMeasured) -> str:
    parts = (
        ("endpoint", turn.endpoint_delay_ms),
        ("stt", turn.stt_final_ms),
        ("llm", turn.llm_ttft_ms),
        ("sentence", turn.first_sentence_ms),
        ("tts", turn.tts_ttfb_ms),
        ("edge", turn.edge_ms),
    )
    sums = " + ".join(f"{name} {value:.0f}" for name, value in parts)
    return f"turn {turn.turn} answered in {turn.turn_latency_ms:.0f} ms = {sums}"


def _raw(data: bytes) -> str:
    text = data.decode(errors="backslashreplace")
    return text if len(text) <= _LONGEST_RAW else f"{text[:_LONGEST_RAW]}… ({len(data)} bytes)"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
