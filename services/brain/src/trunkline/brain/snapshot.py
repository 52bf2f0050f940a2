"""What is kept of a conversation so that another process can go on with it: everything that is not in the claim.

Pure data, JSON. It is written behind: what the caller heard, said or was told since is in the edge's recap, and
`takeover` puts the two together. Times of one process mean nothing to the next and are left out, but for those of the
caller's words and keys, which are the wall clock's.

It is bounded: a history too long for `MOST_BYTES` loses its beginning. Who goes on from there answers as a model would
that was never told of it: a script asks again for what it had learned, and whatever was promised early is forgotten.
What is being said, what runs and what the caller has just said is always kept.
"""

from typing import Final, Literal

import msgspec

from trunkline.brain.llm import Message, ToolAnswered
from trunkline.brain.utterance import Utterance
from trunkline.proto.ids import Epoch, Generation, ToolCallId, TurnId, UtteranceId

MOST_BYTES: Final = 256 * 1024
"""A tenth of it is an hour's conversation."""


class Spoke(msgspec.Struct, frozen=True, tag="spoke"):
    """A passage of the history: sentences the agent said in a row."""

    utterances: tuple[Utterance, ...]


class Saying(msgspec.Struct, frozen=True, kw_only=True):
    """The agent's turn that is being said, or was cut and may go on; see `heard.Speaking`."""

    turn: TurnId
    generation: Generation
    utterances: tuple[Utterance, ...] = ()
    complete: bool = False
    end_reason: str | None = None
    started_at: float | None = None
    again: bool = False
    answers: bool = False
    failed: bool = False
    owes_a_word: bool = False
    given_up: bool = False


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller has said of a turn that is not over; see `caller.CallerTurn`."""

    utterances: tuple[UtteranceId, ...] = ()
    words: tuple[tuple[UtteranceId, tuple[str, ...]], ...] = ()
    open: tuple[UtteranceId, ...] = ()
    before: str = ""
    failed: bool = False
    onset_at: float = 0.0
    offset_at: float = 0.0


class Running(msgspec.Struct, frozen=True):
    """A tool that was asked for, and has not answered."""

    tool_call: ToolCallId
    turn: TurnId


class Mouth(msgspec.Struct, frozen=True, kw_only=True):
    """What is on its way to the caller; see `delivery.Delivery`."""

    generation: Generation = Generation(0)
    used: bool = False
    """Whether anything was said in `generation`."""
    utterance: UtteranceId = UtteranceId(0)
    """The highest that was given to anything said."""
    saying: Saying | None = None
    fillers: tuple[tuple[UtteranceId, str], ...] = ()


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation between two events."""

    state: Literal["listening", "thinking", "speaking"] = "listening"
    turn: TurnId = TurnId(0)
    history: tuple[Message | Spoke, ...] = ()
    mouth: Mouth = Mouth()
    heard: Heard = Heard()
    heard_upto: UtteranceId = UtteranceId(-1)
    """No utterance of the caller's up to here will be told of again."""
    stt_epoch: Epoch = Epoch(0)
    keys: str = ""
    """Pressed, and not yet taken as an entry."""
    key_at: float = 0.0
    """When the newest key was pressed."""
    reprompts: int = 0
    failures: int = 0
    worked: bool = False
    """Whether an answer was heard since the last failure."""
    running: tuple[Running, ...] = ()
    tools_this_turn: int = 0
    winding_up: str | None = None
    ending: str | None = None
    """Why the call is being ended."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in the store: who wrote it, and what they knew; nothing, if they knew nothing yet."""

    epoch: Epoch
    snapshot: Snapshot | None = None


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Kept)


def encode(kept: Kept, most_bytes: int = MOST_BYTES) -> bytes:
    """Return `kept` as JSON of at most `most_bytes`, unless what must be kept alone is more."""
    data = _ENCODER.encode(kept)
    while len(data) > most_bytes and kept.snapshot is not None and kept.snapshot.history:
        shorter = _without_beginning(kept.snapshot)
        if shorter is None:
            break
        kept = msgspec.structs.replace(kept, snapshot=shorter)
        data = _ENCODER.encode(kept)
    return data


def decode(data: bytes) -> Kept:
    """Return what was kept.

    Raises:
        msgspec.DecodeError: it is none of ours, or of another version.
    """
    return _DECODER.decode(data)


def _without_beginning(snapshot: Snapshot) -> Snapshot | None:
    """Return `snapshot` with the newer half of its history; None when the rest has to stay."""
    history = snapshot.history
    runs = {running.tool_call for running in snapshot.running}
    saying = snapshot.mouth.saying
    said = {utterance.id for utterance in saying.utterances} if saying is not None else set()
    needed = next((at for at, item in enumerate(history) if _is_of(item, runs, said)), len(history) - 1)
    begin = min((len(history) + 1) // 2, needed)
    while begin < len(history) and isinstance(history[begin], ToolAnswered):
        begin += 1  # its question would be gone
    return msgspec.structs.replace(snapshot, history=history[begin:]) if begin else None


def _is_of(item: Message | Spoke, runs: set[ToolCallId], said: set[UtteranceId]) -> bool:
    if isinstance(item, Spoke):
        return any(utterance.id in said for utterance in item.utterances)
    return getattr(item, "tool_call", None) in runs
