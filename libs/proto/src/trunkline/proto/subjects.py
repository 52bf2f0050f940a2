"""Every subject on the bus, in one place.

``call.<id>.>`` carries text only, so that ``nats sub 'call.<id>.>'`` reads like a story. Audio is addressed to the one
process that consumes it: ``media.<worker>.<call>`` towards STT, ``audio.<edge>.<call>`` towards the caller.
"""

import re
from typing import Final

from trunkline.proto.ids import CallId, Stage, WorkerId

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")

EVENTS_STREAM: Final = "EVENTS"
EVENTS_ALL: Final = "events.>"
ALIVE_ALL: Final = "alive.*.*"
STORIES: Final = "call.>"
RINGING: Final = "ringing"
MAKE_CLIP: Final = "clip.make"
ASSIGNMENTS: Final = "call.*.assigned"


def claim(stage: Stage) -> str:
    """Request: take this call. Queue group = stage; only workers with room are in it."""
    return f"claim.{stage}"


def claim_of(stage: Stage, worker: WorkerId) -> str:
    """Request: take this call, you and nobody else. For an edge that knows who is alive and has room."""
    return f"claim.{stage}.{_token(worker)}"


def probe(worker: WorkerId) -> str:
    """Empty messages that nobody answers: when nobody subscribes either, the bus says that the process is gone."""
    return f"probe.{_token(worker)}"


def handover(edge: WorkerId) -> str:
    """Request: have one of your calls served by somebody else, because this worker is to stop."""
    return f"handover.{_token(edge)}"


def release(worker: WorkerId) -> str:
    """Request: let this call go; answered once the worker has said its last word about it."""
    return f"release.{_token(worker)}"


def missed(worker: WorkerId) -> str:
    """Audio that an edge has missed, edge → the TTS worker that sent it: to be sent again."""
    return f"missed.{_token(worker)}"


def holds(edge: WorkerId) -> str:
    """Request: these of your calls are with me; answered with those that should not be."""
    return f"holds.{_token(edge)}"


def media(worker: WorkerId, call: CallId) -> str:
    """Caller audio, edge → the STT worker that owns the call."""
    return f"media.{_token(worker)}.{_token(call)}"


def media_of(worker: WorkerId) -> str:
    """All caller audio for one STT worker: one wildcard subscription per process."""
    return f"media.{_token(worker)}.*"


def audio(edge: WorkerId, call: CallId) -> str:
    """Agent audio, TTS → the edge that holds the caller's socket."""
    return f"audio.{_token(edge)}.{_token(call)}"


def audio_of(edge: WorkerId) -> str:
    """All agent audio for one edge: one wildcard subscription per process."""
    return f"audio.{_token(edge)}.*"


def speech(call: CallId) -> str:
    """What the caller says, STT → brain."""
    return f"call.{_token(call)}.speech"


def speak(call: CallId) -> str:
    """What the agent is to say, brain → TTS."""
    return f"call.{_token(call)}.speak"


def spoken(call: CallId) -> str:
    """What became of what was to be said, TTS → brain."""
    return f"call.{_token(call)}.spoken"


def usage(call: CallId) -> str:
    """What the call has used of providers so far, workers → edge."""
    return f"call.{_token(call)}.usage"


def interrupt(call: CallId) -> str:
    """Older generations are void; fans out to TTS, edge and brain."""
    return f"call.{_token(call)}.interrupt"


def playout(call: CallId) -> str:
    """What the caller has actually heard, edge → brain."""
    return f"call.{_token(call)}.playout"


def control(call: CallId) -> str:
    """What is to be done with the call: hang up and, later, transfer, send digits, inject."""
    return f"call.{_token(call)}.control"


def assigned(call: CallId) -> str:
    """Who serves the call, edge → everyone concerned."""
    return f"call.{_token(call)}.assigned"


def dtmf(call: CallId) -> str:
    """Keys the caller pressed, edge → brain."""
    return f"call.{_token(call)}.dtmf"


def story(call: CallId) -> str:
    """Everything said about one call, as text."""
    return f"call.{_token(call)}.>"


def alive(stage: str, worker: WorkerId) -> str:
    """Heartbeat of one process (a stage's worker or an edge)."""
    return f"alive.{_token(stage)}.{_token(worker)}"


def alive_of(stage: str) -> str:
    """Heartbeats of every process of one stage."""
    return f"alive.{_token(stage)}.*"


def event(kind: str, call: CallId) -> str:
    """A lifecycle fact on JetStream. `kind` is the fact's tag, e.g. ``call.started`` → ``events.call-started.<id>``."""
    return f"events.{_token(kind.replace('.', '-'))}.{_token(call)}"


def last_token(subject: str) -> str:
    """Return what follows the last dot: the call of a media or audio subject, the topic of a story subject."""
    return subject[subject.rfind(".") + 1 :]


def _token(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise ValueError(f"{value!r} cannot be a subject token: 1 to 64 of A-Z a-z 0-9 _ -")
    return value
