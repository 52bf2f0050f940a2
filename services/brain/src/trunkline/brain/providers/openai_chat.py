"""An answer in chunks of chat completions, put together. Pure; whatever a chunk may hold is hostile until read here."""

from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from trunkline.brain.llm import Finished, LlmDelta, TextDelta, ToolCall, Usage
from trunkline.proto.ids import ToolCallId
from trunkline.providers.errors import Transient

LONGEST: Final = 1_000_000
"""Characters of one answer, tools' arguments included; no telephone call needs a thousandth of it."""
MOST_TOOLS: Final = 128
_MOST_TOKENS: Final = 100_000_000

Reason = Literal["stop", "tool-calls", "length", "refused"]
_REASONS: Final[dict[str, Reason]] = {
    "tool_calls": "tool-calls",
    "function_call": "tool-calls",
    "length": "length",
    "content_filter": "refused",
}

_BROKEN: Final = frozenset({"error", "abort", "insufficient_system_resource"})
"""How servers with more than OpenAI's reasons say that theirs was a failure."""


class _Function(msgspec.Struct, frozen=True):
    name: str | None = None
    arguments: str | None = None


class _ToolDelta(msgspec.Struct, frozen=True):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolDelta] | None = None


class _Choice(msgspec.Struct, frozen=True):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, frozen=True):
    choices: list[_Choice] | None = None
    usage: object = None


class _Details(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


class _Tool:
    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []


class ChatAnswer:
    """One answer. `own` begins the ids of tool calls that the server gives none."""

    def __init__(self, own: str) -> None:
        self._own = own
        self._tools: list[_Tool] = []
        self._at: dict[int, _Tool] = {}
        self._length = 0
        self._reason: Reason | None = None
        self._refused = False
        self._usage = Usage()

    @property
    def complete(self) -> bool:
        """Whether everything of it has come, but for its usage."""
        return self._reason is not None

    def take(self, chunk: object) -> Iterator[LlmDelta]:
        """Yield what `chunk`, an object of the SDK's, adds.

        Raises:
            Transient: it cannot be read, or there is no end to it.
        """
        try:
            read = msgspec.convert(chunk, _Chunk, from_attributes=True)
        except (msgspec.ValidationError, UnicodeEncodeError):
            raise Transient("a chunk cannot be read", "malformed") from None  # its text would quote words
        if read.usage is not None:
            self._usage = _usage(read.usage)
        if not read.choices or self.complete:
            return
        choice = read.choices[0]
        if choice.delta is not None:
            yield from self._add(choice.delta)
        if choice.finish_reason in _BROKEN:
            raise Transient(f"the answer ended with {choice.finish_reason}", "server")
        if choice.finish_reason:
            yield from self._tool_calls()
            reason = _REASONS.get(choice.finish_reason, "stop")
            # Some servers stop for no other reason than a tool, and say "stop".
            self._reason = "tool-calls" if self._tools and reason == "stop" else reason

    def finished(self) -> Finished:
        """Return its end.

        Raises:
            Transient: there was none.
        """
        if self._reason is None:
            raise Transient("the answer has no end", "dropped")
        refused = self._refused and self._reason == "stop"
        return Finished(reason="refused" if refused else self._reason, usage=self._usage)

    def _add(self, delta: _Delta) -> Iterator[LlmDelta]:
        self._refused |= bool(delta.refusal)
        for text in (delta.content, delta.refusal):
            if text:
                self._count(text)
                yield TextDelta(text)
        for piece in delta.tool_calls or ():
            self._piece(piece)

    def _piece(self, piece: _ToolDelta) -> None:
        function = piece.function or _Function()
        named = bool(piece.id or function.name)
        if piece.index is not None:
            tool = self._at.get(piece.index)
        else:
            tool = self._tools[-1] if self._tools and not named else None
        # Some servers give all calls of an answer the same index, each with an id of its own; or none an index.
        if tool is None or (function.name and piece.id and tool.id and piece.id != tool.id):
            tool = _Tool()
            self._tools.append(tool)
            if piece.index is not None:
                self._at[piece.index] = tool
        tool.id = tool.id or piece.id or ""
        tool.name = tool.name or function.name or ""
        if function.arguments:
            tool.arguments.append(function.arguments)
        self._count(tool.id + tool.name + (function.arguments or ""))
        if len(self._tools) > MOST_TOOLS:
            raise Transient("too many tools in one answer", "malformed")

    def _count(self, text: str) -> None:
        if not encodable(text):
            raise Transient("half a character", "malformed")
        self._length += len(text)
        if self._length > LONGEST:
            raise Transient("the answer is too long", "malformed")

    def _tool_calls(self) -> Iterator[ToolCall]:
        for at, tool in enumerate(self._tools):
            if not tool.name:
                raise Transient("a tool without a name", "malformed")
            own = ToolCallId(tool.id or f"{self._own}-{at + 1}")
            yield ToolCall(id=own, name=tool.name, arguments="".join(tool.arguments) or "{}")


def encodable(text: str) -> bool:
    """Return whether `text` is Unicode: JSON's escapes can smuggle in half a surrogate pair (RFC 8259, 8.2)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def tokens(told: int) -> int:
    """Return a number of tokens that can be one: what was told, within reason."""
    return min(max(0, told), _MOST_TOKENS)


def _usage(usage: object) -> Usage:
    """Return the figures; none where they cannot be read: an answer is not worse for that."""
    try:
        read = msgspec.convert(usage, _Usage, from_attributes=True)
    except (msgspec.ValidationError, UnicodeEncodeError):
        return Usage()
    cached = read.prompt_tokens_details.cached_tokens if read.prompt_tokens_details else 0
    return Usage(
        input_tokens=tokens(read.prompt_tokens or 0),
        cached_tokens=tokens(cached or 0),
        output_tokens=tokens(read.completion_tokens or 0),
    )
