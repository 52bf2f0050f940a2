"""Typed ids. A call, a worker, and the integers that order what they say."""

import base64
import hashlib
import secrets
from typing import Literal, NewType

CallId = NewType("CallId", str)
"""26 characters of lower-case base32: safe as a subject token, never chosen by a tenant."""

WorkerId = NewType("WorkerId", str)
"""One process that serves a stage, for example ``stt-k3v9q2xa``. The edge has one as well."""

Epoch = NewType("Epoch", int)
"""Which worker speaks for a stage of a call. The edge adds one at every assignment; lower epochs are void."""

Generation = NewType("Generation", int)
"""Which agent turn is current. An interrupt raises the floor; speech of a lower generation is void."""

TurnId = NewType("TurnId", int)
"""Whose floor it is, counted from 1; the greeting is turn 0."""

UtteranceId = NewType("UtteranceId", int)
"""A stretch of speech. The caller's is the seq of its first frame, so that a replay to a new STT worker names it
the same; the agent's counts the sentences of a call from 1."""

Seq = NewType("Seq", int)
"""Number of a media frame within its stream, from 0."""

MarkName = NewType("MarkName", str)
"""Name of a carrier mark. Ours is ``<generation>.<utterance>``."""

ToolCallId = NewType("ToolCallId", str)

Stage = Literal["stt", "brain", "tts"]
"""A part of the pipeline that workers claim calls for; also the name of their queue group."""

STAGES: tuple[Stage, ...] = ("stt", "tts", "brain")
"""In the order in which the edge assigns them: whoever speaks first is claimed last."""


def call_id_of(carrier: str, carrier_call_id: str) -> CallId:
    """Return the id of the call a carrier knows as `carrier_call_id`.

    It is derived, not drawn: whichever edge the carrier comes back to finds the same call without asking anyone,
    and no outside text becomes a subject token.
    """
    digest = hashlib.sha256(f"{carrier}:{carrier_call_id}".encode()).digest()[:16]
    return CallId(_base32(digest))


def new_worker_id(stage: str) -> WorkerId:
    """Return a fresh id for a process that serves `stage`."""
    return WorkerId(f"{stage}-{_base32(secrets.token_bytes(5))}")


def new_event_id() -> str:
    """Return a fresh 128-bit id; the same one on every delivery of an event."""
    return _base32(secrets.token_bytes(16))


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()
